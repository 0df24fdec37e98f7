"""A network begins with another's weights, keeps what is frozen, and learns the rest at rates of its own."""

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
from keras_bot.training.finetune import freeze, like_source, rates, start_from

CLASSES = ("a", "b", "c", "d")


@pytest.fixture(scope="module")
def trained():
    keras.utils.set_random_seed(0)
    model = models.create("resnet10_d", num_classes=4, width=0.1)
    draw = np.random.default_rng(0)
    model.set_weights([w + draw.uniform(0, 0.1, w.shape) for w in model.get_weights()])
    return model


@pytest.fixture(scope="module")
def places(trained, tmp_path_factory):
    """The trained network as a SavedModel, a run directory and a .keras file."""
    folder = tmp_path_factory.mktemp("start")
    recipe = {"model": "resnet10_d", "width": "0.1", "image_size": "48", "transform": "imagenet", "eval_crop": "0.9"}
    described = {"class_names": list(CLASSES), "recipe": recipe}
    export_savedmodel(trained, folder / "saved", image_size=48, description=described)
    (folder / "run").mkdir()
    trained.save(folder / "run/model.keras")
    (folder / "run/metrics.json").write_text(json.dumps({"recipe": recipe, "dataset": {"class_names": CLASSES}}))
    return {"saved": folder / "saved", "run": folder / "run", "file": folder / "run/model.keras"}


@pytest.mark.parametrize("kind", ["saved", "run", "file"])
def test_the_same_network_is_read_from_each(places, trained, kind):
    model, known = read_network(places[kind])
    assert known["recipe"]["model"] == model.name == "resnet10_d"
    for ours, theirs in zip(model.variables, trained.variables, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(("classes", "kept"), [(CLASSES, True), (("a", "b", "c", "x"), False), (("a", "b"), False)])
def test_the_head_is_kept_for_the_same_classes_alone(places, trained, classes, kept, capsys):
    model = models.create("resnet10_d", num_classes=len(classes), width=0.1)
    before = model.get_layer("predictions").get_weights()
    start_from(model, str(places["saved"]), classes)
    for layer in model.layers[:-1]:
        for ours, theirs in zip(layer.get_weights(), trained.get_layer(layer.name).get_weights(), strict=True):
            np.testing.assert_array_equal(ours, theirs)
    head = trained.get_layer("predictions").get_weights() if kept else before
    for ours, theirs in zip(model.get_layer("predictions").get_weights(), head, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert ("the head is new" in capsys.readouterr().err) != kept


def test_another_network_is_refused_and_nothing_changes(places):
    for name, width, told in (
        ("resnet18_d", 0.1, r"the network resnet18_d, received resnet10_d\. Set --model"),
        ("resnet10_vd", 0.1, r"the network resnet10_vd, received resnet10_d\. Set --model"),
        ("resnet10_d", 0.2, r"it looks like resnet10_d of another width\. Set --model and --width"),
    ):
        model = models.create(name, num_classes=4, width=width)
        before = model.get_weights()
        with pytest.raises(MisuseError, match=told):
            start_from(model, str(places["run"]), CLASSES)
        assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))


def test_of_a_network_that_is_none_of_ours_by_name_all_layers_are_looked_at(tmp_path):
    deeper = models.create("resnet18_d", num_classes=4, width=0.1)
    keras.Model(deeper.inputs, deeper.outputs, name="mine").save(tmp_path / "mine.keras")
    model = models.create("resnet10_d", num_classes=4, width=0.1)
    with pytest.raises(MisuseError, match="the network resnet10_d, received one with stage1_block2_1_bn, stage1_bl"):
        start_from(model, str(tmp_path / "mine.keras"))
    with pytest.raises(MisuseError, match=r"Unknown network, of --init_from=.*mine.keras, 'mine'"):
        like_source(Recipe(init_from=str(tmp_path / "mine.keras")), set())
    (tmp_path / "metrics.json").write_text('{"dataset": "imagenet", "recipe": "x", "accuracy": 0.8}')
    assert read_network(tmp_path / "mine.keras")[1] == {}


def test_what_is_no_network_is_told(tmp_path):
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad/saved_model.pb").write_bytes(b"x")
    (tmp_path / "text.keras").write_text("x")
    for path, told in (("none", "isn't there"), ("bad", "has no assets.extra"), ("text.keras", "no .keras file")):
        with pytest.raises(MisuseError, match=told):
            read_network(tmp_path / path)
    with pytest.raises(MisuseError, match="is none of them"):
        read_network(tmp_path)


def test_a_damaged_savedmodel_is_told(trained, tmp_path):
    path = export_savedmodel(trained, tmp_path / "saved", image_size=48)
    data = path / "variables/variables.data-00000-of-00001"
    data.write_bytes(data.read_bytes()[: data.stat().st_size // 2])
    with pytest.raises(MisuseError, match="Can't read the network of the SavedModel"):
        read_network(path)
    (path / "assets.extra/network.json").write_text("{}")
    with pytest.raises(MisuseError, match="Can't read the network of the SavedModel"):
        read_network(path)
    for text, told in (("[]", "expected a JSON object, received list"), ("[" * 100_000, "recursion")):
        (path / "assets.extra/model.json").write_text(text)
        with pytest.raises(RunError, match=told):
            read_network(path)


def test_the_recipe_follows_the_source_where_nothing_is_given(places):
    recipe = like_source(Recipe(init_from=str(places["saved"]), image_size=32), {"image_size"})
    assert (recipe.model, recipe.width, recipe.image_size, recipe.eval_crop) == ("resnet10_d", 0.1, 32, 0.9)


def test_parts_are_frozen_and_rates_fall_with_depth(trained):
    model = keras.models.clone_model(trained)
    freeze(model, stages=2, batch_norm=True)
    learning = {layer.name.split("_")[0] for layer in model.layers if layer.trainable_weights}
    assert learning == {"stage2", "stage3", "stage4", "predictions"}
    assert not any(layer.trainable for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization))
    factors = rates(model, 0.5)
    assert factors["predictions/kernel"] == 1 and factors["stage4_block1_1_conv/kernel"] == 0.5
    assert factors["stage2_block1_1_conv/kernel"] == 0.125 and len(factors) == len(model.trainable_variables)


def test_training_moves_all_but_what_is_frozen(places, trained, npz_file, tmp_path):
    draw = np.random.default_rng(0)
    npz = npz_file(x_train=draw.integers(0, 256, (24, 32, 32, 3), np.uint8), x_test=np.zeros((10, 32, 32, 3), np.uint8))
    recipe = Recipe(
        dataset=str(npz), model="resnet10_d", width=0.1, image_size=32, transform="plain", batch_size=8, epochs=1,
        init_from=str(places["saved"]), frozen_stages=3, layer_decay=0.5, learning_rate=0.01, decay_epochs=(),
    )  # fmt: skip
    train(recipe, tmp_path / "run", progress_bar=False)
    ours = keras.saving.load_model(tmp_path / "run/model.keras")
    for layer in ours.layers:
        if layer.name == "predictions" or not layer.weights:
            continue
        theirs = trained.get_layer(layer.name).get_weights()
        same = [np.array_equal(a, b) for a, b in zip(layer.get_weights(), theirs, strict=True)]
        frozen = layer.name.startswith(("stem", "stage1", "stage2"))
        assert all(same) if frozen else not all(same), layer.name
    assert all(layer.trainable for layer in ours.layers)
