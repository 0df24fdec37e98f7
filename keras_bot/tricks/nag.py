"""NAG: SGD with Nesterov momentum and an L2 penalty in the gradient (sections 2.1 and 3.1).

What: the paper's optimizer, as in MXNet and PyTorch. Keras' SGD(nesterov=True) keeps the learning rate inside
    the velocity, which gives different updates when the rate changes. Its weight decay also bypasses the momentum,
    so at momentum 0.9 it has a tenth of the effect.
Equation: g = grad + lambda * w (decayed variables only);  v <- mu * v + g;  w <- w - eta * (g + mu * v).
Shapes and dtypes: one velocity per variable, of its shape and dtype; works in float32, mixed precision and half
    precision.
The paper's value: mu = 0.9, lambda = 1e-4, eta = 0.1 at batch 256.
Interactions: wrap it in `LossScaling` under mixed_float16. The penalty is added after unscaling and clipping. Clipping
    applies to the gradient summed over replicas, whereas Keras' optimizers clip each replica's own. Kernel
    regularizers in the model would decay a second time. A path in `decayed_variables` is a `variable.path` that may
    omit leading parts, since Keras omits the name of a loaded Sequential model.
Reference: Sutskever et al., ICML 2013; torch.optim.SGD(nesterov=True); mxnet.optimizer.NAG; He et al., CVPR
    2019.
"""

import numbers
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import keras
from keras import ops
from keras.optimizers.schedules import LearningRateSchedule

from keras_bot.deprecation import renamed_arguments, renamed_attributes
from keras_bot.tensors import Tensor
from keras_bot.tricks.loss_scaling import SumFirst
from keras_bot.tricks.no_bias_decay import DecayExclusions, is_kernel, same_path, warn_of_unknown_weights

_RENAMED = {"decay": "decayed_variables", "rates": "lr_multipliers"}  # arguments of version 0.1.0


