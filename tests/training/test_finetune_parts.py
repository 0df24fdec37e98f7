"""Weights are copied by layer, parts are frozen from the input on, and settings come from the source network."""

import re

import keras
import numpy as np
import pytest

from keras_bot.errors import MisuseError
from keras_bot.recipe import Recipe
from keras_bot.training import finetune
from keras_bot.training.finetune import freeze, layer_multipliers, load_weights_from, part_of, with_source_settings

NAMES = ["a", "b", "c"]


def build(name="tiny", classes=3, width=2, extra=()):
    """A network with a layer in each of some parts; its weights are random."""
    inputs = keras.Input((4,))
    x = keras.layers.Dense(width, name="stem_dense")(inputs)
    x = keras.layers.BatchNormalization(name="stem_norm")(x)
    x = keras.layers.Dense(width, name="stage1_dense")(x)
    for layer in extra:
        x = keras.layers.Dense(width, name=layer)(x)
    x = keras.layers.BatchNormalization(name="C5")(x)
    x = keras.layers.Dense(width, name="stage4_dense")(x)
    model = keras.Model(inputs, keras.layers.Dense(classes, name="predictions")(x), name=name)
    draw = np.random.default_rng(len(name) + classes)
    model.set_weights([draw.normal(size=weight.shape) for weight in model.get_weights()])
    return model


@pytest.fixture
def stored(monkeypatch):
    """A function that sets the network and description that any path is read as."""

    def store(network, description):
        monkeypatch.setattr(finetune, "read_network", lambda path: (network, description))

    return store


def weights(model):
    return {weight.path: np.asarray(weight) for weight in model.weights}


def copied(target, source, before):
    """Returns the names of the layers whose weights are the source's; all others must be as before."""
    same = set()
    for path, value in weights(target).items():
        if np.array_equal(value, weights(source)[path]):
            same.add(path.split("/")[0])
        else:
            np.testing.assert_array_equal(value, before[path])
    return same


BACKBONE = {"stem_dense", "stem_norm", "stage1_dense", "stage4_dense"}


@pytest.mark.parametrize(
    ("description", "class_names", "layers", "message"),
    [
        ({"class_names": NAMES}, NAMES, {*BACKBONE, "C5", "predictions"}, ""),
        ({"dataset": {"class_names": NAMES}}, tuple(NAMES), {*BACKBONE, "C5", "predictions"}, ""),
        ({"class_names": NAMES}, ["a", "c", "b"], BACKBONE, "was trained on other classes (with other names)"),
        ({"class_names": NAMES[:2]}, NAMES, BACKBONE, "was trained on other classes (2, here 3)"),
        ({"class_names": NAMES}, (), BACKBONE, ""),
        ({}, NAMES, BACKBONE, "does not name its classes"),
        ({}, (), BACKBONE, ""),
    ],
)
def test_the_head_is_copied_for_the_same_classes_only(description, class_names, layers, message, stored, capsys):
    source, target = build(), build()
    source.set_weights([weight + 1 for weight in source.get_weights()])
    stored(source, description)
    before = weights(target)
    load_weights_from(target, "other.keras", class_names)
    assert copied(target, source, before) == layers
    expected = f"keras-bot: the head is initialised randomly, since other.keras {message}.\n"
    assert capsys.readouterr().err == (expected if message else "")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            {"width": 3},
            "x.keras contains a tiny of another width: the weights of layer stem_dense have shapes [(4, 3), (3,)] "
            "instead of [(4, 2), (2,)]. Set --model and --width to match.",
        ),
        (
            {"width": 3, "name": "other"},
            "x.keras contains a other, but --model is tiny: the weights of layer stem_dense have shapes [(4, 3), (3,)]",
        ),
        (
            {"extra": ("stage2_b", "stage2_a")},
            "x.keras contains another network than --model=tiny: it also has the layers stage2_a, stage2_b.",
        ),
        (
            {"name": "resnet50_d"},
            "x.keras contains a resnet50_d, but --model is tiny. Use --model=resnet50_d.",
        ),
    ],
    ids=str,
)
def test_another_network_is_refused_and_nothing_changes(source, message, stored):
    stored(build(**source), {})
    target = build()
    before = target.get_weights()
    with pytest.raises(MisuseError, match=f"^{re.escape(message)}"):
        load_weights_from(target, "x.keras")
    for ours, reference in zip(target.get_weights(), before, strict=True):
        np.testing.assert_array_equal(ours, reference)


