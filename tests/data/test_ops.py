"""The TensorFlow functions that mixup uses in tf.data are those of `keras.ops`."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_bot.data import ops

X = np.array([[0.25, 0.5], [1.0, 2.0]], "float32")


@pytest.mark.parametrize("name", ["cos", "expm1", "log", "sqrt"])
def test_a_function_of_one_argument(name):
    ours, reference = getattr(ops, name)(X), getattr(keras.ops, name)(X)
    assert isinstance(ours, tf.Tensor)
    np.testing.assert_allclose(ours, keras.ops.convert_to_numpy(reference), rtol=1e-6)


def test_flip_cast_and_where():
    np.testing.assert_array_equal(ops.flip(tf.constant(X), axis=0), X[::-1])
    np.testing.assert_array_equal(ops.flip(tf.constant(X), axis=1), X[:, ::-1])
    assert ops.cast(X, "float16").dtype == tf.float16
    np.testing.assert_array_equal(ops.where([True, False], [1.0, 2.0], 0.5), [1.0, 0.5])
