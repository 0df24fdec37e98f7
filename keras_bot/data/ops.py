"""What the tricks need of `keras.ops`, by TensorFlow: in tf.data Keras' own would run on its backend, maybe JAX."""

import tensorflow as tf

cast = tf.cast
cos = tf.cos
expm1 = tf.math.expm1
log = tf.math.log
sqrt = tf.sqrt


def flip(x: tf.Tensor, axis: int) -> tf.Tensor:
    """`x` reversed along an axis."""
    return tf.reverse(x, [axis])
