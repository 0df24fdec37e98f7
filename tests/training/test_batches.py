"""Pipeline settings and the batch transform follow the recipe."""

import types

import numpy as np
import pytest
import tensorflow as tf

from keras_bot.data.config import TrainConfig
from keras_bot.recipe import Recipe
from keras_bot.training.batches import build_batch_transform, image_dtype, sharing, stream_options

SEED = tf.constant([5, 7], tf.int32)
LABELS = np.eye(4, dtype="float32")
IMAGES = np.array([0, 1, 2, 4], "float32").reshape(4, 1, 1, 1) * np.ones((4, 2, 2, 3), "float32")


def transformed(epoch=0, seed=SEED, images=IMAGES, **fields):
    images, labels = build_batch_transform(Recipe(**fields))(images, LABELS, seed, epoch)
    return np.asarray(images), np.asarray(labels)


def smoothed(epsilon):
    return LABELS * (1 - epsilon) + (1 - LABELS) * epsilon / 3


def mixing_weight(alpha, seed=SEED):
    """Returns lambda ~ Beta(alpha, alpha) by Bailey's method, in NumPy, for the batch's seed."""
    angle, uniform = np.asarray(tf.random.stateless_uniform([2], seed, alg="philox"), "float64")
    cosine = np.cos(2 * np.pi * angle)
    return 0.5 * (1 + cosine / np.sqrt(cosine**2 + 1 / (uniform ** (-1 / alpha) - 1)))


@pytest.mark.parametrize("seed", range(4))
def test_a_recipe_without_refinements_changes_nothing(seed):
    images, labels = transformed(seed=tf.constant([5, seed], tf.int32))
    np.testing.assert_array_equal(images, IMAGES)
    np.testing.assert_array_equal(labels, LABELS)


@pytest.mark.parametrize("epsilon", [0.1, 0.3])
def test_labels_are_smoothed_by_the_recipes_epsilon(epsilon):
    images, labels = transformed(label_smoothing=epsilon)
    np.testing.assert_array_equal(images, IMAGES)
    np.testing.assert_allclose(labels, smoothed(epsilon), rtol=1e-6)


@pytest.mark.parametrize("alpha", [0.2, 1.0, 3.0])
@pytest.mark.parametrize("epsilon", [0.0, 0.1])
def test_images_and_smoothed_labels_are_mixed_with_the_reversed_batch(alpha, epsilon):
    weight = mixing_weight(alpha)
    images, labels = transformed(mixup_alpha=alpha, label_smoothing=epsilon)
    np.testing.assert_allclose(images, weight * IMAGES + (1 - weight) * IMAGES[::-1], rtol=1e-4, atol=1e-5)
    clean = smoothed(epsilon)
    np.testing.assert_allclose(labels, weight * clean + (1 - weight) * clean[::-1], rtol=1e-4, atol=1e-5)


def test_each_seed_has_its_own_weight():
    first, again, other = (
        transformed(mixup_alpha=1.0, seed=tf.constant(seed, tf.int32))[1] for seed in ([5, 7], [5, 7], [5, 8])
    )
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 0.01


@pytest.mark.parametrize(
    ("epochs", "off", "epoch", "is_mixed"),
    [(10, 2, 0, True), (10, 2, 7, True), (10, 2, 8, False), (10, 2, 9, False), (10, 0, 9, True), (5, 1, 4, False)],
)
def test_the_last_epochs_train_without_mixup(epochs, off, epoch, is_mixed):
    fields = {"mixup_alpha": 1.0, "mixup_off_epochs": off, "epochs": epochs, "schedule": "cosine"}
    images, labels = transformed(epoch, label_smoothing=0.1, **fields)
    assert np.allclose(images, IMAGES) is not is_mixed
    assert np.allclose(labels, smoothed(0.1)) is not is_mixed


def test_images_keep_the_dtype_of_the_policy():
    images, labels = build_batch_transform(Recipe(mixup_alpha=0.2, label_smoothing=0.1))(
        tf.cast(IMAGES, tf.bfloat16), LABELS, SEED, 0
    )
    assert images.dtype == tf.bfloat16 and labels.dtype == tf.float32


@pytest.mark.parametrize(
    ("precision", "dtype"),
    [("float32", "float32"), ("mixed_float16", "float16"), ("mixed_bfloat16", "bfloat16")],
)
def test_images_have_the_compute_dtype(precision, dtype):
    assert image_dtype(Recipe(precision=precision)) == dtype


BASE = {
    "batch_size": 256,
    "flip": True,
    "color_jitter": 0.4,
    "pca_noise": 0.1,
    "seed": 0,
    "first_epoch": 3,
    "first_step": 5,
    "epochs": 120,
    "corrupt": "the log",
    "shuffle_buffer": 8192,
    "dtype": "float32",
    "ram_budget": 1024,
}


@pytest.mark.parametrize(
    ("fields", "changed"),
    [
        ({}, {}),
        ({"batch_size": 64}, {"batch_size": 64}),
        ({"flip": False}, {"flip": False}),
        ({"color_jitter": 0.2}, {"color_jitter": 0.2}),
        ({"pca_noise": 0.3}, {"pca_noise": 0.3}),
        ({"seed": 9}, {"seed": 9}),
        ({"epochs": 130}, {"epochs": 130}),
        ({"shuffle_buffer": 77}, {"shuffle_buffer": 77}),
        ({"precision": "mixed_float16"}, {"dtype": "float16"}),
        ({"ram_budget": 99}, {"ram_budget": 99}),
    ],
    ids=str,
)
def test_each_field_of_the_recipe_reaches_the_pipeline(fields, changed):
    options = stream_options(Recipe(**fields), "the log", first_epoch=3, first_step=5)
    assert options == {**BASE, **changed}


def test_a_strategy_adds_this_workers_place():
    strategy = types.SimpleNamespace(worker=1, workers=4, replicas=8)
    assert sharing(strategy) == {"worker": 1, "workers": 4}
    assert sharing(None) == {}
    assert stream_options(Recipe(), "the log", 3, 5, strategy) == {**BASE, "worker": 1, "workers": 4}


def test_the_options_are_fields_of_the_pipeline():
    config = TrainConfig(image_size=8, **stream_options(Recipe(), None, 3, 5))
    assert (config.first_epoch, config.first_step, config.epochs) == (3, 5, 120)
