"""An export counts only once it is read back: what can't be loaded from its place, or differs, isn't left there."""

import json
import os
import pathlib
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf
from builders import write_image
from tiny_training import tiny_network

from keras_bot import models
from keras_bot.errors import MisuseError, RunError
from keras_bot.export.prediction import read_image
from keras_bot.export.savedmodel import export_savedmodel, load_savedmodel
from keras_bot.model_files import SAVEDMODEL_DESCRIPTION, read_network
from keras_bot.recipe import Recipe
from keras_bot.tasks.backbone import load_backbone
from keras_bot.tasks.detection.retinanet import RetinaNet
from keras_bot.tasks.segmentation.fcn import fcn
from keras_bot.tasks.serving import export_trained

LOADABLE = "a*b a?b {a,b} a]b $x %20#;& é猫"
UNLOADABLE = ("run[1]", "[a-z]", "[!a]", "[", "a[b/c]d", "a\\b", "x[1]/run")


@pytest.fixture(scope="module")
def model():
    return tiny_network(3)


def classifier(model, path, **options):
    return export_savedmodel(model, path, image_size=16, description={"class_names": list("abc")}, **options)


@pytest.fixture(scope="module")
def exported(model, tmp_path_factory):
    """The SavedModel of `model`. Do not change it."""
    return classifier(model, tmp_path_factory.mktemp("exported") / "net")


@pytest.fixture(scope="module")
def detector():
    network = RetinaNet(load_backbone("resnet10_d", width=0.1), 2, channels=8)
    network(np.zeros((1, 64, 64, 3), "float32"))
    return network


@pytest.fixture(scope="module")
def segmenter():
    network = fcn(load_backbone("resnet10_d", width=0.1, output_stride=8), 3, channels=8)
    return keras.Model(network.input, network.output["logits"])


