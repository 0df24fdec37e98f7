"""The `keras.ops` that mixup uses, in TensorFlow: a `batch_transform` runs in tf.data, where Keras may run on JAX.

The tricks accept this module as their `ops` argument.
"""

import tensorflow as tf

cast = tf.cast
cos = tf.cos
expm1 = tf.math.expm1
log = tf.math.log
sqrt = tf.sqrt
where = tf.where


def flip(x: tf.Tensor, axis: int) -> tf.Tensor:
    """Reverses `x` along an axis."""
    return tf.reverse(x, [axis])
