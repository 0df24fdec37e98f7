"""Fine-tuning: initial weights, frozen layers and layer-wise learning rates."""

import json

import keras
import numpy as np
import pytest

from keras_bot import models
from keras_bot.errors import MisuseError, RunError
from keras_bot.export.savedmodel import export_savedmodel
from keras_bot.model_files import read_network
from keras_bot.recipe import Recipe
from keras_bot.trainer import train
from keras_bot.training.finetune import freeze, layer_multipliers, load_weights_from, with_source_settings

CLASSES = ("a", "b", "c", "d")


@pytest.fixture(scope="module")
def trained():
    keras.utils.set_random_seed(0)
    model = models.create_model("resnet10_d", num_classes=4, width=0.1)
    draw = np.random.default_rng(0)
    model.set_weights([w + draw.uniform(0, 0.1, w.shape) for w in model.get_weights()])
    return model


@pytest.fixture(scope="module")
def paths(trained, tmp_path_factory):
    """The trained network as a SavedModel, a run directory and a .keras file."""
    folder = tmp_path_factory.mktemp("start")
    recipe = {"model": "resnet10_d", "width": "0.1", "image_size": "48", "transform": "imagenet", "eval_crop": "0.9"}
    description = {"class_names": list(CLASSES), "recipe": recipe}
    export_savedmodel(trained, folder / "saved", image_size=48, description=description)
    (folder / "run").mkdir()
    trained.save(folder / "run/model.keras")
    (folder / "run/metrics.json").write_text(json.dumps({"recipe": recipe, "dataset": {"class_names": CLASSES}}))
    return {"saved": folder / "saved", "run": folder / "run", "file": folder / "run/model.keras"}


@pytest.mark.parametrize("kind", ["saved", "run", "file"])
def test_each_format_is_read(paths, trained, kind):
    model, description = read_network(paths[kind])
    assert description["recipe"]["model"] == model.name == "resnet10_d"
    for loaded, expected in zip(model.variables, trained.variables, strict=True):
        np.testing.assert_array_equal(loaded, expected)


@pytest.mark.parametrize(("classes", "kept"), [(CLASSES, True), (("a", "b", "c", "x"), False), (("a", "b"), False)])
def test_the_head_is_copied_only_for_the_same_classes(paths, trained, classes, kept, capsys):
    model = models.create_model("resnet10_d", num_classes=len(classes), width=0.1)
    before = model.get_layer("predictions").get_weights()
    load_weights_from(model, str(paths["saved"]), classes)
    for layer in model.layers[:-1]:
        for copied, source in zip(layer.get_weights(), trained.get_layer(layer.name).get_weights(), strict=True):
            np.testing.assert_array_equal(copied, source)
    head = trained.get_layer("predictions").get_weights() if kept else before
    for weights, expected in zip(model.get_layer("predictions").get_weights(), head, strict=True):
        np.testing.assert_array_equal(weights, expected)
    assert ("the head is initialised randomly" in capsys.readouterr().err) != kept


def test_a_head_of_unknown_classes_is_not_copied(trained, tmp_path, capsys):
    trained.save(tmp_path / "net.keras")
    model = models.create_model("resnet10_d", num_classes=len(CLASSES), width=0.1)
    load_weights_from(model, tmp_path / "net.keras", CLASSES)
    assert f"randomly, since {tmp_path}/net.keras does not name its classes" in capsys.readouterr().err


def test_another_network_is_rejected_and_nothing_changes(paths):
    for name, width, message in (
        ("resnet18_d", 0.1, r"run contains a resnet10_d, but --model is resnet18_d\. Use --model=resnet10_d"),
        ("resnet10_vd", 0.1, r"run contains a resnet10_d, but --model is resnet10_vd\. Use --model=resnet10_d"),
        ("resnet10_d", 0.2, r"run contains a resnet10_d of another width: .* Set --model and --width to match"),
    ):
        model = models.create_model(name, num_classes=4, width=width)
        before = model.get_weights()
        with pytest.raises(MisuseError, match=message):
            load_weights_from(model, str(paths["run"]), CLASSES)
        assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))


