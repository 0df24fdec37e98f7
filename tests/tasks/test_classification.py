"""Classification passes each field of the recipe to its source, network, pipelines, teacher and evaluation."""

import dataclasses
import re
import types

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_bot import data
from keras_bot.errors import MisuseError
from keras_bot.recipe import Recipe
from keras_bot.tasks import classification
from keras_bot.tasks.classification import Classification, build_classifier, save_float32

RECIPE = Recipe(dataset="photos", batch_size=8, image_size=16, model="cifar_resnet8_d", width=0.25)
SOURCE = types.SimpleNamespace(name="photos train", num_classes=4, class_names=("a", "b", "c", "d"), size=40)
TASK = Classification()


def strategy(workers=1, worker=0, replicas=1):
    return types.SimpleNamespace(workers=workers, worker=worker, replicas=replicas)


def record(monkeypatch, owner, name, result=None):
    """Replaces a function by one that returns `result`; returns the list of its calls, (arguments, keywords)."""
    calls = []
    monkeypatch.setattr(owner, name, lambda *args, **options: calls.append((args, options)) or result)
    return calls


def test_the_task_has_its_name_and_metrics():
    assert (TASK.name, TASK.metrics) == ("classification", ("top1", "top5"))


OPTIONS = {
    "data_dir": None,
    "num_classes": 0,
    "synthetic_images": 1024,
    "image_size": 16,
    "tfds_split": "",
    "first_label": 0,
    "read_config": None,
}


@pytest.mark.parametrize(
    ("changes", "split", "changed"),
    [
        ({}, "train", {}),
        ({"data_dir": "/data"}, "train", {"data_dir": "/data"}),
        ({"num_classes": 4}, "eval", {"num_classes": 4}),
        ({"synthetic_images": 9}, "train", {"synthetic_images": 9}),
        ({"image_size": 32}, "train", {"image_size": 32}),
        ({"first_label": 1}, "train", {"first_label": 1}),
        ({"train_split": "train[:9]", "eval_split": "test"}, "train", {"tfds_split": "train[:9]"}),
        ({"train_split": "train[:9]", "eval_split": "test"}, "eval", {"tfds_split": "test"}),
    ],
    ids=str,
)
def test_the_source_is_opened_as_the_recipe_sets(changes, split, changed, monkeypatch):
    calls = record(monkeypatch, data, "open_source", SOURCE)
    assert TASK.open_source(dataclasses.replace(RECIPE, **changes), split) is SOURCE
    assert calls == [(("photos", split), {**OPTIONS, **changed})]


@pytest.mark.parametrize(
    ("shard_by", "split", "workers", "shared"),
    [
        ("file", "train", 2, True),
        ("file", "train", 1, False),
        ("file", "eval", 2, False),
        ("example", "train", 2, False),
    ],
)
def test_only_training_by_file_opens_a_share_of_the_data(shard_by, split, workers, shared, monkeypatch):
    calls = record(monkeypatch, data, "open_source", SOURCE)
    recipe = dataclasses.replace(RECIPE, shard_by=shard_by)
    TASK.open_source(recipe, split, strategy(workers, worker=workers - 1, replicas=6))
    config = calls[0][1]["read_config"]
    assert (config is not None) is shared
    if shared:
        context = config.input_context
        pipelines = (context.num_input_pipelines, context.input_pipeline_id, context.num_replicas_in_sync)
        assert pipelines == (2, 1, 6)


def test_data_of_other_classes_are_refused(monkeypatch):
    record(monkeypatch, data, "open_source", SOURCE)
    assert TASK.open_source(RECIPE, "eval", class_names=("a", "b", "c", "d")) is SOURCE
    with pytest.raises(MisuseError) as raised:
        TASK.open_source(RECIPE, "eval", class_names=("a", "x"))
    assert str(raised.value) == (
        "photos train has 4 classes (a, b, c, d), but the training data have 2 classes (a, x). Use data with the "
        "same classes."
    )


