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
import os
import tempfile

import keras

from keras_bot.tricks.no_bias_decay import is_kernel

POLICIES = ("float32", "mixed_float16", "mixed_bfloat16")


@contextlib.contextmanager
def mixed_precision(policy: str):
    """Sets Keras' global dtype policy within a `with` block and restores the old one, also after an error.

    Args:
        policy: "float32", "mixed_float16" or "mixed_bfloat16".

    Raises:
        ValueError: if the policy is unknown.
    """
    if policy not in POLICIES:
        raise ValueError(f"Expected the policy as one of {', '.join(POLICIES)}, received {policy!r}.")
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


def output_layers(model: keras.Model) -> list:
    """Returns the layers or operations that produce the model's outputs, descending into nested models."""
    last = [tensor._keras_history.operation for tensor in model.outputs]
    return [layer for op in last for layer in (output_layers(op) if isinstance(op, keras.Model) else [op])]


def _alone(tensors):
    return tensors[0] if isinstance(tensors, list | tuple) and len(tensors) == 1 else tensors


def recast(model: keras.Model, policy: str | keras.DTypePolicy) -> keras.Model:
    """Returns an uncompiled copy of `model`, with its weights, that computes in `policy`; output layers use float32.

    Args:
        model: functional or built Sequential model. It is not modified.
        policy: a dtype policy or its name.
    """

    heads = output_layers(model)

    def rebuild(layer):
        config = layer.get_config()
        if "dtype" in config:
            config["dtype"] = "float32" if layer in heads else policy
        return layer.__class__.from_config(config)

    copy = keras.models.clone_model(model, clone_function=rebuild, recursive=True)
    # The clone of a compiled model is compiled; a new model with its layers isn't.
    is_chain = isinstance(copy, keras.Sequential)
    ends = (copy.inputs, copy.outputs) if is_chain else (copy.input, copy.output)
    copy = keras.Model(*map(_alone, ends), name=model.name)
    # Uses a file instead of get_weights, because loading also restores state that layers derive from their weights.
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "model.weights.h5")
        model.save_weights(path)
        copy.load_weights(path)
    return copy
