"""Half precision with float32 master weights (section 3.2).

What: weights, activations and gradients in 16 bits run faster and take half the memory; the optimizer updates
    a float32 copy, so that small updates are not lost.
Equation: float16 gradients underflow below 6e-8: multiply the loss by a scale, divide the gradients by it,
    halve it when a gradient overflows and skip that update.
Shapes and dtypes: under "mixed_float16" and "mixed_bfloat16" layers compute in 16 bits and keep float32
    variables.
The paper's value: FP16 at batch 1024, with loss scaling.
Interactions: keep the logits and the loss in float32: give the last layer dtype="float32"; the losses here
    cast for themselves. `compile` wraps the optimizer in a LossScaleOptimizer for "mixed_float16"; bfloat16
    has float32's range and needs none. The policy counts where a layer is built, so build the model inside
    the context.
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
    """Sets Keras' global dtype policy within a `with` block and puts the old one back, after an error too.

    Args:
        policy: "float32", "mixed_float16" or "mixed_bfloat16".

    Raises:
        ValueError: for another name.
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
    """The policy of the model's first layer with a kernel. A loaded model itself doesn't know its own."""
    for layer in model.layers:
        if any(is_kernel(variable) for variable in layer.weights):
            return policy_of(layer) if isinstance(layer, keras.Model) else layer.dtype_policy
    return model.dtype_policy


def output_layers(model: keras.Model) -> list:
    """The layers or operations that make the model's outputs; those inside, where a nested model is last."""
    last = [tensor._keras_history.operation for tensor in model.outputs]
    return [layer for op in last for layer in (output_layers(op) if isinstance(op, keras.Model) else [op])]


def _alone(tensors):
    return tensors[0] if isinstance(tensors, list | tuple) and len(tensors) == 1 else tensors


def recast(model: keras.Model, policy: str | keras.DTypePolicy) -> keras.Model:
    """An uncompiled copy of `model` with its weights that computes in `policy`, its output layers in float32.

    Args:
        model: functional or built Sequential. It isn't touched.
        policy: name of a dtype policy, or the policy.
    """

    heads = output_layers(model)

    def rebuild(layer):
        config = layer.get_config()
        if "dtype" in config:
            config["dtype"] = "float32" if layer in heads else policy
        return layer.__class__.from_config(config)

    copy = keras.models.clone_model(model, clone_function=rebuild, recursive=True)
    # The clone of a compiled model is compiled; a new model around its layers isn't.
    is_chain = isinstance(copy, keras.Sequential)
    ends = (copy.inputs, copy.outputs) if is_chain else (copy.input, copy.output)
    copy = keras.Model(*map(_alone, ends), name=model.name)
    # Through a file and not get_weights: loading also restores what layers derive from their weights.
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "model.weights.h5")
        model.save_weights(path)
        copy.load_weights(path)
    return copy
