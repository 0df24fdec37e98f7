"""TensorFlow versions of the `keras.ops` that the tricks use in tf.data, where Keras' backend may be JAX."""

import tensorflow as tf

cast = tf.cast
cos = tf.cos
expm1 = tf.math.expm1
log = tf.math.log
sqrt = tf.sqrt


def flip(x: tf.Tensor, axis: int) -> tf.Tensor:
    """Reverses `x` along an axis."""
    return tf.reverse(x, [axis])
