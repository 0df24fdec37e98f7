"""Loss scaling that all replicas decide together (section 3.2).

What: float16 gradients underflow unless the loss is scaled up, and overflow when it is scaled too far. Keras'
    LossScaleOptimizer looks for an overflow in the first replica's own gradients: one in another replica
    reaches the weights of all. `LossScaling` sums the gradients over replicas first, so that what isn't finite
    in one isn't finite in any; all skip that step, or none.
Equation: g = sum over replicas of the scaled gradients. Any of g not finite: nothing moves, and
    s <- max(s / 2, min_scale). Else the inner optimizer takes g / s, and s <- 2 s after
    `dynamic_growth_steps` such steps in a row.
Shapes and dtypes: s is a float32 scalar; gradients of any float dtype.
The paper's value: FP16 at batch 1024, with loss scaling; the scale isn't told.
Interactions: `compile` wraps no second one around it. Clipping, decay and the schedule are the inner
    optimizer's; it clips the summed and unscaled gradient, and a skipped step isn't one of its iterations.
    Make it in the scope of the strategy. bfloat16 needs none.
Reference: Micikevicius et al., "Mixed Precision Training", ICLR 2018, arXiv 1710.03740; keras issue 21366.
"""

import contextlib
import threading
import types

import keras
from keras import ops

_replica = threading.local()  # Each replica runs in a thread of its own.


@keras.saving.register_keras_serializable(package="keras_bot")
class LossScaling(keras.optimizers.LossScaleOptimizer):
    """Keras' LossScaleOptimizer, safe on several replicas.

    Args:
        inner_optimizer: any Keras optimizer that scales no loss itself.
        initial_scale: the scale of the first step.
        dynamic_growth_steps: after so many good steps in a row the scale is doubled.
        min_scale: the scale isn't halved below it.
        name, **kwargs: as in `keras.optimizers.LossScaleOptimizer`.

    Raises:
        ValueError: for an inner optimizer that is a LossScaleOptimizer, or a min_scale that isn't above 0 or is above
            initial_scale.
    """

    def __init__(
        self,
        inner_optimizer: keras.optimizers.Optimizer,
        initial_scale: float = 2.0**15,
        dynamic_growth_steps: int = 2000,
        min_scale: float = 1.0,
        name: str | None = None,
        **kwargs,
    ):
        if isinstance(inner_optimizer, keras.optimizers.LossScaleOptimizer):
            raise ValueError(f"Expected an optimizer without loss scaling, received {inner_optimizer!r}. Unwrap it.")
        if not 0 < min_scale <= initial_scale:
            raise ValueError(
                f"Expected min_scale above 0 and at most initial_scale ({initial_scale!r}), received {min_scale!r}."
            )
        super().__init__(inner_optimizer, initial_scale, dynamic_growth_steps, name=name, **kwargs)
        self.min_scale = min_scale
        sum_once(inner_optimizer)

    def apply(self, grads, trainable_variables=None):
        """One step: all gradients are summed over replicas and checked, then applied or dropped.

        Args:
            grads: a gradient a variable, None where there is none.
            trainable_variables: their variables; needed if the optimizer isn't built.

        Raises:
            ValueError: without variables, or if there is no gradient at all.
        """
        grads = list(grads)
        if not grads:
            return
        if trainable_variables is None and not self.built:
            raise ValueError("Expected trainable_variables or a built optimizer, received neither. Pass them once.")
        variables = self._trainable_variables if trainable_variables is None else list(trainable_variables)
        grads = sum_over_replicas(self, grads, variables)
        super().apply(grads, variables)

    def exclude_from_weight_decay(self, var_list=None, var_names=None):
        """Excludes variables from the weight decay of the inner optimizer, which is the one that decays."""
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

    def get_config(self):
        """All arguments."""
        return {**super().get_config(), "min_scale": self.min_scale}


def sum_over_replicas(optimizer: keras.optimizers.Optimizer, gradients: list, variables: list) -> list:
    """The gradients summed over the replicas of a `tf.distribute` strategy, None where there is none.

    Elsewhere, and within `gradients_are_summed` for an optimizer that sums once, they come back as they are: JAX's
    gradient, for one, is of the global batch.
    """
    reduce = getattr(optimizer, "_all_reduce_sum_gradients", None)
    # Keras fails on a None among them: it passes its warning a list where the category belongs.
    present = [pair for pair in zip(gradients, variables, strict=True) if pair[0] is not None]
    if reduce is None or not present:
        return gradients
    summed = iter([gradient for gradient, _ in reduce(present)])
    return [None if gradient is None else next(summed) for gradient in gradients]


class SumFirst:
    """As the first base of a Keras optimizer: it clips the gradient summed over replicas, Keras each replica's own."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        sum_once(self)

    def _backend_apply_gradients(self, grads, trainable_variables):
        grads = sum_over_replicas(self, grads, trainable_variables)
        with gradients_are_summed():
            super()._backend_apply_gradients(grads, trainable_variables)


def sum_once(optimizer: keras.optimizers.Optimizer):
    """Makes an optimizer sum no gradients over replicas within `gradients_are_summed`."""
    if hasattr(optimizer, "_all_reduce_sum_gradients"):
        optimizer._all_reduce_sum_gradients = types.MethodType(_sum_unless_summed, optimizer)


def _sum_unless_summed(optimizer, grads_and_vars):
    if getattr(_replica, "is_summed", False):
        return grads_and_vars
    return type(optimizer)._all_reduce_sum_gradients(optimizer, grads_and_vars)


@contextlib.contextmanager
def gradients_are_summed():
    """In this block the calling replica's gradients are those of all replicas already."""
    before = getattr(_replica, "is_summed", False)
    _replica.is_summed = True
    try:
        yield
    finally:
        _replica.is_summed = before
