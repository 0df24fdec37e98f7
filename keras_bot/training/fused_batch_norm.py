"""Batch norm in one TensorFlow kernel. The layers remain Keras layers, so saved files do not change.

Keras 3's BatchNormalization is a dozen elementwise operations, each a pass over the activations, in float32 under a
mixed policy. They take a third of a ResNet's training step on a CPU. TensorFlow's FusedBatchNorm is one kernel forward
and one backward, takes half-precision activations without a cast and keeps its statistics in float32.

On several replicas each one normalises with the statistics of its own batch, and the moving statistics are averaged
after every step. Synchronised batch norm normalises with the statistics of all replicas' batches.
"""

import types

import keras
import tensorflow as tf


def fuse_batch_norm(model: keras.Model, synchronized: bool = False) -> list[keras.layers.BatchNormalization]:
    """Patches the batch norms of `model` to train with TensorFlow's fused kernel; returns the patched layers.

    The result is the same up to rounding. The moving variance, as in Keras, is updated with the batch variance without
    Bessel's correction. Only these layer objects in this process change: `save`, `get_config` and `clone_model` see
    plain Keras layers. Call this before the training step is traced. Inference does not change, nor do layers that the
    kernel does not support: an axis other than the last of four, Keras' `synchronized` or `renorm`, no gamma or beta.

    Args:
        model: model with batch norms, including those in nested models and layers.
        synchronized: compute the statistics over the batches of all replicas, as if they were one batch.
    """
    norms = [layer for layer in model._flatten_layers() if _is_fusible(layer)]
    for norm in norms:
        norm.call = types.MethodType(_call_synchronized if synchronized else _call, norm)
    return norms


def average_moving_statistics_in_step(trainee: keras.Model, model: keras.Model) -> None:
    """Patches `train_step` to average the moving statistics of `model` over replicas after each training step.

    One copy of the variables is then the whole state. All statistics share one all-reduce per step. There is none on
    one replica, and synchronised batch norms are skipped. Only this process's `train_step` changes.

    Args:
        trainee: compiled model that is fitted: `model` or a wrapper around it.
        model: model with batch norms, including those in nested models and layers.
    """
    step = trainee.train_step

    def step_and_average(batch):
        logs = step(batch)
        _average([variable for norm in _local_norms(model) for variable in _statistics(norm)])
        return logs

    trainee.train_step = step_and_average


def _is_fusible(layer):
    return (
        type(layer) is keras.layers.BatchNormalization
        and layer.built
        and layer.input_spec.ndim == 4
        and layer.axis in (-1, 3)
        and layer.scale
        and layer.center
        and not (layer.synchronized or layer.renorm)
    )


def _call(self, inputs, training=None, mask=None):
    if _uses_keras_call(self, inputs, training, mask):
        return type(self).call(self, inputs, training=training, mask=mask)
    inputs = tf.cast(inputs, self.compute_dtype)
    scale, offset = tf.convert_to_tensor(self.gamma), tf.convert_to_tensor(self.beta)
    outputs, mean, variance = _fused(inputs, scale, offset, self.epsilon)
    _update_moving_statistics(self, mean, variance)
    return outputs


def _call_synchronized(self, inputs, training=None, mask=None):
    replica = tf.distribute.get_replica_context()
    if replica is None or replica.num_replicas_in_sync == 1 or _uses_keras_call(self, inputs, training, mask):
        return _call(self, inputs, training, mask)
    inputs = tf.cast(inputs, self.compute_dtype)
    # Subtracting the moving mean, which is the same on all replicas and near the mean, avoids cancellation.
    shift = tf.stop_gradient(tf.convert_to_tensor(self.moving_mean))

    @tf.custom_gradient
    def normalise(x, scale, offset):
        count, mean, variance = _global_statistics(replica, x, shift)
        y = tf.raw_ops.FusedBatchNormV3(
            x=x, scale=scale, offset=offset, mean=mean, variance=variance, epsilon=self.epsilon, is_training=False
        ).y

        def gradients(upstream, *_):
            return _global_gradients(replica, upstream, x, scale, count, mean, variance, self.epsilon)

        return (y, mean, variance), gradients

    outputs, mean, variance = normalise(inputs, tf.convert_to_tensor(self.gamma), tf.convert_to_tensor(self.beta))
    _update_moving_statistics(self, mean, variance)
    return outputs


