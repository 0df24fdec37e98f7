"""Patched strided 1x1 convolutions compute the same values and train with odd batches, where TensorFlow crashes."""

import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_bot.models import create_model
from keras_bot.training.strided_convolutions import subsample_before_convolving


def _results(patched, dtype, **options):
    """Returns outputs and gradients of a convolution from 3 to 5 channels, on an odd size."""
    keras.utils.set_random_seed(0)
    image = keras.Input((None, None, 3))
    layer = keras.layers.Conv2D(5, 1, **options, dtype=dtype)
    model = keras.Model(image, layer(image))
    if patched:
        assert subsample_before_convolving(model) == [layer]
    images = tf.random.stateless_normal((2, 7, 10, 3), [1, 2])
    with tf.GradientTape() as tape:
        tape.watch(images)
        loss = tf.reduce_sum(tf.cast(model(images), "float32") ** 2)
    return [np.asarray(array) for array in (model(images), *tape.gradient(loss, [images, layer.kernel.value]))]


@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
@pytest.mark.parametrize(
    "options",
    [
        {"strides": 2, "use_bias": False},
        {"strides": 2, "padding": "same", "activation": "relu"},
        {"strides": (3, 2), "padding": "same"},
    ],
)
def test_outputs_and_gradients_do_not_change(options, dtype):
    tolerance = 1e-5 if dtype == "float32" else 0.02
    for patched, original in zip(_results(True, dtype, **options), _results(False, dtype, **options), strict=True):
        np.testing.assert_allclose(patched, original, rtol=tolerance, atol=tolerance * np.abs(original).max())


def test_only_narrow_projections_are_patched():
    assert len(subsample_before_convolving(create_model("cifar_resnet8_a", num_classes=3, width=0.25))) == 2
    assert subsample_before_convolving(create_model("cifar_resnet8_a", num_classes=3)) == []
    assert subsample_before_convolving(create_model("cifar_resnet8_d", num_classes=3, width=0.25)) == []


TRAIN = """
from keras_bot import Recipe, train
sizes = dict(dataset="synthetic", synthetic_images=60, num_classes=3, image_size=16, transform="plain", batch_size=3)
train(Recipe(model="cifar_resnet8_a", width=0.25, epochs=2, decay_epochs=(), **sizes), "run")
"""


@pytest.mark.thorough
def test_a_narrow_network_trains_with_odd_batches(tmp_path):
    """Without the patch, every run ended with "free(): invalid pointer"."""
    done = subprocess.run([sys.executable, "-c", TRAIN], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
