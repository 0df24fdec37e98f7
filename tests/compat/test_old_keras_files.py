"""Compiled .keras files of version 0.1.0 load with their optimizer, schedule, loss and state, and train on.

`training/` was written by that version:

- trained.keras: cifar_resnet8_a after two steps of LossScaling(NAG(decay="kernels", rates=…)) with Warmup(CosineDecay)
  and SmoothedCrossentropy. trained_next.npz: its weights after a third step.
- distiller.keras, distiller.json: a Distiller after two steps, as a file and as `serialize_keras_object` returns it.
  Keras does not compile it when it is loaded, but its student. distiller_logits.npz: images and the student's logits.
"""

import json
import pathlib
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_bot import tricks
from keras_bot.export.savedmodel import load_savedmodel

FOLDER = pathlib.Path(__file__).parent / "training"
DIGITS = pathlib.Path(__file__).parents[2] / "savedmodels" / "digits"


@pytest.fixture(autouse=True)
def no_deprecation_warning():
    """Loading an old file, or saving it again, uses no old name."""
    with warnings.catch_warnings():
        warnings.filterwarnings("error", ".* is now .*; the old name will be removed", DeprecationWarning)
        yield


def assert_close(weights, expected):
    for ours, theirs in zip(weights, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6)


@pytest.mark.parametrize("save_again", [pytest.param(False, marks=pytest.mark.thorough), True])
def test_a_trained_model_takes_the_same_next_step(save_again, tmp_path):
    model = keras.saving.load_model(FOLDER / "trained.keras")
    if save_again:
        model.save(tmp_path / "again.keras")
        model = keras.saving.load_model(tmp_path / "again.keras")
    scaling = model.optimizer
    optimizer = scaling.inner_optimizer
    assert (type(scaling), type(optimizer)) == (tricks.LossScaling, tricks.NAG)
    assert (optimizer.momentum, optimizer.weight_decay, optimizer.global_clipnorm) == (0.9, 1e-3, 5.0)
    assert optimizer.decayed_variables == "kernels" and set(optimizer.lr_multipliers.values()) == {0.5}
    schedule = optimizer._learning_rate.schedule
    assert type(schedule) is tricks.CosineDecay
    assert (schedule.initial_learning_rate, schedule.decay_steps) == (0.1, 20)
    draw = np.random.default_rng(0)
    images, labels = draw.normal(size=(8, 32, 32, 3)).astype("float32"), draw.integers(0, 3, 8)
    model.train_on_batch(images, labels)
    with np.load(FOLDER / "trained_next.npz") as expected:
        assert_close(model.get_weights(), [expected[f"arr_{place}"] for place in range(len(expected.files))])


def load_file():
    return keras.saving.load_model(FOLDER / "distiller.keras")


def load_json():
    return keras.saving.deserialize_keras_object(json.loads((FOLDER / "distiller.json").read_text()))


@pytest.mark.parametrize("load", [load_file, load_json])
def test_a_distiller_is_a_distillation_model(load):
    model = load()
    assert type(model) is tricks.DistillationModel
    assert (model.temperature, model.hard_weight, model.name) == (7.0, 0.5, "pair")
    assert (model.student.name, model.teacher.name) == ("student", "teacher")


def test_a_distiller_has_the_students_weights_and_optimizer():
    model = load_file()
    optimizer = model.student.optimizer
    assert optimizer.decayed_variables == "all" and optimizer.lr_multipliers == {"student_logits/kernel": 0.5}
    assert optimizer._learning_rate.initial_learning_rate == 0.1
    with np.load(FOLDER / "distiller_logits.npz") as expected:
        assert_close([model.predict_on_batch(expected["images"])], [expected["logits"]])


def test_the_savedmodel_in_the_repository_serves_and_fine_tunes():
    loaded, description = load_savedmodel(DIGITS)
    images = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3), np.uint8)
    probabilities = loaded.serve(images).numpy()
    assert probabilities.shape == (4, len(description["class_names"]))
    np.testing.assert_allclose(probabilities.sum(axis=-1), 1, rtol=1e-5)
    with tf.GradientTape() as tape:
        features = loaded.features_train(images.astype("float32"))["C2"]
        loss = tf.reduce_mean(features**2)
    gradients = tape.gradient(loss, loaded.trainable_variables)
    assert sum(gradient is not None for gradient in gradients) == len(gradients) - 2  # all but the dense layer