def _uses_keras_call(self, inputs, training, mask):
    """Returns whether Keras' own `call` must be used: in inference, when frozen, with a mask, or in float64."""
    return not (training and self.trainable) or mask is not None or inputs.dtype == tf.float64


def _count(x):
    return tf.cast(tf.size(x) // x.shape[-1], tf.float32)


def _fused(x, scale, offset, epsilon):
    """Returns outputs, mean and biased variance."""
    y, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
        x=x, scale=scale, offset=offset, mean=tf.zeros([0]), variance=tf.zeros([0]), epsilon=epsilon, is_training=True
    )
    count = _count(x)
    return y, mean, variance * ((count - 1.0) / count)  # the kernel returns the unbiased variance


def _update_moving_statistics(self, mean, variance):
    self.moving_mean.assign(self.moving_mean * self.momentum + mean * (1.0 - self.momentum))
    self.moving_variance.assign(self.moving_variance * self.momentum + variance * (1.0 - self.momentum))


def _global_statistics(replica, x, shift):
    """Returns count, mean and variance over all replicas' batches, from the kernel's local ones and one all-reduce."""
    channels = x.shape[-1]
    _, mean, variance = _fused(x, tf.ones([channels]), tf.zeros([channels]), 1e-3)
    count, distance = _count(x), mean - shift
    local = tf.concat([[count], count * distance, count * (variance + distance**2)], 0)
    total = replica.all_reduce(tf.distribute.ReduceOp.SUM, local)
    count, distance, square = total[0], total[1 : 1 + channels] / total[0], total[1 + channels :] / total[0]
    return count, shift + distance, tf.maximum(square - distance**2, 0.0)


def _global_gradients(replica, upstream, x, scale, count, mean, variance, epsilon):
    """Returns the gradients with respect to x, scale and offset.

    The one for x is of the loss summed over replicas. Those for scale and offset are of this replica's loss, as
    optimizers expect.
    """
    _, dscale, doffset, *_ = tf.raw_ops.FusedBatchNormGradV3(  # for its sums over this replica's batch
        y_backprop=upstream,
        x=x,
        scale=scale,
        reserve_space_1=mean,
        reserve_space_2=variance,
        reserve_space_3=tf.zeros([0]),
        epsilon=epsilon,
        is_training=False,
    )
    # Mean and variance depend on every x of every replica.
    total = replica.all_reduce(tf.distribute.ReduceOp.SUM, tf.concat([dscale, doffset], 0)) / count
    mean_dscale, mean_doffset = tf.split(total, 2)
    inverse = tf.math.rsqrt(variance + epsilon)
    x_term = (tf.cast(x, tf.float32) - mean) * (inverse * mean_dscale)
    return tf.cast(scale * inverse * (tf.cast(upstream, tf.float32) - mean_doffset - x_term), x.dtype), dscale, doffset


def _local_norms(model):
    norms = (layer for layer in model._flatten_layers() if isinstance(layer, keras.layers.BatchNormalization))
    return [norm for norm in norms if not _is_synchronized(norm)]


def _is_synchronized(norm):
    return norm.synchronized or getattr(norm.call, "__func__", None) is _call_synchronized


def _statistics(norm):
    return [variable for variable in norm.variables if variable is not norm.gamma and variable is not norm.beta]


def _average(variables):
    replica = tf.distribute.get_replica_context()
    if replica.num_replicas_in_sync == 1 or not variables:
        return
    packed = tf.concat([tf.reshape(tf.cast(variable.value, tf.float32), [-1]) for variable in variables], 0)
    packed = replica.all_reduce(tf.distribute.ReduceOp.MEAN, packed)
    means = tf.split(packed, [variable.shape.num_elements() for variable in variables])
    for variable, mean in zip(variables, means, strict=True):
        variable.assign(tf.reshape(mean, variable.shape))