def test_a_layer_that_the_source_lacks_is_an_error(stored):
    stored(build(), {})
    with pytest.raises(MisuseError, match="the weights of layer stage2_a have shapes None instead of"):
        load_weights_from(build(extra=("stage2_a",)), "x.keras")


@pytest.mark.parametrize(
    ("name", "part"),
    [("stem_conv", 0), ("stem1_norm", 0), ("stage1_block1_conv", 1), ("stage4_conv", 4), ("C5", 5), ("predictions", 5)],
)
def test_the_parts_are_numbered_from_the_input(name, part):
    assert part_of(keras.layers.Dense(1, name=name)) == part


@pytest.mark.parametrize(
    ("stages", "batch_norm", "trainable"),
    [
        (0, False, {*BACKBONE, "C5", "predictions"}),
        (1, False, {"stage1_dense", "C5", "stage4_dense", "predictions"}),
        (2, False, {"C5", "stage4_dense", "predictions"}),
        (4, False, {"C5", "stage4_dense", "predictions"}),
        (5, False, {"C5", "predictions"}),
        (0, True, {"stem_dense", "stage1_dense", "stage4_dense", "predictions"}),
        (2, True, {"stage4_dense", "predictions"}),
    ],
)
def test_layers_are_frozen_from_the_input_on(stages, batch_norm, trainable):
    model = build()
    freeze(model, stages=stages, batch_norm=batch_norm)
    assert {layer.name for layer in model.layers if layer.trainable_weights} == trainable


def test_nothing_is_frozen_by_default():
    model = build()
    freeze(model)
    assert all(layer.trainable for layer in model.layers)


def test_the_learning_rate_falls_with_the_distance_from_the_head():
    model = build()
    model.get_layer("stem_norm").trainable = False
    factors = layer_multipliers(model, 0.5)
    by_layer = {path.split("/")[0]: factor for path, factor in factors.items()}
    assert by_layer == {"stem_dense": 0.5**5, "stage1_dense": 0.5**4, "C5": 1, "stage4_dense": 0.5, "predictions": 1}
    assert set(factors) == {variable.path for variable in model.trainable_variables}


STORED = {
    "recipe": {"model": "resnet18_d", "width": "0.5", "image_size": "160", "transform": "cifar", "eval_crop": "0.9"}
}


@pytest.mark.parametrize(
    ("task", "explicit", "changes"),
    [
        (
            "classification",
            set(),
            {"model": "resnet18_d", "width": 0.5, "image_size": 160, "transform": "cifar", "eval_crop": 0.9},
        ),
        ("classification", {"image_size", "model"}, {"width": 0.5, "transform": "cifar", "eval_crop": 0.9}),
        ("segmentation", set(), {"model": "resnet18_d", "width": 0.5}),
        ("detection", {"width"}, {"model": "resnet18_d"}),
    ],
)
def test_the_settings_of_the_source_are_taken_unless_the_user_set_them(task, explicit, changes, stored):
    stored(build(), STORED)
    recipe = Recipe(task=task, init_from="x.keras", epochs=7, schedule="cosine")
    expected = Recipe(task=task, init_from="x.keras", epochs=7, schedule="cosine", **changes)
    assert with_source_settings(recipe, explicit) == expected


def test_a_network_without_a_description_gives_its_name(stored):
    stored(build(name="resnet34_a"), {})
    recipe = Recipe(init_from="x.keras")
    assert with_source_settings(recipe, set()) == Recipe(init_from="x.keras", model="resnet34_a")


def test_an_unknown_network_is_refused(stored):
    stored(build(name="resnet50d"), {})
    message = r"^Unknown network in --init_from=x\.keras: 'resnet50d'\. Did you mean resnet50_"
    with pytest.raises(MisuseError, match=message):
        with_source_settings(Recipe(init_from="x.keras"), set())
