"""Copies of models: recast in another dtype policy, and with batch norm folded into convolutions."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_bot import models
from keras_bot.surgery import fold_batch_norm, recast
from keras_bot.tricks.precision import policy_of

pytestmark = pytest.mark.core

INCEPTION = pytest.param("inception_v3", marks=pytest.mark.thorough)
DRAW = np.random.default_rng(0)


def build_net():
    inputs = keras.Input((6, 6, 3))
    x = layers.Normalization(mean=[1.0, 2.0, 3.0], variance=[4.0, 5.0, 6.0])(inputs)
    left = layers.Conv2D(4, 3, padding="same", name="left")(x)
    right = layers.BatchNormalization(name="right")(layers.DepthwiseConv2D(3, padding="same")(x))
    tail = keras.Sequential([keras.Input((6, 6, 7)), layers.Conv2D(5, 3), layers.ReLU()], name="tail")
    x = tail(layers.Concatenate()([left, right]) * 1.5)
    return keras.Model(inputs, layers.Dense(2, name="logits")(layers.GlobalAveragePooling2D()(x)))


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_recast_computes_the_same_in_another_policy(policy):
    images = np.random.default_rng(0).normal(size=(3, 6, 6, 3)).astype("float32")
    net = build_net()
    net.get_layer("right").moving_mean.assign([1.0, 2.0, 3.0])
    copy = recast(net, policy)
    assert policy_of(net).name == "float32"
    assert policy_of(copy).name == policy
    assert copy.get_layer("tail").layers[0].compute_dtype == policy.removeprefix("mixed_")
    assert copy.get_layer("logits").compute_dtype == "float32"
    for ours, theirs in zip(copy.weights, net.weights, strict=True):
        np.testing.assert_array_equal(*map(ops.convert_to_numpy, (ours, theirs)))
    np.testing.assert_allclose(*map(ops.convert_to_numpy, (copy(images), net(images))), atol=0.02)
    back = recast(copy, "float32")
    np.testing.assert_array_equal(*map(ops.convert_to_numpy, (back(images), net(images))))


def test_an_adapted_normalisation_survives_recasting():
    images = np.random.default_rng(0).normal(3.0, 2.0, size=(50, 4)).astype("float32")
    normalise = layers.Normalization()
    normalise.adapt(images)
    net = keras.Sequential([keras.Input((4,)), normalise, layers.Dense(2)])
    np.testing.assert_array_equal(*map(ops.convert_to_numpy, (recast(net, "float32")(images), net(images))))


def test_the_copy_of_a_compiled_model_is_plain():
    net = build_net()
    net.compile("sgd", "mse")
    net.fit(np.zeros((2, 6, 6, 3)), np.zeros((2, 2)), verbose=0)
    assert not recast(net, "float32").compiled


def trained(model):
    """With batch norms that do something."""
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.set_weights([DRAW.uniform(0.5, 1.5, weight.shape) for weight in layer.get_weights()])
    return model


@pytest.mark.parametrize("name", ["resnet14_a", "resnet10_d", "cifar_resnet8_d", "mobilenet_v1", INCEPTION])
def test_a_folded_network_gives_the_same(name):
    model = trained(models.create_model(name, num_classes=5, width=0.25))
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

    with pytest.raises(ValueError, match="must be a functional model"):
        fold_batch_norm(Own())
