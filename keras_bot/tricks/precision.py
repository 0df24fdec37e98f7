"""Half precision with float32 master weights (section 3.2).

What: computing with 16-bit weights, activations and gradients is faster and takes half the memory. The optimizer
    updates a float32 copy of the weights, so that small updates are not lost.
Equation: float16 gradients underflow below 6e-8: multiply the loss by a scale and divide the gradients by it.
    If a gradient overflows, halve the scale and skip the update.
Shapes and dtypes: under "mixed_float16" and "mixed_bfloat16" layers compute in 16 bits and keep float32
    variables.
The paper's value: FP16 at batch 1024, with loss scaling.
Interactions: keep the logits and the loss in float32: give the last layer dtype="float32". The losses here cast to
    float32. `compile` wraps the optimizer in a LossScaleOptimizer for "mixed_float16"; bfloat16 has the range of
    float32 and needs none. A layer takes the policy that is set when it is created, so build the model inside the
    context.
Reference: Micikevicius et al., "Mixed Precision Training", ICLR 2018, arXiv 1710.03740; He et al., CVPR 2019,
    section 3.2.
"""

import contextlib
from collections.abc import Iterator

import keras

from keras_bot.deprecation import renamed_names
from keras_bot.tricks.no_bias_decay import is_kernel

POLICIES = ("float32", "mixed_float16", "mixed_bfloat16")


@contextlib.contextmanager
def mixed_precision(policy: str) -> Iterator[None]:
    """Sets Keras' global dtype policy within a `with` block and restores the old one, also after an error.

    Args:
        policy: "float32", "mixed_float16" or "mixed_bfloat16".

    Raises:
        ValueError: if the policy is unknown.
    """
    if policy not in POLICIES:
        raise ValueError(f"policy must be one of {', '.join(POLICIES)}, received {policy!r}.")
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def policy_of(model: keras.Model) -> keras.DTypePolicy:
    """Returns the dtype policy of the model's first layer with a kernel, since a loaded model doesn't know its own."""
    for layer in model.layers:
        if any(is_kernel(variable) for variable in layer.weights):
            return policy_of(layer) if isinstance(layer, keras.Model) else layer.dtype_policy
    return model.dtype_policy


__getattr__ = renamed_names(
    __name__, {"output_layers": "keras_bot.surgery.output_layers", "recast": "keras_bot.surgery.recast"}
)
