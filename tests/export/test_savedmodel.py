"""A SavedModel serves with TensorFlow alone, takes both dtypes and any size, and equals pipeline and network."""

import json
import shutil

import numpy as np
import pytest
from processes import run_python

from keras_bot import data, models
from keras_bot.errors import MisuseError, RunError
from keras_bot.export.inspect import inspect
from keras_bot.export.savedmodel import export_savedmodel, load_savedmodel


@pytest.fixture(scope="module")
def model():
    network = models.create_model("cifar_resnet8_d", num_classes=5, width=0.5)
    rng = np.random.default_rng(0)
    network.set_weights([weight * rng.uniform(0.5, 1.1, weight.shape) for weight in network.get_weights()])
    return network


@pytest.fixture(scope="module")
def exported(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("export") / "net"
    return export_savedmodel(model, path, image_size=32, eval_crop=0.5, description={"class_names": list("abcde")})


def images_of(height, width, dtype="uint8"):
    return np.random.default_rng(1).integers(0, 256, (3, height, width, 3)).astype(dtype)


@pytest.mark.parametrize("size", [(32, 32), (48, 64), (101, 37)])
def test_serve_equals_preprocessing_and_network(model, exported, size):
    loaded, description = load_savedmodel(exported)
    images = images_of(*size)
    logits = model(data.preprocess_eval(images, 32, "imagenet", 0.5), training=False).numpy()
    expected = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    np.testing.assert_allclose(loaded.serve(images).numpy(), expected, atol=1e-5)
    np.testing.assert_allclose(loaded.serve(images.astype("float32")).numpy(), expected, atol=1e-5)
    assert description["class_names"] == list("abcde")


def test_features_train_moves_the_batch_norm_statistics_and_features_does_not(exported):
    loaded, _ = load_savedmodel(exported)
    images = images_of(32, 32, "float32")
    before = [variable.numpy() for variable in loaded.non_trainable_variables]
    loaded.features(images)
    for variable, old in zip(loaded.non_trainable_variables, before, strict=True):
        np.testing.assert_array_equal(variable, old)
    loaded.features_train(images)
    assert before and all(
        (v.numpy() != old).any() for v, old in zip(loaded.non_trainable_variables, before, strict=True)
    )


@pytest.mark.thorough
def test_tensorflow_alone_serves_it(exported, tmp_path):
    images = images_of(40, 30)
    np.save(tmp_path / "images.npy", images)
    code = f"""
import sys
sys.modules["keras_bot"] = sys.modules["keras"] = None  # importing either would fail
import numpy as np, tensorflow as tf
loaded = tf.saved_model.load({str(exported)!r})
images = np.load({str(tmp_path / "images.npy")!r})
served = loaded.serve(images)
default = loaded.signatures["serving_default"](tf.constant(images, tf.float32))
np.testing.assert_allclose(served, list(default.values())[0], atol=1e-5)
np.save({str(tmp_path / "served.npy")!r}, served)
"""
    run_python(code)
    served = np.load(tmp_path / "served.npy")
    np.testing.assert_allclose(served.sum(-1), 1, rtol=1e-5)
    loaded, _ = load_savedmodel(exported)
    np.testing.assert_allclose(served, loaded.serve(images), atol=1e-5)


def test_the_description_is_next_to_the_graph(exported):
    assert json.loads((exported / "assets.extra/model.json").read_text())["class_names"] == list("abcde")


def test_it_replaces_a_savedmodel_only_when_asked_and_nothing_else(model, exported, tmp_path):
    with pytest.raises(MisuseError, match="already exists"):
        export_savedmodel(model, exported, image_size=32)
    (tmp_path / "notes").mkdir()
    with pytest.raises(MisuseError, match="is not a SavedModel"):
        export_savedmodel(model, tmp_path / "notes", image_size=32, overwrite=True)


def test_a_failed_export_leaves_what_was_there(exported, tmp_path, model, monkeypatch):
    import tensorflow as tf

    def fail(*args, **kwargs):
        raise OSError("disk full")

    before = sorted(exported.parent.iterdir())
    monkeypatch.setattr(tf.saved_model, "save", fail)
    with pytest.raises(OSError, match="disk full"):
        export_savedmodel(model, exported, image_size=32, overwrite=True)
    assert sorted(exported.parent.iterdir()) == before
    loaded, _ = load_savedmodel(exported)
    assert loaded.serve(images_of(32, 32)).shape == (3, 5)


def test_a_directory_that_is_no_savedmodel_is_refused(tmp_path):
    with pytest.raises(MisuseError, match=r"is not a SavedModel, as `keras-bot export`"):
        load_savedmodel(tmp_path)


@pytest.mark.parametrize("name", ["cut.keras", "empty.onnx", "empty.tflite"])
def test_a_damaged_file_is_not_inspected(name, tmp_path):
    (tmp_path / name).write_bytes(b"PK" if name.startswith("cut") else b"")
    with pytest.raises((MisuseError, RunError), match=name):
        inspect(tmp_path / name)


def test_damaged_variables_and_another_makers_savedmodel_are_reported(exported, tmp_path):
    damaged = shutil.copytree(exported, tmp_path / "damaged")
    (data_file,) = damaged.glob("variables/variables.data*")
    data_file.write_bytes(data_file.read_bytes()[:1000])
    with pytest.raises(RunError, match="Cannot load the SavedModel"):
        load_savedmodel(damaged)
    foreign = shutil.copytree(exported, tmp_path / "foreign")
    shutil.rmtree(foreign / "assets.extra")
    with pytest.raises(MisuseError, match=r"contains no assets\.extra/model\.json"):
        load_savedmodel(foreign)
