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
    regularizers in the model would decay a second time. A path in `decay` is a `variable.path` that may omit
    leading parts, since Keras omits the name of a loaded Sequential model.
Reference: Sutskever et al., ICML 2013; torch.optim.SGD(nesterov=True); mxnet.optimizer.NAG; He et al., CVPR
    2019.
"""

import numbers
from collections.abc import Mapping, Sequence

import keras
from keras import ops

from keras_bot.tricks.loss_scaling import SumFirst
from keras_bot.tricks.no_bias_decay import DecayExclusions, is_kernel, same_path, warn_of_unknown_weights


@keras.saving.register_keras_serializable(package="keras_bot")
class NAG(SumFirst, DecayExclusions, keras.optimizers.Optimizer):
    """SGD with Nesterov momentum and coupled weight decay on chosen variables.

    Args:
        learning_rate: float, `LearningRateSchedule` or a callable without arguments.
        momentum: mu, at least 0 and below 1.
        weight_decay: lambda, at least 0.
        decay: variables to decay: "kernels" of convolutions and dense layers, "all", or a sequence of paths.
            `exclude_from_weight_decay` excludes some of them. "kernels" warns about other matrices.
        rates: learning rate factors by variable path, for example smaller ones for pretrained variables.
        clipnorm, clipvalue, global_clipnorm, use_ema, ema_momentum, ema_overwrite_frequency,
            loss_scale_factor, gradient_accumulation_steps, name: as in every Keras optimizer.

    Raises:
        ValueError: if a value is out of range, and when built, if a path doesn't match exactly one trainable
            variable.
    """

    def __init__(
        self,
        learning_rate=0.1,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        decay: str | Sequence[str] = "kernels",
        rates: Mapping[str, float] | None = None,
        clipnorm=None,
        clipvalue=None,
        global_clipnorm=None,
        use_ema=False,
        ema_momentum=0.99,
        ema_overwrite_frequency=None,
        loss_scale_factor=None,
        gradient_accumulation_steps=None,
        name=None,
    ):
        # The base class only supports decoupled decay. NumPy scalars can't be multiplied with symbolic tensors.
        super().__init__(
            learning_rate=float(learning_rate) if isinstance(learning_rate, numbers.Real) else learning_rate,
            weight_decay=None,
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
        if not 0 <= momentum < 1:
            raise ValueError(f"Expected momentum of at least 0 and below 1, received {momentum!r}.")
        if not weight_decay >= 0:
            raise ValueError(f"Expected weight_decay of at least 0, received {weight_decay!r}.")
        if isinstance(decay, str) and decay not in ("kernels", "all"):
            raise ValueError(f'Expected decay as "kernels", "all" or a list of variable paths, received {decay!r}.')
        self.momentum = float(momentum)
        self.l2 = float(weight_decay)
        self.decay = decay if isinstance(decay, str) else tuple(decay)
        self.rates = {path: float(factor) for path, factor in (rates or {}).items()}

    def build(self, variables):
        """Creates the velocities and determines which variables are decayed."""
        if self.built:
            return
        super().build(variables)
        self._velocities = self.add_optimizer_variables(variables, "velocity")
        # Determined here, because TensorFlow's update_step receives raw variables, without a path or role.
        self._is_decayed = tuple(
            chosen and self._use_weight_decay(v)
            for chosen, v in zip(self._settle_decay(variables), variables, strict=True)
        )
        factors = {_find(path, variables, "rates"): factor for path, factor in self.rates.items()}
        self._factors = tuple(factors.get(v.path, 1.0) for v in variables)

    def _settle_decay(self, variables):
        if self.decay == "all":
            return (True,) * len(variables)
        if self.decay == "kernels":
            if self.l2:
                warn_of_unknown_weights(variables)
            return tuple(is_kernel(v) for v in variables)
        named = {_find(path, variables, "decay") for path in self.decay}
        return tuple(v.path in named for v in variables)

    def update_step(self, gradient, variable, learning_rate):
        """Updates one variable."""
        index = self._get_variable_index(variable)
        velocity = self._velocities[index]
        gradient = ops.cast(ops.convert_to_tensor(gradient), variable.dtype)
        if self._is_decayed[index]:
            gradient = gradient + self.l2 * variable
        new_velocity = self.momentum * velocity + gradient
        step = ops.cast(learning_rate * self._factors[index], variable.dtype) * (
            gradient + self.momentum * new_velocity
        )
        self.assign(velocity, new_velocity)
        self.assign_sub(variable, step)

    def get_config(self):
        """Returns the constructor arguments."""
        decay = self.decay if isinstance(self.decay, str) else list(self.decay)
        own = {"momentum": self.momentum, "weight_decay": self.l2, "decay": decay, "rates": self.rates}
        return {**super().get_config(), **own}


def _find(path, variables, argument):
    """Returns the variable path that `path` refers to; either may have leading parts that the other lacks."""
    paths = [v.path for v in variables]
    alike = [p for p in paths if same_path(p, path)]
    found = [p for p in paths if p == path] or alike
    if len(found) != 1:
        raise ValueError(
            f"Expected a path in {argument} to name one trainable variable, received {path!r} "
            f"that names {len(found)}. Known paths: {paths}."
        )
    return found[0]
