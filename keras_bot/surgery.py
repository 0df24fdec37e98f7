"""Surgery on Keras models: copies with the same weights whose layers differ.

`recast` changes the dtype policy. `fold_batch_norm` merges batch norm into the preceding convolution for inference:
fewer layers, and the same results up to rounding.

gamma (W x - mean) / sqrt(variance + epsilon) + beta  =  (s W) x + beta - s mean,   s = gamma / sqrt(variance + epsilon)

These functions accept any Keras model. `models.dilate` is for the networks of keras_bot, whose layer names it needs.
"""

import os
import tempfile

import keras
import numpy as np


def output_layers(model: keras.Model) -> list:
    """Returns the layers or operations that produce the model's outputs, descending into nested models."""
    last = [tensor._keras_history.operation for tensor in model.outputs]
    return [layer for op in last for layer in (output_layers(op) if isinstance(op, keras.Model) else [op])]


def recast(model: keras.Model, policy: str | keras.DTypePolicy) -> keras.Model:
    """Returns an uncompiled copy of `model`, with its weights, that computes in `policy`; output layers use float32.

    Args:
        model: functional or built Sequential model. It is not modified.
        policy: a dtype policy or its name.
    """
    outputs = output_layers(model)

    def rebuild(layer):
        config = layer.get_config()
        if "dtype" in config:
            config["dtype"] = "float32" if layer in outputs else policy
        return layer.__class__.from_config(config)

    copy = keras.models.clone_model(model, clone_function=rebuild, recursive=True)
    # The clone of a compiled model is compiled; a new model with its layers isn't.
    is_sequential = isinstance(copy, keras.Sequential)
    ends = (copy.inputs, copy.outputs) if is_sequential else (copy.input, copy.output)
    copy = keras.Model(*map(_unwrap_single, ends), name=model.name)
    # Uses a file instead of get_weights, because loading also restores state that layers derive from their weights.
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "model.weights.h5")
        model.save_weights(path)
        copy.load_weights(path)
    return copy


def _unwrap_single(tensors):
    return tensors[0] if isinstance(tensors, list | tuple) and len(tensors) == 1 else tensors


def fold_batch_norm(model: keras.Model) -> keras.Model:
    """Copies a functional network with each batch norm folded into the kernel and bias of the preceding convolution.

    Args:
        model: functional model. It is not modified. A batch norm is kept if it follows another layer, or if its
            convolution has an activation, has other consumers, or is an output of the model.

    Raises:
        ValueError: if the model isn't functional.
    """
    if not getattr(model, "operations", None):
        raise ValueError(f"model must be a functional model, received {type(model).__name__} {model.name!r}.")
    outputs = [output._keras_history.operation for output in model.outputs]
    pairs = {layer: _convolution_before(layer) for layer in model.layers}
    pairs = {norm: convolution for norm, convolution in pairs.items() if convolution not in (None, *outputs)}
    folded = set(pairs.values())

    def rebuild(layer):
        config = layer.get_config()
        if layer in folded:
            config["use_bias"] = True
        return type(layer).from_config(config)

    passed = {norm.name for norm in pairs}

    def call(layer, *inputs, **options):
        return inputs[0] if layer.name in passed else layer(*inputs, **options)

    copy = keras.models.clone_model(model, clone_function=rebuild, call_function=call)
    norms = {convolution: norm for norm, convolution in pairs.items()}
    for layer in model.layers:
        if layer.weights and layer not in pairs:
            weights = _folded(layer, norms[layer]) if layer in folded else layer.get_weights()
            copy.get_layer(layer.name).set_weights(weights)
    return copy


def _convolution_before(layer):
    """Returns the convolution whose only consumer is this batch norm, or None."""
    if type(layer) is not keras.layers.BatchNormalization or len(layer._inbound_nodes) != 1:
        return None
    before = layer.input._keras_history.operation
    convolves = type(before) in (keras.layers.Conv2D, keras.layers.DepthwiseConv2D)
    fits = convolves and layer.axis in (-1, 3) and before.data_format == "channels_last"
    if not fits or before.activation is not keras.activations.linear or len(before._outbound_nodes) != 1:
        return None
    return before


def _folded(convolution, norm) -> list[np.ndarray]:
    """Computes the folded kernel and bias in float64 and returns them as float32."""
    arrays = {variable.name: np.float64(keras.ops.convert_to_numpy(variable)) for variable in norm.variables}
    scale = arrays.get("gamma", 1.0) / np.sqrt(arrays["moving_variance"] + norm.epsilon)
    kernel, *bias = (np.float64(keras.ops.convert_to_numpy(variable)) for variable in convolution.variables)
    # A depthwise kernel is (height, width, in, multiplier); its in * multiplier output channels have this order.
    factor = scale.reshape(kernel.shape[2:]) if isinstance(convolution, keras.layers.DepthwiseConv2D) else scale
    shift = (bias[0] if bias else 0.0) - arrays["moving_mean"]
    return [np.asarray(array, "float32") for array in (kernel * factor, arrays.get("beta", 0.0) + scale * shift)]
