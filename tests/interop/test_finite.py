"""Weights that are NaN, infinite or too large for float32 are refused where they are read, and nothing is written."""

import numpy as np
import pytest
import tensorflow as tf
from safetensors.numpy import load_file, save_file

from keras_bot import interop, models
from keras_bot.cli.main import main
from keras_bot.errors import MisuseError, RunError
from keras_bot.export.savedmodel import export_savedmodel, load_savedmodel
from keras_bot.model_files import load_network, read_network
from keras_bot.recipe import Recipe
from keras_bot.tasks.backbone import load_backbone
from keras_bot.tasks.segmentation.fcn import fcn
from keras_bot.tasks.serving import load_trained
from keras_bot.training.distillation.teacher import load_teacher

KERNEL, VARIANCE = "layer1.0.conv1.weight", "layer2.0.bn1.running_var"


@pytest.fixture(scope="module")
def tensors(tmp_path_factory):
    path = tmp_path_factory.mktemp("timm") / "net.safetensors"
    interop.save_timm(models.create_model("resnet18_d", num_classes=3, width=0.25), path)
    return load_file(path)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_an_import_names_the_tensors_and_changes_nothing(bad, tensors):
    broken = {name: array.copy() for name, array in tensors.items()}
    broken[KERNEL].flat[:3] = bad
    broken[VARIANCE].flat[5] = bad
    model = models.create_model("resnet18_d", num_classes=3, width=0.25)
    before = model.get_weights()
    size = broken[KERNEL].size
    with pytest.raises(MisuseError, match=rf"finite.*{KERNEL} \(3 of {size} values\), {VARIANCE} \(1 of 32 values\)\."):
        interop.assign_tensors(model, broken, "timm")
    for ours, theirs in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_the_command_writes_nothing(tmp_path, capsys):
    interop.save_timm(models.create_model("resnet18_d", num_classes=3), tmp_path / "net.safetensors")
    broken = load_file(tmp_path / "net.safetensors")
    broken[KERNEL].flat[:3] = np.nan
    save_file(broken, tmp_path / "net.safetensors")
    arguments = ["--source=timm", f"--file={tmp_path / 'net.safetensors'}", f"--output={tmp_path / 'net.keras'}"]
    assert main(["import-weights", *arguments]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert f"{KERNEL} (3 of 36864 values)" in line
    assert [path.name for path in tmp_path.iterdir()] == ["net.safetensors"]


@pytest.mark.parametrize(("dtype", "value", "word"), [("float64", 1e300, "too large"), ("float16", np.inf, "infinite")])
def test_other_dtypes_are_checked_as_float32(dtype, value, word, tensors):
    model = models.create_model("resnet18_d", num_classes=3, width=0.25)
    wide = {name: array.astype(dtype) if array.dtype == "float32" else array for name, array in tensors.items()}
    interop.assign_tensors(model, wide, "timm")
    wide[KERNEL].flat[0] = value
    with pytest.raises(MisuseError, match=f"{word}.*: {KERNEL} "):
        interop.assign_tensors(model, wide, "timm")


def test_what_overflows_by_folding_the_normalisation_is_named_by_our_weight(tensors):
    model = models.create_model("resnet18_d", num_classes=3, width=0.25)
    large = dict(tensors) | {"conv1.0.weight": np.full_like(tensors["conv1.0.weight"], 3e38)}
    with pytest.raises(MisuseError, match="stem_1_bn/moving_mean"):
        interop.assign_tensors(model, large, "timm", preprocessing={"mean": (0.0, 0.0, 0.0)})


def test_tensors_that_are_not_used_may_hold_anything(tensors):
    model = models.create_model("resnet18_d", num_classes=5, width=0.25)
    interop.assign_tensors(model, dict(tensors) | {"fc.bias": np.full(3, np.nan, "float32")}, "timm")


@pytest.fixture(scope="module")
def broken(tmp_path_factory):
    """A classifier with a weight that isn't finite, as a .keras file, a run and a SavedModel; and a segmenter."""
    folder = tmp_path_factory.mktemp("broken")
    model = models.create_model("cifar_resnet8_d", num_classes=3, width=0.25)
    export_savedmodel(model, folder / "saved", image_size=16)
    model.get_layer("predictions").bias.assign([1, np.nan, np.inf])
    model.save(folder / "model.keras")
    (folder / "metrics.json").write_text('{"result": {}, "dataset": {"class_names": ["a", "b", "c"]}}')
    checkpoint = tf.train.load_checkpoint(str(folder / "saved/variables/variables"))
    exported = tf.saved_model.load(folder / "saved")
    assert checkpoint.has_tensor("variables/0/.ATTRIBUTES/VARIABLE_VALUE")
    exported.variables[0].assign(exported.variables[0] * np.nan)
    tf.saved_model.save(exported, folder / "saved")
    network = fcn(load_backbone("resnet10_d", width=0.1), 3, channels=8)
    network = models.networks.keras.Model(network.input, network.output["logits"])
    network.weights[0].assign(network.weights[0] * np.nan)
    network.save(folder / "segmenter.keras")
    return folder


@pytest.mark.thorough
@pytest.mark.parametrize("name", ["model.keras", ".", "saved"])
def test_a_network_is_read_with_finite_weights_only(name, broken):
    with pytest.raises(RunError, match=r"weights that are not finite: .* of \d+ values\)"):
        read_network(broken / name)


@pytest.mark.thorough
def test_every_reader_names_the_weights(broken, tmp_path, capsys):
    with pytest.raises(RunError, match=r"predictions/bias \(2 of 3 values\)"):
        load_network(broken / "model.keras")
    with pytest.raises(RunError, match=r"not finite: .* of \d+ values\)"):
        load_savedmodel(broken / "saved")
    with pytest.raises(RunError, match="not finite"):
        load_trained(broken / "segmenter.keras", "segmentation")
    with pytest.raises(RunError, match="not finite"):
        load_teacher(Recipe(dataset="digits", teacher=str(broken / "model.keras"), image_size=16), 3)
    start = ["--dataset=digits", "--transform=cifar", "--image_size=16", f"--run_dir={tmp_path / 'run'}"]
    assert main(["finetune", f"--init_from={broken / 'model.keras'}", *start]) == 1
    assert "predictions/bias (2 of 3 values)" in capsys.readouterr().err and not (tmp_path / "run").exists()