TRAIN = {
    "batch_size": 8,
    "corrupt": "the log",
    "dtype": "float32",
    "ram_budget": 1024,
    "worker": 0,
    "workers": 1,
    "epochs": 120,
    "seed": 0,
    "first_epoch": 0,
    "first_step": 0,
    "flip": True,
    "color_jitter": 0.4,
    "pca_noise": 0.1,
    "shuffle_buffer": 8192,
    "draws_of": 0,
    "image_size": 16,
    "transform": "imagenet",
    "min_area": 0.08,
    "crop_padding": 4,
    "batch_transform": "the transform",
    "cache": False,
    "augment_on": "host",
}


def train_config(monkeypatch, recipe, *arguments):
    """Returns the fields of the configuration with which the training pipeline is built."""
    calls = record(monkeypatch, data, "train_pipeline", "batches")
    record(monkeypatch, classification.batches, "build_batch_transform", "the transform")
    assert TASK.training_data(recipe, SOURCE, "the log", *arguments) == "batches"
    (source, config), options = calls[0]
    assert source is SOURCE and not options
    return {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}


@pytest.mark.parametrize(
    ("changes", "changed"),
    [
        ({}, {}),
        ({"image_size": 32}, {"image_size": 32}),
        ({"transform": "cifar"}, {"transform": "cifar"}),
        ({"min_area": 0.5}, {"min_area": 0.5}),
        ({"crop_padding": 7}, {"crop_padding": 7}),
        ({"cache": True}, {"cache": True}),
        ({"augment_on": "device"}, {"augment_on": "device"}),
        ({"flip": False, "seed": 5}, {"flip": False, "seed": 5}),
    ],
    ids=str,
)
def test_training_data_follow_the_recipe(changes, changed, monkeypatch):
    assert train_config(monkeypatch, dataclasses.replace(RECIPE, **changes)) == {**TRAIN, **changed}


def test_training_data_start_at_the_given_step(monkeypatch):
    config = train_config(monkeypatch, RECIPE, None, 2, 3)
    assert config == {**TRAIN, "first_epoch": 2, "first_step": 3}


@pytest.mark.parametrize(
    ("shard_by", "workers", "changed"),
    [
        ("example", 1, {}),
        ("file", 1, {}),
        ("example", 2, {"worker": 1, "workers": 2}),
        ("file", 2, {"batch_size": 4, "draws_of": 1}),
    ],
)
def test_workers_share_the_batch_by_example_or_by_file(shard_by, workers, changed, monkeypatch):
    recipe = dataclasses.replace(RECIPE, shard_by=shard_by)
    config = train_config(monkeypatch, recipe, strategy(workers, worker=workers - 1))
    assert config == {**TRAIN, **changed}


def test_the_batch_transform_is_the_recipes(monkeypatch):
    calls = record(monkeypatch, classification.batches, "build_batch_transform")
    record(monkeypatch, data, "train_pipeline")
    TASK.training_data(RECIPE, SOURCE, None)
    assert calls == [((RECIPE,), {})]


def test_with_a_teacher_cache_the_targets_are_added(monkeypatch):
    record(monkeypatch, data, "train_pipeline", "batches")
    calls = record(monkeypatch, classification, "add_teacher_targets", "batches with targets")
    recipe, one = dataclasses.replace(RECIPE, teacher="teacher", teacher_cache="cache"), strategy()
    assert TASK.training_data(recipe, SOURCE, None, one, 2, 3) == "batches with targets"
    assert calls == [(("batches", recipe, SOURCE, one), {"first_epoch": 2, "first_step": 3})]


EVAL = {
    "batch_size": 8,
    "corrupt": "the log",
    "dtype": "float32",
    "ram_budget": 1024,
    "worker": 0,
    "workers": 1,
    "image_size": 16,
    "transform": "imagenet",
    "eval_crop": 0.875,
    "cache": False,
    "scaled_decoding": False,
    "pad": True,
}


