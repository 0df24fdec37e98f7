"""Trained detectors and segmenters are loaded, each for its own task, and exported with their own endpoints."""

import re
import types

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_bot.errors import MisuseError, RunError
from keras_bot.model_files import with_preprocessing
from keras_bot.recipe import Recipe
from keras_bot.tasks import serving
from keras_bot.tasks.segmentation.fcn import ResizeLike
from keras_bot.tasks.serving import export_trained, load_trained


def build(bias=0.0):
    """A segmenter of three classes: a 1x1 convolution, resized to the image."""
    images = keras.Input((None, None, 3))
    initializers = {"kernel_initializer": "ones", "bias_initializer": keras.initializers.Constant([bias, 1.0, 0.0])}
    x = keras.layers.Conv2D(3, 1, **initializers)(images)
    return keras.Model(images, ResizeLike()([x, images]), name="tiny")


@pytest.fixture
def path(tmp_path):
    build().save(tmp_path / "model.keras")
    return tmp_path / "model.keras"


def test_a_segmenter_is_loaded(path):
    for place in (path, str(path)):
        assert load_trained(place, "segmentation").name == "tiny"


def test_a_network_for_another_task_is_refused(path, tmp_path):
    with pytest.raises(MisuseError) as raised:
        load_trained(path, "detection")
    assert str(raised.value) == f"The network 'tiny' in {path} is not for detection."
    inputs = keras.Input((3,))
    keras.Model(inputs, keras.layers.Dense(2)(inputs), name="classifier").save(tmp_path / "other.keras")
    with pytest.raises(MisuseError, match=r"^The network 'classifier' in .* is not for segmentation\.$"):
        load_trained(tmp_path / "other.keras", "segmentation")


def test_an_exported_file_is_loaded_without_its_preprocessing(tmp_path):
    with_preprocessing(build()).save(tmp_path / "model.keras")
    assert load_trained(tmp_path / "model.keras", "segmentation").name == "tiny"


def test_missing_and_damaged_files_are_reported(tmp_path):
    with pytest.raises(MisuseError) as raised:
        load_trained(tmp_path / "model.keras", "detection")
    message = f"No file {tmp_path / 'model.keras'}. Pass a .keras file; a finished run contains one."
    assert str(raised.value) == message
    (tmp_path / "model.keras").write_text("text")
    with pytest.raises(MisuseError, match=rf"^Cannot load {re.escape(str(tmp_path))}/model\.keras as a \.keras file: "):
        load_trained(tmp_path / "model.keras", "detection")


def test_weights_that_are_not_finite_are_refused(tmp_path):
    build(np.nan).save(tmp_path / "model.keras")
    with pytest.raises(RunError, match=r"contains weights that are not finite: .*bias \(1 of 3 values\)"):
        load_trained(tmp_path / "model.keras", "segmentation")


@pytest.fixture
def written(monkeypatch):
    """The arguments of each call of `write_savedmodel`."""
    calls = []
    monkeypatch.setattr(
        serving, "write_savedmodel", lambda *args, **options: calls.append((args, options)) or "the path"
    )
    return calls


@pytest.mark.parametrize("overwrite", [True, False])
def test_a_segmenter_has_two_endpoints(overwrite, written):
    network, recipe = build(), Recipe(task="segmentation", image_size=48)
    result = export_trained(network, "out", recipe, {"class_names": ["a"]}, overwrite=overwrite)
    (((path, model, endpoints, description), options),) = written
    assert (result, path, model) == ("the path", "out", network)
    assert description == {"class_names": ["a"], "task": "segmentation"}
    assert options == {"sizes": serving.sample_sizes(48), "overwrite": overwrite} and list(endpoints) == [
        "serve",
        "logits",
    ]
    pixels = np.random.default_rng(0).integers(0, 256, (1, 2, 3, 3), np.uint8)
    normalised = (pixels - np.array([123.68, 116.779, 103.939])) / [58.393, 57.12, 57.375]
    expected = np.repeat(normalised.sum(-1, keepdims=True), 3, -1) + np.array([0.0, 1.0, 0.0])
    np.testing.assert_allclose(endpoints["logits"](pixels), expected, rtol=1e-4, atol=1e-5)
    classes = endpoints["serve"](pixels)
    assert classes.dtype == tf.int32 and classes.numpy().tolist() == [[[1, 1, 1], [1, 1, 1]]]


def test_a_detector_returns_boxes_in_pixels_of_the_image(written):
    seen = []

    def predict_boxes(images):
        seen.append(images)
        boxes = [[4.0, 8.0, 16.0, 12.0], [0.0, 0.0, 40.0, 40.0], [-1.0, -1.0, -1.0, -1.0]]
        values = {"scores": [0.9, 0.8, 0.0], "classes": [1, 0, -1]}
        return {"boxes": tf.constant([boxes]), **{name: tf.constant([value]) for name, value in values.items()}}

    export_trained(
        types.SimpleNamespace(predict_boxes=predict_boxes), "out", Recipe(task="detection", image_size=32), {}
    )
    (((_, _, endpoints, description), _),) = written
    assert description == {"task": "detection"} and list(endpoints) == ["serve"]
    found = endpoints["serve"](np.zeros((1, 64, 48, 3), np.uint8))  # resized to half
    assert seen[0].shape == (1, 32, 32, 3) and seen[0].dtype == tf.float32
    np.testing.assert_allclose(found["boxes"][0], [[8, 16, 32, 24], [0, 0, 64, 48], [-1, -1, -1, -1]], atol=1e-4)
    assert found["scores"][0].numpy().tolist() == pytest.approx([0.9, 0.8, 0.0])
