"""Loss scaling with the overflow check across all replicas (section 3.2).

What: float16 gradients underflow unless the loss is scaled up, and overflow if the scale is too large. Keras'
    LossScaleOptimizer checks only the first replica's own gradients for overflow, so an overflow in another replica
    reaches the weights of all. `LossScaling` sums the gradients over replicas first, so a non-finite value in
    one replica is non-finite in all, and either all replicas skip the step or none.
Equation: g = sum over replicas of the scaled gradients. If any element of g is non-finite, the step is skipped and
    s <- max(s / 2, min_scale). Otherwise the inner optimizer applies g / s, and s <- 2 s after
    `dynamic_growth_steps` such steps in a row.
Shapes and dtypes: s is a float32 scalar; gradients of any float dtype.
The paper's value: FP16 at batch 1024, with loss scaling; the scale is not given.
Interactions: `compile` doesn't wrap it in another LossScaleOptimizer. Clipping, weight decay and the schedule belong
    to the inner optimizer. It clips the summed, unscaled gradient, and its iterations don't count skipped steps.
    Create it in the strategy's scope. bfloat16 needs no loss scaling.
Reference: Micikevicius et al., "Mixed Precision Training", ICLR 2018, arXiv 1710.03740; keras issue 21366.
"""

import contextlib
import threading
import types
from collections.abc import Iterable, Iterator
from typing import Any

import keras
from keras import ops

from keras_bot.tensors import Tensor

_replica = threading.local()  # Each replica runs in its own thread.


@keras.saving.register_keras_serializable(package="keras_bot")
class LossScaling(keras.optimizers.LossScaleOptimizer):
    """LossScaleOptimizer that is correct with several replicas.

    Args:
        inner_optimizer: any Keras optimizer without loss scaling of its own.
        initial_scale: scale at the first step.
        dynamic_growth_steps: number of consecutive finite steps after which the scale is doubled.
        min_scale: lower bound of the scale.
        name, **kwargs: as in `keras.optimizers.LossScaleOptimizer`.

    Raises:
        ValueError: if the inner optimizer is a LossScaleOptimizer, or min_scale isn't above 0 and at most
            initial_scale.
    """

    def __init__(
        self,
        inner_optimizer: keras.optimizers.Optimizer,
        initial_scale: float = 2.0**15,
        dynamic_growth_steps: int = 2000,
        min_scale: float = 1.0,
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        if isinstance(inner_optimizer, keras.optimizers.LossScaleOptimizer):
            raise ValueError(
                f"inner_optimizer already scales the loss: {inner_optimizer!r}. Pass its inner_optimizer instead."
            )
        if not 0 < min_scale <= initial_scale:
            raise ValueError(
                f"min_scale must be above 0 and at most initial_scale ({initial_scale!r}), received {min_scale!r}."
            )
        super().__init__(inner_optimizer, initial_scale, dynamic_growth_steps, name=name, **kwargs)
        self.min_scale = min_scale
        sum_once(inner_optimizer)

    def apply(self, grads: Iterable[Tensor], trainable_variables: Iterable[keras.Variable] | None = None) -> None:
        """Sums the gradients over replicas, then applies them, or skips the step if any is non-finite.

        Args:
            grads: one gradient per variable, or None.
            trainable_variables: the variables; required if the optimizer isn't built.

        Raises:
            ValueError: if there are no variables, or if all gradients are None.
        """
        grads = list(grads)
        if not grads:
            return
        if trainable_variables is None and not self.built:
            raise ValueError("The optimizer is not built yet. Pass trainable_variables in the first call of `apply`.")
        variables = self._trainable_variables if trainable_variables is None else list(trainable_variables)
        grads = sum_over_replicas(self, grads, variables)
        super().apply(grads, variables)

    def exclude_from_weight_decay(
        self, var_list: Iterable[keras.Variable] | None = None, var_names: str | Iterable[str] | None = None
    ) -> None:
        """Excludes variables from the weight decay of the inner optimizer."""
        self.inner_optimizer.exclude_from_weight_decay(var_list, var_names)

    def _stateful_handle_finite_grads(self, grads, trainable_variables):
        with gradients_are_summed():
            super()._stateful_handle_finite_grads(grads, trainable_variables)

    def _stateful_handle_non_finite_grads(self):
        super()._stateful_handle_non_finite_grads()
        self.dynamic_scale.assign(ops.maximum(self.dynamic_scale, self.min_scale))

    def _stateless_handle_non_finite_grads(self, optimizer_variables, trainable_variables):
        trainable, state = super()._stateless_handle_non_finite_grads(optimizer_variables, trainable_variables)
        place = [variable is self.dynamic_scale for variable in self.variables].index(True)
        state[place] = ops.maximum(state[place], self.min_scale)
        return trainable, state

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor arguments."""
        return {**super().get_config(), "min_scale": self.min_scale}


def sum_over_replicas(optimizer: keras.optimizers.Optimizer, gradients: list, variables: list) -> list:
    """Sums gradients over the replicas of a `tf.distribute` strategy, keeping None entries.

    Returns the gradients unchanged if there is no such strategy (with JAX, for example, they are already summed over
    the global batch), and within `gradients_are_summed` if `sum_once` was applied to the optimizer.
    """
    reduce = getattr(optimizer, "_all_reduce_sum_gradients", None)
    # Keras fails on None entries: it passes a list as the category of its warning.
    present = [pair for pair in zip(gradients, variables, strict=True) if pair[0] is not None]
    if reduce is None or not present:
        return gradients
    summed = iter([gradient for gradient, _ in reduce(present)])
    return [None if gradient is None else next(summed) for gradient in gradients]


class SumFirst(keras.optimizers.Optimizer):
    """Mixin, placed before a Keras optimizer, that clips the gradient summed over replicas, not each replica's own."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        sum_once(self)

    def _backend_apply_gradients(self, grads, trainable_variables):
        grads = sum_over_replicas(self, grads, trainable_variables)
        with gradients_are_summed():
            super()._backend_apply_gradients(grads, trainable_variables)


def sum_once(optimizer: keras.optimizers.Optimizer) -> None:
    """Patches an optimizer not to sum gradients over replicas within `gradients_are_summed`."""
    if hasattr(optimizer, "_all_reduce_sum_gradients"):
        optimizer._all_reduce_sum_gradients = types.MethodType(_sum_unless_summed, optimizer)


def _sum_unless_summed(optimizer, grads_and_vars):
    if getattr(_replica, "is_summed", False):
        return grads_and_vars
    return type(optimizer)._all_reduce_sum_gradients(optimizer, grads_and_vars)


@contextlib.contextmanager
def gradients_are_summed() -> Iterator[None]:
    """Marks the calling replica's gradients as already summed over replicas inside the `with` block."""
    before = getattr(_replica, "is_summed", False)
    _replica.is_summed = True
    try:
        yield
    finally:
        _replica.is_summed = before