@pytest.mark.parametrize(
    ("changes", "changed"),
    [
        ({}, {}),
        ({"batch_size": 16}, {"batch_size": 16}),
        ({"image_size": 32}, {"image_size": 32}),
        ({"transform": "plain"}, {"transform": "plain"}),
        ({"eval_crop": 0.5}, {"eval_crop": 0.5}),
        ({"cache": True}, {"cache": True}),
        ({"scaled_eval": True}, {"scaled_decoding": True}),
        ({"ram_budget": 77}, {"ram_budget": 77}),
        ({"precision": "mixed_bfloat16"}, {}),  # evaluation images are always float32
    ],
    ids=str,
)
@pytest.mark.parametrize("workers", [1, 2])
def test_evaluation_data_follow_the_recipe(changes, changed, workers, monkeypatch):
    calls = record(monkeypatch, data, "eval_pipeline", "batches")
    recipe = dataclasses.replace(RECIPE, **changes)
    place = strategy(2, worker=1) if workers == 2 else None
    assert TASK.evaluation_data(recipe, SOURCE, "the log", place) == "batches"
    (source, config), options = calls[0]
    assert source is SOURCE and not options
    expected = {**EVAL, **changed, **({"worker": 1, "workers": 2} if workers == 2 else {})}
    assert {field.name: getattr(config, field.name) for field in dataclasses.fields(config)} == expected


@pytest.mark.parametrize(
    ("changes", "has_transform"),
    [({}, False), ({"augment_on": "device"}, True)],
    ids=str,
)
def test_the_step_transforms_batches_only_if_it_augments(changes, has_transform):
    recipe = dataclasses.replace(RECIPE, label_smoothing=0.3, **changes)
    transform = TASK.build_step_transform(recipe)
    assert (transform is not None) is has_transform
    if transform:
        labels = transform(np.zeros((2, 1)), np.eye(4, dtype="float32")[:2], tf.constant([1, 2]), 0)[1]
        np.testing.assert_allclose(labels[0], [0.7, 0.1, 0.1, 0.1], rtol=1e-6)


def test_with_a_teacher_cache_the_steps_transform_keeps_the_targets():
    changes = {"augment_on": "device", "label_smoothing": 0.3, "teacher": "t", "teacher_cache": "cache"}
    transform = TASK.build_step_transform(dataclasses.replace(RECIPE, **changes))
    labels = np.eye(4, dtype="float32")[:2]
    _, (labels, targets) = transform(np.zeros((2, 1)), (labels, "targets"), tf.constant([1, 2]), 0)
    assert targets == "targets" and float(labels[0, 0]) == pytest.approx(0.7)


@pytest.mark.parametrize("cache", ["", "cache"])
def test_the_teacher_is_loaded_for_the_datas_classes_and_its_cache_checked(cache, monkeypatch):
    loads = record(monkeypatch, classification, "load_teacher", "the teacher")
    checks = record(monkeypatch, classification, "check_cache")
    recipe, one = dataclasses.replace(RECIPE, teacher="t", teacher_cache=cache), strategy()
    assert TASK.load_teacher(recipe, SOURCE, one) == "the teacher"
    assert loads == [((recipe, 4, ("a", "b", "c", "d")), {})]
    assert checks == ([((recipe, SOURCE, "the teacher", one), {})] if cache else [])


def test_the_trainee_is_the_network_or_a_model_around_it(monkeypatch):
    calls = record(monkeypatch, classification, "build_distillation_model", "a distillation model")
    assert TASK.build_trainee(RECIPE, "the network", None) == "the network" and not calls
    assert TASK.build_trainee(RECIPE, "the network", "the teacher") == "a distillation model"
    assert calls == [((RECIPE, "the network", "the teacher"), {})]


def test_the_network_is_built_for_the_datas_classes(monkeypatch):
    calls = record(monkeypatch, classification, "build_classifier", "the network")
    assert TASK.build_network(RECIPE, SOURCE) == "the network"
    assert calls == [((RECIPE, 4, ("a", "b", "c", "d")), {})]


