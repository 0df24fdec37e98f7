"""Batch norm in one TensorFlow kernel. The layers stay Keras' own, so nothing changes in what is saved.

Keras 3's BatchNormalization is a dozen elementwise operations, each a pass over the activations, in float32 under
a mixed policy: a third of a ResNet's training step on a CPU. TensorFlow's FusedBatchNorm is one kernel forward and
one backward, takes half-precision activations as they are and keeps its statistics in float32.
"""

import types

import keras
import tensorflow as tf


def fuse_batch_norm(model: keras.Model) -> list[keras.layers.BatchNormalization]:
    """Makes the batch norms of `model` train through TensorFlow's fused kernel; returns those it changed.

    The result is the same up to rounding: the moving variance too is Keras' (the batch's, without Bessel's
    correction). It holds for these layer objects in this process: `save`, `get_config` and `clone_model` see
    Keras' layers. Call it before the training step is traced. A batch norm that the kernel can't do (another axis
    than the last of four, synchronised, renormalised, without gamma or beta) is left alone, and so is inference.
    """
    norms = [layer for layer in model.layers if _fusible(layer)]
    for norm in norms:
        norm.call = types.MethodType(_call, norm)
    return norms


def _fusible(layer):
    return (
        type(layer) is keras.layers.BatchNormalization
        and len(layer.input.shape) == 4
        and layer.axis in (-1, 3)
        and layer.scale
        and layer.center
        and not (layer.synchronized or layer.renorm)
    )


def _call(self, inputs, training=None, mask=None):
    if not (training and self.trainable) or mask is not None or inputs.dtype == tf.float64:
        return type(self).call(self, inputs, training=training, mask=mask)
    inputs = tf.cast(inputs, self.compute_dtype)
    outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
        x=inputs,
        scale=tf.convert_to_tensor(self.gamma),
        offset=tf.convert_to_tensor(self.beta),
        mean=tf.zeros([0]),
        variance=tf.zeros([0]),
        epsilon=self.epsilon,
        is_training=True,
    )
    count = tf.cast(tf.size(inputs) // inputs.shape[-1], tf.float32)
    variance *= (count - 1.0) / count  # the kernel's is the unbiased one
    self.moving_mean.assign(self.moving_mean * self.momentum + mean * (1.0 - self.momentum))
    self.moving_variance.assign(self.moving_variance * self.momentum + variance * (1.0 - self.momentum))
    return outputs
