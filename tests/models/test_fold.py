"""A folded network gives what the network gave, with no batch norm left after a convolution."""

import keras
import numpy as np
import pytest

from keras_bot import models
from keras_bot.models.fold import fold_batch_norm

pytestmark = pytest.mark.core

INCEPTION = pytest.param("inception_v3", marks=pytest.mark.slow)
DRAW = np.random.default_rng(0)


def trained(model):
    """With batch norms that do something."""
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.set_weights([DRAW.uniform(0.5, 1.5, weight.shape) for weight in layer.get_weights()])
    return model


@pytest.mark.parametrize("name", ["resnet50_a", "resnet18_d", "cifar_resnet20_d", "mobilenet_v1", INCEPTION])
def test_it_gives_the_same(name):
    model = trained(models.create(name, num_classes=5, width=0.25))
    images = DRAW.standard_normal((2, 80, 97, 3), dtype="float32")
    before = model.predict_on_batch(images)
    folded = fold_batch_norm(model)
    np.testing.assert_allclose(folded.predict_on_batch(images), before, rtol=1e-4, atol=1e-4 * np.abs(before).max())
    np.testing.assert_array_equal(model.predict_on_batch(images), before)
    assert not any(isinstance(layer, keras.layers.BatchNormalization) for layer in folded.layers)
    assert folded.count_params() < model.count_params()


def test_a_bias_is_taken_along_and_other_batch_norms_stay():
    image = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 3, name="biased")(image)
    x = keras.layers.BatchNormalization(name="folds", scale=False)(x)
    x = keras.layers.Conv2D(4, 3, activation="relu")(x)
    x = keras.layers.BatchNormalization(name="after_relu")(x)
    shared = keras.layers.Conv2D(4, 3)(x)
    x = keras.layers.Add()([keras.layers.BatchNormalization(name="shares")(shared), shared])
    model = trained(keras.Model(image, x))
    model.get_layer("biased").set_weights([DRAW.standard_normal((3, 3, 3, 4)), DRAW.standard_normal(4)])
    images = DRAW.standard_normal((2, 8, 8, 3), dtype="float32")
    folded = fold_batch_norm(model)
    np.testing.assert_allclose(folded.predict_on_batch(images), model.predict_on_batch(images), rtol=1e-4, atol=1e-4)
    left = {layer.name for layer in folded.layers if isinstance(layer, keras.layers.BatchNormalization)}
    assert left == {"after_relu", "shares"}


def test_a_convolution_that_is_an_output_stays():
    image = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 3)(image)
    model = trained(keras.Model(image, [x, keras.layers.BatchNormalization()(x)]))
    images = DRAW.standard_normal((2, 8, 8, 3), dtype="float32")
    pairs = zip(fold_batch_norm(model).predict_on_batch(images), model.predict_on_batch(images), strict=True)
    for ours, theirs in pairs:
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


def test_a_depthwise_convolution_of_several_multiples_folds():
    image = keras.Input((8, 8, 3))
    x = keras.layers.DepthwiseConv2D(3, depth_multiplier=2, name="biased")(image)
    model = trained(keras.Model(image, keras.layers.BatchNormalization()(x)))
    model.get_layer("biased").set_weights([DRAW.standard_normal((3, 3, 3, 2)), DRAW.standard_normal(6)])
    images = DRAW.standard_normal((2, 8, 8, 3), dtype="float32")
    folded = fold_batch_norm(model)
    assert len(folded.layers) == 2
    np.testing.assert_allclose(folded.predict_on_batch(images), model.predict_on_batch(images), rtol=1e-4, atol=1e-4)


def test_a_model_that_is_not_functional_is_refused():
    class Own(keras.Model):
        pass

    with pytest.raises(ValueError, match="Expected a functional model"):
        fold_batch_norm(Own())