@pytest.mark.parametrize("name", UNLOADABLE)
def test_a_place_that_tensorflow_cannot_load_from_is_refused_before_any_work(name, model, tmp_path, monkeypatch):
    monkeypatch.setattr(tf.saved_model, "save", lambda *_: pytest.fail("the work began"))
    with pytest.raises(MisuseError, match="TensorFlow could not load it"):
        classifier(model, tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_a_relative_path_counts_with_the_current_directory(model, tmp_path, monkeypatch):
    (tmp_path / "x[1]").mkdir()
    monkeypatch.chdir(tmp_path / "x[1]")
    with pytest.raises(MisuseError, match="TensorFlow could not load it"):
        classifier(model, "net")


@pytest.mark.thorough
def test_other_characters_are_no_hindrance(model, tmp_path):
    path = classifier(model, tmp_path / LOADABLE / LOADABLE)
    assert tf.saved_model.load(path).serve(np.zeros((1, 9, 9, 3), "uint8")).shape == (1, 3)


def test_a_path_that_is_no_utf8_is_refused(model, tmp_path):
    with pytest.raises(MisuseError, match="not valid UTF-8"):
        classifier(model, tmp_path / os.fsdecode(b"net\xff"))
    assert not list(tmp_path.iterdir())


@pytest.mark.thorough
@pytest.mark.parametrize("folder", ["x[1]", "a\\b", os.fsdecode(b"raw\xff")])
def test_a_savedmodel_that_was_moved_is_loaded_from_anywhere(folder, model, exported, tmp_path):
    moved = shutil.copytree(exported, tmp_path / folder / "net")
    images = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3)).astype("uint8")
    here, there = load_savedmodel(exported)[0], load_savedmodel(moved)[0]
    np.testing.assert_array_equal(there.serve(images), here.serve(images))
    for ours, theirs in zip(read_network(moved)[0].get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_an_image_of_any_name_is_read(tmp_path):
    path = tmp_path / os.fsdecode(b"i[1]*?\xff.png")
    write_image(path, np.zeros((3, 4, 3), "uint8"))
    assert read_image(path).shape == (3, 4, 3)


def corrupting(save):
    """As the real one, but what it writes has another first variable."""

    def corrupt(exported, path, signatures):
        variable = exported.variables[0]
        right = variable.numpy()
        variable.assign(right + 1)
        save(exported, path, signatures)
        variable.assign(right)

    return corrupt


def files_below(folder):
    return {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.mark.thorough
def test_an_export_that_differs_is_not_kept_and_what_was_there_stays(model, exported, tmp_path, monkeypatch):
    path = shutil.copytree(exported, tmp_path / "net")
    assert 0 <= json.loads((path / SAVEDMODEL_DESCRIPTION).read_text())["worst_difference"] <= 1e-5
    before = files_below(tmp_path)
    monkeypatch.setattr(tf.saved_model, "save", corrupting(tf.saved_model.save))
    for place, options in ((path, {"overwrite": True}), (tmp_path / "new", {})):
        with pytest.raises(RunError, match="its weights differ from the network's"):
            classifier(model, place, **options)
        assert files_below(tmp_path) == before
        assert list(tmp_path.iterdir()) == [path]


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("kind", "fields"), [("detector", {"task": "detection"}), ("segmenter", {"task": "segmentation"})]
)
def test_an_export_of_another_task_that_differs_is_not_kept(kind, fields, exported, tmp_path, monkeypatch, request):
    path = shutil.copytree(exported, tmp_path / "net")
    before = files_below(tmp_path)
    monkeypatch.setattr(tf.saved_model, "save", corrupting(tf.saved_model.save))
    recipe = Recipe(dataset="x", model="resnet10_d", image_size=64, **fields)
    with pytest.raises(RunError, match="its weights differ from the network's"):
        export_trained(request.getfixturevalue(kind), path, recipe, {"class_names": list("abc")}, overwrite=True)
    assert files_below(tmp_path) == before and list(tmp_path.iterdir()) == [path]


def test_a_graph_that_differs_is_not_kept(model, tmp_path, monkeypatch):
    load = tf.saved_model.load

    def other(path):
        loaded = load(path)
        serve = loaded.serve
        loaded.serve = lambda images: serve(images) * 1.001
        return loaded

    monkeypatch.setattr(tf.saved_model, "load", other)
    with pytest.raises(RunError, match=r"differ from the network's by 0\.001 of the greatest"):
        classifier(model, tmp_path / "net")
    assert not list(tmp_path.iterdir())


def test_an_export_that_cannot_be_loaded_is_not_kept(model, tmp_path, monkeypatch):
    save = tf.saved_model.save

    def cut(exported, path, signatures):
        save(exported, path, signatures)
        next(path.glob("variables/*.index")).unlink()

    monkeypatch.setattr(tf.saved_model, "save", cut)
    with pytest.raises(RunError, match=r"The SavedModel of .* failed verification"):
        classifier(model, tmp_path / "net")
    assert not list(tmp_path.iterdir())


def test_a_rename_that_fails_keeps_what_was_there(model, exported, tmp_path, monkeypatch):
    path = shutil.copytree(exported, tmp_path / "net")
    rename = pathlib.Path.rename

    def fail(self, target):
        if self.suffix == ".part":
            raise OSError("no rename")
        return rename(self, target)

    monkeypatch.setattr(pathlib.Path, "rename", fail)
    with pytest.raises(OSError, match="no rename"):
        classifier(model, path, overwrite=True)
    assert list(tmp_path.iterdir()) == [path] and load_savedmodel(path)


def test_a_timm_file_with_other_values_is_not_kept(tmp_path, monkeypatch):
    import safetensors.numpy

    from keras_bot.interop import save_timm

    save = safetensors.numpy.save

    def spoil(tensors, *rest):
        return save({name: np.asarray(tensor + 1) for name, tensor in tensors.items()}, *rest)

    monkeypatch.setattr(safetensors.numpy, "save", spoil)
    with pytest.raises(RunError, match="the tensors read back differ from the network's in"):
        save_timm(models.create_model("resnet18_d", num_classes=2, width=0.1), tmp_path / "net.safetensors")
    assert not list(tmp_path.iterdir())
