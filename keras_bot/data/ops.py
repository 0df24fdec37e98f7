"""What the tricks need of `keras.ops`, by TensorFlow: inside tf.data Keras' own runs on its backend, which may be JAX."""

import tensorflow as tf

cast = tf.cast
cos = tf.cos
expm1 = tf.math.expm1
log = tf.math.log
sqrt = tf.sqrt


def flip(x: tf.Tensor, axis: int) -> tf.Tensor:
    """`x` reversed along an axis."""
    return tf.reverse(x, [axis])
