"""Fused batch norm computes the same values as Keras' and does not change saved files."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_bot.models import create_model
from keras_bot.training.fused_batch_norm import average_moving_statistics_in_step, fuse_batch_norm


def _train(dtype, *, fuse):
    """Returns outputs, gradients of inputs, gamma and beta, and moving statistics of one batch norm after a step."""
    image = keras.Input((None, None, 5))
    norm = keras.layers.BatchNormalization(momentum=0.7, epsilon=1e-5, dtype=dtype)
    model = keras.Model(image, norm(image))
    rng = np.random.default_rng(0)
    norm.set_weights([rng.uniform(0.5, 2, 5) for _ in range(4)])
    if fuse:
        assert fuse_batch_norm(model) == [norm]
    images = tf.constant(rng.normal(1, 3, (4, 6, 7, 5)), "float32")
    slopes = tf.constant(rng.standard_normal(images.shape), "float32")
    with tf.GradientTape() as tape:
        tape.watch(images)
        outputs = tf.cast(model(images, training=True), "float32")
        loss = tf.reduce_sum(outputs * slopes)
    gradients = tape.gradient(loss, [images, norm.gamma.value, norm.beta.value])
    return [np.asarray(x) for x in (outputs, *gradients, norm.moving_mean, norm.moving_variance, model(images))]


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-4), ("mixed_bfloat16", 0.03), ("mixed_float16", 0.01)])
def test_fused_equals_keras(dtype, tolerance):
    for expected, fused in zip(_train("float32", fuse=False), _train(dtype, fuse=True), strict=True):
        np.testing.assert_allclose(fused, expected, rtol=tolerance, atol=tolerance * np.abs(expected).max())


def test_saved_models_have_keras_layers(tmp_path):
    fused = create_model("cifar_resnet20_d", num_classes=5)
    assert len(fuse_batch_norm(fused)) == 21
    fused.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    for copy in (loaded, keras.models.clone_model(fused)):
        norms = [layer for layer in copy.layers if isinstance(layer, keras.layers.BatchNormalization)]
        assert len(norms) == 21
        assert all(type(norm) is keras.layers.BatchNormalization and "call" not in vars(norm) for norm in norms)


def test_frozen_batch_norm_does_not_change():
    fused = create_model("cifar_resnet20_d", num_classes=5)
    norms = fuse_batch_norm(fused)
    before = [norm.get_weights() for norm in norms]
    for norm in norms:
        norm.trainable = False
    images = np.random.default_rng(0).standard_normal((4, 8, 8, 3), dtype="float32")
    np.testing.assert_allclose(np.asarray(fused(images, training=True)), np.asarray(fused(images)), rtol=1e-5)
    for norm, weights in zip(norms, before, strict=True):
        np.testing.assert_array_equal(norm.get_weights(), weights)


def test_unsupported_batch_norms_are_not_patched():
    image = keras.Input((8, 8, 4))
    x = keras.layers.BatchNormalization(axis=1)(image)
    x = keras.layers.BatchNormalization(scale=False)(x)
    x = keras.layers.BatchNormalization(synchronized=True)(x)
    x = keras.layers.BatchNormalization(renorm=True)(x)
    x = keras.layers.BatchNormalization()(keras.layers.Flatten()(x))
    assert fuse_batch_norm(keras.Model(image, x)) == []


def test_synchronised_batch_norm_on_one_device_equals_keras():
    image = keras.Input((6, 7, 5))
    norm = keras.layers.BatchNormalization()
    model = keras.Model(image, norm(image))
    images = np.random.default_rng(0).normal(1, 3, (4, 6, 7, 5)).astype("float32")
    outputs = []
    for fuse in (False, True):
        norm.moving_mean.assign(np.zeros(5))
        norm.moving_variance.assign(np.ones(5))
        if fuse:
            assert fuse_batch_norm(model, synchronized=True) == [norm]
        outputs.append([np.asarray(x) for x in (model(images, training=True), *norm.variables, model(images))])
    for expected, fused in zip(*outputs, strict=True):
        np.testing.assert_allclose(fused, expected, rtol=1e-4, atol=1e-5)


def test_averaging_on_one_replica_changes_nothing():
    image = keras.Input((8, 8, 3))
    model = keras.Model(image, keras.layers.GlobalAveragePooling2D()(keras.layers.BatchNormalization()(image)))
    model.compile("sgd", "mse")
    images = np.random.default_rng(0).standard_normal((4, 8, 8, 3), dtype="float32")
    start, labels, weights = model.get_weights(), np.ones((4, 3)), []
    for _ in range(2):
        model.set_weights(start)
        model.train_on_batch(images, labels)
        weights.append(model.get_weights())
        average_moving_statistics_in_step(model, model)
        model.make_train_function(force=True)
    for plain, averaged in zip(*weights, strict=True):
        np.testing.assert_array_equal(averaged, plain)


def test_batch_norms_of_nested_models_are_fused():
    image = keras.Input((8, 8, 3))
    inner = keras.Model(image, keras.layers.BatchNormalization(name="norm")(image))
    outer = keras.Model(image, keras.layers.Conv2D(2, 1)(inner(image)))
    assert fuse_batch_norm(outer) == [inner.get_layer("norm")]
