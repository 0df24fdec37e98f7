"""`keras_bot.export_model`: one verb for SavedModels and files, chosen by suffix or format."""

import importlib.util
import pathlib

import keras
import numpy as np
import pytest
import tensorflow as tf
from tiny_training import tiny_network

import keras_bot
from keras_bot.errors import MisuseError
from keras_bot.export.formats import FORMATS


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    return tiny_network(3)


@pytest.mark.parametrize("name", ["net", "v1.0"])
def test_a_path_without_a_known_suffix_is_a_savedmodel(name, model, tmp_path):
    format = "savedmodel" if name == "v1.0" else None
    worst = keras_bot.export_model(model, tmp_path / name, image_size=32, transform="cifar", format=format)
    assert 0 <= worst <= 1e-5
    loaded = tf.saved_model.load(str(tmp_path / name))
    assert loaded.serve(np.zeros((2, 32, 32, 3), "uint8")).shape == (2, 3)


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_suffix_selects_the_format(suffix, model, tmp_path):
    if any(importlib.util.find_spec(package) is None for package in FORMATS[suffix].packages):
        pytest.skip(f"packages for {suffix} are not installed")
    path = tmp_path / f"net{suffix}"
    assert 0 <= keras_bot.export_model(model, str(path), image_size=32, transform="cifar") <= 1e-5
    with pytest.raises(MisuseError, match="already exists"):
        keras_bot.export_model(model, path, image_size=32)
    keras_bot.export_model(model, path, image_size=32, format=FORMATS[suffix].name, overwrite=True)


@pytest.mark.parametrize(
    ("name", "format", "message"),
    [
        ("net.h5", None, r"suffix \.h5 of .* is unknown. Use \.keras, \.onnx, \.tflite, or format=.savedmodel"),
        ("net.safetensors", None, "save_timm"),
        ("net.onnx", "keras", r"path of format=.keras. must end in \.keras"),
        ("net.keras", "kears", "Unknown format 'kears'. Did you mean keras"),
    ],
)
def test_mistakes_are_reported_before_any_work(name, format, message, model, tmp_path):
    with pytest.raises(MisuseError, match=message):
        keras_bot.export_model(model, tmp_path / name, image_size=32, format=format)
    assert not list(pathlib.Path(tmp_path).iterdir())