@pytest.mark.parametrize(
    ("changes", "options"),
    [
        ({}, {"width": 0.25, "zero_gamma": False}),
        ({"width": 0.5}, {"width": 0.5, "zero_gamma": False}),
        ({"zero_gamma": True}, {"width": 0.25, "zero_gamma": True}),
    ],
    ids=str,
)
def test_a_classifier_has_the_recipes_architecture(changes, options, monkeypatch):
    network = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4)])
    calls = record(monkeypatch, classification.models, "create_model", network)
    loads = record(monkeypatch, classification, "load_weights_from")
    assert build_classifier(dataclasses.replace(RECIPE, **changes), 4) is network
    assert calls == [(("cifar_resnet8_d",), {"num_classes": 4, **options})] and not loads


def test_weights_are_loaded_before_layers_are_frozen(monkeypatch):
    events = []
    record(monkeypatch, classification.models, "create_model", "the network")
    monkeypatch.setattr(classification, "load_weights_from", lambda *arguments: events.append(arguments))
    monkeypatch.setattr(classification, "freeze", lambda *arguments, **options: events.append((*arguments, options)))
    recipe = dataclasses.replace(RECIPE, init_from="other", frozen_stages=2, freeze_bn=True)
    build_classifier(recipe, 4, ("a", "b"))
    assert events == [
        ("the network", "other", ("a", "b")),
        ("the network", {"stages": 2, "batch_norm": True}),
    ]


@pytest.mark.parametrize(("size", "refused"), [(74, True), (75, False)])
def test_images_too_small_for_the_network_are_refused(size, refused, monkeypatch):
    network = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4)])
    record(monkeypatch, classification.models, "create_model", network)
    recipe = dataclasses.replace(RECIPE, model="inception_v3", image_size=size)
    if not refused:
        assert build_classifier(recipe, 4) is network
        return
    message = "--model=inception_v3 needs --image_size of at least 75, not 74."
    with pytest.raises(MisuseError, match=f"^{re.escape(message)}$"):
        build_classifier(recipe, 4)


@pytest.fixture(scope="module")
def half_network():
    """A functional network that computes in bfloat16."""
    inputs = keras.Input((4,))
    x = keras.layers.Dense(3, dtype="mixed_bfloat16")(inputs)
    return keras.Model(inputs, keras.layers.Dense(2, dtype="mixed_bfloat16")(x))


@pytest.mark.parametrize("save", [save_float32, TASK.save])
def test_a_network_is_saved_in_float32_with_all_layers_trainable(save, half_network, tmp_path):
    half_network.layers[1].trainable = False
    save(half_network, tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert {layer.compute_dtype for layer in loaded.layers} == {"float32"}
    assert all(layer.trainable for layer in loaded.layers) and not half_network.layers[1].trainable
    for ours, reference in zip(loaded.get_weights(), half_network.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, reference)


def test_a_file_is_evaluated_on_the_recipes_data(monkeypatch):
    loads = record(monkeypatch, classification, "load_network", "the network")
    pipelines = record(monkeypatch, data, "eval_pipeline", "batches")
    evaluations = record(monkeypatch, classification, "evaluate", {"top1": 0.5})
    assert TASK.evaluate(RECIPE, "model.keras", SOURCE, "the log") == {"top1": 0.5}
    assert loads == [(("model.keras",), {"num_classes": 4})]
    assert evaluations == [(("the network", "batches"), {"corrupt": "the log"})]
    assert pipelines[0][0][1].corrupt == "the log"


def test_the_losses_are_those_of_classification():
    losses = TASK.build_losses(SOURCE)
    assert [metric.name for metric in losses["weighted_metrics"]] == ["top1", "top5", "cross_entropy"]
    assert TASK.build_evaluator(RECIPE, SOURCE, None) is None