@keras.saving.register_keras_serializable(package="keras_bot")
class NAG(SumFirst, DecayExclusions, keras.optimizers.Optimizer):
    """SGD with Nesterov momentum and coupled weight decay on chosen variables.

    Args:
        learning_rate: float, `LearningRateSchedule` or a callable without arguments.
        momentum: mu, at least 0 and below 1.
        weight_decay: lambda, at least 0. It is added to the gradient, unlike in Keras' own optimizers.
        decayed_variables: "kernels" of convolutions and dense layers, "all", or a sequence of variable paths.
            `exclude_from_weight_decay` excludes some of them. "kernels" warns about other matrices.
        lr_multipliers: learning rate factors by variable path, for example smaller ones for pretrained variables.
        clipnorm, clipvalue, global_clipnorm: as in every Keras optimizer, as are the arguments below.
        use_ema, ema_momentum, ema_overwrite_frequency: exponential moving average of the weights.
        loss_scale_factor, gradient_accumulation_steps, name: see `keras.optimizers.Optimizer`.

    Raises:
        ValueError: if a value is out of range, and when built, if a path doesn't match exactly one trainable
            variable.
    """

    __getattr__ = renamed_attributes(l2="weight_decay", **_RENAMED)

    @renamed_arguments(**_RENAMED)
    def __init__(
        self,
        learning_rate: float | LearningRateSchedule | Callable[[], Tensor] = 0.1,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        decayed_variables: str | Sequence[str] = "kernels",
        lr_multipliers: Mapping[str, float] | None = None,
        clipnorm: float | None = None,
        clipvalue: float | None = None,
        global_clipnorm: float | None = None,
        use_ema: bool = False,
        ema_momentum: float = 0.99,
        ema_overwrite_frequency: int | None = None,
        loss_scale_factor: float | None = None,
        gradient_accumulation_steps: int | None = None,
        name: str | None = None,
    ) -> None:
        # NumPy scalars can't be multiplied with symbolic tensors.
        super().__init__(
            learning_rate=float(learning_rate) if isinstance(learning_rate, numbers.Real) else learning_rate,
            clipnorm=clipnorm,
            clipvalue=clipvalue,
            global_clipnorm=global_clipnorm,
            use_ema=use_ema,
            ema_momentum=ema_momentum,
            ema_overwrite_frequency=ema_overwrite_frequency,
            loss_scale_factor=loss_scale_factor,
            gradient_accumulation_steps=gradient_accumulation_steps,
            name=name,
        )
        _check(momentum, weight_decay, decayed_variables)
        self.momentum = float(momentum)
        self.weight_decay = float(weight_decay)
        self.decayed_variables = decayed_variables if isinstance(decayed_variables, str) else tuple(decayed_variables)
        self.lr_multipliers = {path: float(factor) for path, factor in (lr_multipliers or {}).items()}

    def build(self, variables: list[keras.Variable]) -> None:
        """Creates the velocities and determines which variables are decayed."""
        if self.built:
            return
        super().build(variables)
        self._velocities = self.add_optimizer_variables(variables, "velocity")
        # Determined here, because TensorFlow's update_step receives raw variables, without a path or role.
        self._is_decayed = tuple(
            chosen and self._use_weight_decay(v)
            for chosen, v in zip(self._choose_decayed(variables), variables, strict=True)
        )
        factors = {_find(path, variables, "lr_multipliers"): factor for path, factor in self.lr_multipliers.items()}
        self._factors = tuple(factors.get(v.path, 1.0) for v in variables)

    def _choose_decayed(self, variables):
        if self.decayed_variables == "all":
            return (True,) * len(variables)
        if self.decayed_variables == "kernels":
            if self.weight_decay:
                warn_of_unknown_weights(variables)
            return tuple(is_kernel(v) for v in variables)
        named = {_find(path, variables, "decayed_variables") for path in self.decayed_variables}
        return tuple(v.path in named for v in variables)

    def _apply_weight_decay(self, variables):
        """Does nothing: `update_step` adds the decay to the gradient. Keras' method would shrink the weights too."""

    def update_step(self, gradient: Tensor, variable: keras.Variable, learning_rate: Tensor) -> None:
        """Updates one variable."""
        index = self._get_variable_index(variable)
        velocity = self._velocities[index]
        gradient = ops.cast(ops.convert_to_tensor(gradient), variable.dtype)
        if self._is_decayed[index]:
            gradient = gradient + self.weight_decay * variable
        new_velocity = self.momentum * velocity + gradient
        step = ops.cast(learning_rate * self._factors[index], variable.dtype) * (
            gradient + self.momentum * new_velocity
        )
        self.assign(velocity, new_velocity)
        self.assign_sub(variable, step)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor arguments."""
        decayed = self.decayed_variables if isinstance(self.decayed_variables, str) else list(self.decayed_variables)
        own = {"momentum": self.momentum, "decayed_variables": decayed, "lr_multipliers": self.lr_multipliers}
        return {**super().get_config(), **own}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: dict[str, Any] | None = None) -> Self:
        """Builds the optimizer from `get_config`'s result, also that of version 0.1.0."""
        config = {_RENAMED.get(name, name): value for name, value in config.items()}
        return super().from_config(config, custom_objects=custom_objects)


def _check(momentum, weight_decay, decayed_variables):
    if not 0 <= momentum < 1:
        raise ValueError(f"momentum must be at least 0 and below 1, received {momentum!r}.")
    if not weight_decay >= 0:
        raise ValueError(f"weight_decay must be at least 0, received {weight_decay!r}.")
    if isinstance(decayed_variables, str) and decayed_variables not in ("kernels", "all"):
        raise ValueError(
            f'decayed_variables must be "kernels", "all" or a list of variable paths, received {decayed_variables!r}.'
        )


def _find(path, variables, argument):
    """Returns the variable path that `path` refers to; either may have leading parts that the other lacks."""
    paths = [v.path for v in variables]
    alike = [p for p in paths if same_path(p, path)]
    found = [p for p in paths if p == path] or alike
    if len(found) != 1:
        raise ValueError(
            f"The path {path!r} in {argument} matches {len(found)} trainable variables, but must match one. "
            f"Known paths: {paths}."
        )
    return found[0]
