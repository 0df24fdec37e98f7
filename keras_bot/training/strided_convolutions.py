"""Workaround for a TensorFlow crash on CPUs in strided 1x1 convolutions with few channels.

With oneDNN, TensorFlow 2.21 writes out of bounds when it computes the kernel gradient of a 1x1 convolution with
a stride above 1, fewer than 16 input channels and an odd batch size. Projections in narrow networks are such layers.
Subsampling the pixels first, then convolving with stride 1, gives the same values with other operations.
"""

import types

import keras
import tensorflow as tf

SAFE_CHANNELS = 16  # no crash was seen with this many input channels or more


def subsample_before_convolving(model: keras.Model) -> list[keras.layers.Conv2D]:
    """Patches the narrow strided 1x1 convolutions of `model` to subsample first; returns them.

    Like `fuse_batch_norm`, it affects only these layer objects in this process. Call it before the training step is
    traced.
    """
    layers = [layer for layer in model._flatten_layers() if _is_narrow(layer)]
    for layer in layers:
        layer.call = types.MethodType(_call, layer)
    return layers


def _is_narrow(layer):
    return (
        type(layer) is keras.layers.Conv2D
        and layer.built
        and layer.kernel_size == (1, 1)
        and max(layer.strides) > 1
        and layer.groups == 1
        and layer.data_format == "channels_last"
        and layer.kernel.shape[2] < SAFE_CHANNELS
    )


def _call(self, inputs):
    height, width = self.strides
    outputs = tf.nn.conv2d(inputs[:, ::height, ::width], tf.convert_to_tensor(self.kernel), 1, "VALID")
    if self.use_bias:
        outputs += tf.convert_to_tensor(self.bias)
    return self.activation(outputs) if self.activation else outputs