@pytest.mark.thorough
def test_all_layers_of_an_unknown_network_are_compared(tmp_path):
    deeper = models.create_model("resnet18_d", num_classes=4, width=0.1)
    keras.Model(deeper.inputs, deeper.outputs, name="mine").save(tmp_path / "mine.keras")
    model = models.create_model("resnet10_d", num_classes=4, width=0.1)
    message = "another network than --model=resnet10_d: it also has the layers stage1_block2_1_bn, stage1_bl"
    with pytest.raises(MisuseError, match=message):
        load_weights_from(model, str(tmp_path / "mine.keras"))
    with pytest.raises(MisuseError, match=r"Unknown network in --init_from=.*mine.keras: 'mine'"):
        with_source_settings(Recipe(init_from=str(tmp_path / "mine.keras")), set())
    (tmp_path / "metrics.json").write_text('{"dataset": "imagenet", "recipe": "x", "accuracy": 0.8}')
    assert read_network(tmp_path / "mine.keras")[1] == {}


def test_paths_without_a_network_are_reported(tmp_path):
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad/saved_model.pb").write_bytes(b"x")
    (tmp_path / "text.keras").write_text("x")
    for path, message in (
        ("none", "does not exist"),
        ("bad", "contains no assets.extra"),
        ("text.keras", "not a .keras file"),
    ):
        with pytest.raises(MisuseError, match=message):
            read_network(tmp_path / path)
    with pytest.raises(MisuseError, match="is neither a finished run nor an exported SavedModel"):
        read_network(tmp_path)


@pytest.mark.thorough
def test_a_damaged_savedmodel_is_reported(trained, tmp_path):
    path = export_savedmodel(trained, tmp_path / "saved", image_size=48)
    data = path / "variables/variables.data-00000-of-00001"
    data.write_bytes(data.read_bytes()[: data.stat().st_size // 2])
    with pytest.raises(MisuseError, match="Cannot read the network of the SavedModel"):
        read_network(path)
    (path / "assets.extra/network.json").write_text("{}")
    with pytest.raises(MisuseError, match="Cannot read the network of the SavedModel"):
        read_network(path)
    for text, message in (("[]", "must contain a JSON object, but contains a list"), ("[" * 100_000, "recursion")):
        (path / "assets.extra/model.json").write_text(text)
        with pytest.raises(RunError, match=message):
            read_network(path)


def test_settings_come_from_the_source_unless_set_explicitly(paths):
    recipe = with_source_settings(Recipe(init_from=str(paths["saved"]), image_size=32), {"image_size"})
    assert (recipe.model, recipe.width, recipe.image_size, recipe.eval_crop) == ("resnet10_d", 0.1, 32, 0.9)


def test_parts_are_frozen_and_learning_rates_decay_with_depth(trained):
    model = keras.models.clone_model(trained)
    freeze(model, stages=2, batch_norm=True)
    trained_parts = {layer.name.split("_")[0] for layer in model.layers if layer.trainable_weights}
    assert trained_parts == {"stage2", "stage3", "stage4", "predictions"}
    assert not any(layer.trainable for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization))
    factors = layer_multipliers(model, 0.5)
    assert factors["predictions/kernel"] == 1 and factors["stage4_block1_1_conv/kernel"] == 0.5
    assert factors["stage2_block1_1_conv/kernel"] == 0.125 and len(factors) == len(model.trainable_variables)


@pytest.mark.thorough
def test_training_changes_all_weights_except_frozen_ones(paths, trained, npz_file, tmp_path):
    draw = np.random.default_rng(0)
    npz = npz_file(x_train=draw.integers(0, 256, (24, 32, 32, 3), np.uint8), x_test=np.zeros((10, 32, 32, 3), np.uint8))
    recipe = Recipe(
        dataset=str(npz), model="resnet10_d", width=0.1, image_size=32, transform="plain", batch_size=8, epochs=1,
        init_from=str(paths["saved"]), frozen_stages=3, layer_decay=0.5, learning_rate=0.01, decay_epochs=(),
    )  # fmt: skip
    train(recipe, tmp_path / "run", progress_bar=False)
    model = keras.saving.load_model(tmp_path / "run/model.keras")
    for layer in model.layers:
        if layer.name == "predictions" or not layer.weights:
            continue
        initial = trained.get_layer(layer.name).get_weights()
        same = [np.array_equal(a, b) for a, b in zip(layer.get_weights(), initial, strict=True)]
        frozen = layer.name.startswith(("stem", "stage1", "stage2"))
        assert all(same) if frozen else not all(same), layer.name
    assert all(layer.trainable for layer in model.layers)
