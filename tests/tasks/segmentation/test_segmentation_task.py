"""Segmentation passes each field of the recipe to its source, network and pipelines, and its figures are exact."""

import dataclasses
import re
import types

import keras
import numpy as np
import pytest
import tensorflow as tf
from pipeline_calls import TRAIN_CONFIG, config_of

from keras_bot.errors import MisuseError
from keras_bot.recipe import Recipe
from keras_bot.tasks import find_task
from keras_bot.tasks.segmentation import metrics, task
from keras_bot.tasks.segmentation.task import KeepFigures, PixelEntropy, Segmentation, draw_masks, measure

RECIPE = Recipe(task="segmentation", dataset="scenes", batch_size=4, image_size=32)
SOURCE = types.SimpleNamespace(
    name="scenes", num_classes=3, class_names=("ground", "blue", "red"), size=5, palette=np.eye(3, dtype=np.uint8) * 200
)
TASK = Segmentation()
ONE = types.SimpleNamespace(worker=1, workers=2, replicas=2)


def record(monkeypatch, name, result=None):
    """Replaces a function of the module by one that returns `result`; returns the list of its calls."""
    calls = []
    monkeypatch.setattr(task, name, lambda *args, **options: calls.append((args, options)) or result)
    return calls


def test_the_task_has_its_name_and_metrics():
    assert (TASK.name, TASK.metrics) == ("segmentation", ("mean_iou", "pixel_accuracy"))
    assert type(find_task("segmentation")) is Segmentation


@pytest.mark.parametrize(
    ("changes", "split", "class_names", "name", "options"),
    [
        ({}, "train", (), "train", {}),
        ({}, "eval", (), "eval", {}),
        ({"train_split": "a", "eval_split": "b"}, "train", (), "a", {}),
        ({"train_split": "a", "eval_split": "b"}, "eval", (), "b", {}),
        ({"data_dir": "/data", "num_classes": 3}, "train", (), "train", {"data_dir": "/data", "num_classes": 3}),
        ({}, "eval", ("x", "y"), "eval", {"class_names": ("x", "y")}),
    ],
)
def test_the_source_is_opened_as_the_recipe_sets(changes, split, class_names, name, options, monkeypatch):
    calls = record(monkeypatch, "open_segmentation", SOURCE)
    recipe = dataclasses.replace(RECIPE, **changes)
    assert TASK.open_source(recipe, split, class_names=class_names) is SOURCE
    assert calls == [(("scenes", name), {"num_classes": 0, "data_dir": None, "class_names": None, **options})]


def test_heads_of_other_tasks_are_refused():
    with pytest.raises(MisuseError, match=r"^--head must be fcn or deeplabv3plus for --task=segmentation"):
        TASK.open_source(dataclasses.replace(RECIPE, head="retinanet"), "train")


@pytest.mark.parametrize(
    ("changes", "builder", "stride", "options"),
    [
        ({}, "fcn", 8, {}),
        ({"head": "fcn"}, "fcn", 8, {}),
        ({"head": "deeplabv3plus"}, "deeplabv3plus", 16, {}),
        ({"head": "fcn", "head_channels": 7}, "fcn", 8, {"channels": 7}),
        ({"head": "deeplabv3plus", "head_channels": 7}, "deeplabv3plus", 16, {"channels": 7}),
    ],
    ids=str,
)
def test_the_network_has_the_recipes_head(changes, builder, stride, options, monkeypatch):
    recipe = dataclasses.replace(RECIPE, **changes)
    calls = {
        name: record(monkeypatch, name, f"result of {name}") for name in ("build_backbone", "fcn", "deeplabv3plus")
    }
    assert TASK.build_network(recipe, SOURCE) == f"result of {builder}"
    assert calls["build_backbone"] == [((recipe, stride), {})]
    assert calls.pop(builder) == [(("result of build_backbone", 3), options)]


TRAIN = {
    **TRAIN_CONFIG,
    **{"crop_size": 32, "scale": (0.5, 2.0), "base_size": 0},
}


@pytest.mark.parametrize(
    ("changes", "arguments", "changed"),
    [
        ({}, (), {}),
        ({"image_size": 48}, (), {"crop_size": 48}),
        ({"min_zoom": 0.7, "max_zoom": 1.3}, (), {"scale": (0.7, 1.3)}),
        ({"base_size": 99}, (), {"base_size": 99}),
        ({"seed": 5, "flip": False}, (None, 2, 3), {"seed": 5, "flip": False, "first_epoch": 2, "first_step": 3}),
        ({}, (ONE,), {"worker": 1, "workers": 2}),
    ],
    ids=str,
)
def test_training_data_follow_the_recipe(changes, arguments, changed, monkeypatch):
    calls = record(monkeypatch, "segmentation_train_pipeline", "batches")
    assert TASK.training_data(dataclasses.replace(RECIPE, **changes), SOURCE, "the log", *arguments) == "batches"
    assert config_of(SOURCE, calls) == {**TRAIN, **changed}


@pytest.mark.parametrize(("arguments", "changed"), [((), {}), ((ONE,), {"worker": 1, "workers": 2})])
def test_evaluation_data_follow_the_recipe(arguments, changed, monkeypatch):
    calls = record(monkeypatch, "segmentation_eval_pipeline", "batches")
    recipe = dataclasses.replace(RECIPE, ram_budget=77)
    assert TASK.evaluation_data(recipe, SOURCE, "the log", *arguments) == "batches"
    expected = {"batch_size": 4, "corrupt": "the log", "dtype": "float32", "ram_budget": 77, "worker": 0, "workers": 1}
    assert config_of(SOURCE, calls) == {**expected, "size": None, "multiple": 1, **changed}


def test_the_losses_and_the_trainee():
    losses = TASK.build_losses(SOURCE)
    assert type(losses["loss"]) is task.PixelCrossentropy
    assert [metric.name for metric in losses["weighted_metrics"]] == ["mean_iou", "pixel_accuracy", "cross_entropy"]
    assert [metric.classes for metric in losses["weighted_metrics"][:2]] == [3, 3]
    assert TASK.load_teacher(RECIPE, SOURCE, None) is None and TASK.build_step_transform(RECIPE) is None


rng = np.random.default_rng(0)
LOGITS = rng.normal(size=(3, 4, 5, 3)).astype("float32")
MASKS = rng.integers(0, 3, (3, 4, 5)).astype("int32")
MASKS[0, :2] = 255


@pytest.mark.parametrize("weights", [None, (1, 0, 1)])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_the_cross_entropy_is_the_mean_over_valid_pixels(weights, dtype):
    logits = LOGITS.astype(dtype)
    metric = PixelEntropy()
    for row in range(3):  # a mean over pixels, not over batches
        own = slice(row, row + 1)
        metric.update_state(MASKS[own], logits[own], None if weights is None else np.array(weights[own]))
    wide = logits.astype("float64")
    log_p = wide - np.log(np.exp(wide).sum(-1, keepdims=True))
    losses = -np.take_along_axis(log_p, np.where(MASKS == 255, 0, MASKS)[..., None], -1)[..., 0]
    valid = (MASKS != 255) & (np.array(weights or (1, 1, 1)) > 0)[:, None, None]
    assert float(metric.result()) == pytest.approx(losses[valid].mean(), rel=1e-6)
    assert metric.name == "cross_entropy" and metric.dtype == "float32"


def data(batch=2, weights=(1, 1, 0)):
    images = tf.zeros([3, 4, 5, 3])
    return tf.data.Dataset.from_tensor_slices((images, MASKS, np.array(weights, "float32"))).batch(batch)


def predictions():
    """Returns a function that predicts `LOGITS` batch by batch."""
    batches = iter(np.split(LOGITS, [2]))
    return lambda images: next(batches)


def test_the_figures_count_the_images_of_weight_1():
    figures = measure(predictions(), SOURCE, data())
    guess, truth = LOGITS[:2].argmax(-1), MASKS[:2]
    valid = truth != 255
    ious = [
        ((guess == k) & (truth == k) & valid).sum() / (((guess == k) | (truth == k)) & valid).sum() for k in range(3)
    ]
    assert figures["mean_iou"] == pytest.approx(np.mean(ious))
    assert figures["per_class"] == pytest.approx(dict(zip(SOURCE.class_names, ious, strict=True)))
    assert figures["pixel_accuracy"] == pytest.approx((guess == truth)[valid].mean())


def test_the_truth_and_the_prediction_of_each_image_are_drawn(monkeypatch):
    drawn = []
    monkeypatch.setattr(
        task, "draw_mask", lambda *arguments, **options: drawn.append((arguments, options)) or "picture"
    )
    assert draw_masks(lambda images: LOGITS[:2], data(), SOURCE) == ["picture"] * 4
    guess = LOGITS[:2].argmax(-1)
    for row in range(2):
        (image, truth, names), options = drawn[2 * row]
        np.testing.assert_array_equal(truth, MASKS[row])
        np.testing.assert_array_equal(drawn[2 * row + 1][0][1], np.where(MASKS[row] == 255, 255, guess[row]))
        np.testing.assert_array_equal(image[0, 0], [124, 117, 104])  # denormalised
        assert names == SOURCE.class_names and options["colors"] is SOURCE.palette


def keep_figures(monkeypatch):
    """Returns a KeepFigures and the calls of `picture_grid`."""
    monkeypatch.setattr(task, "draw_masks", lambda *_: ["truth", "guess"] * 2)
    return KeepFigures(SOURCE, data), record(monkeypatch, "picture_grid")


def trainee_with(iou):
    """Returns a model whose second metric is the compiled one, as in Keras."""
    return types.SimpleNamespace(metrics=[None, types.SimpleNamespace(metrics=[metrics.PixelAccuracy(3), iou])])


def test_the_table_has_the_last_evaluations_figures(tmp_path, monkeypatch):
    kept, grids = keep_figures(monkeypatch)
    iou = metrics.MeanIoU(3)
    iou.update_state(MASKS, LOGITS)
    kept.set_model(trainee_with(iou))
    kept.on_epoch_end(0, {})
    kept.report(lambda images, training: None, tmp_path)
    expected = metrics.table(metrics.figures(iou.confusion(), SOURCE.class_names))
    assert (tmp_path / "table.md").read_text() == expected + "\n"
    pictures = ["truth", "guess"] * 2
    options = {"columns": 4, "titles": ["truth", "prediction"] * 2}
    assert grids == [((pictures, tmp_path / "predictions.png"), options)]


def test_a_resumed_run_without_an_evaluation_measures_for_the_table(tmp_path, monkeypatch):
    kept, _ = keep_figures(monkeypatch)
    monkeypatch.setattr(task.tf, "function", lambda function: function)
    predict = predictions()
    kept.report(lambda images, training: predict(images), tmp_path)
    expected = metrics.table(measure(predictions(), SOURCE, data()))
    assert (tmp_path / "table.md").read_text() == expected + "\n"


def test_the_evaluator_measures_on_the_recipes_data(monkeypatch):
    calls = record(monkeypatch, "segmentation_eval_pipeline", "batches")
    evaluator = TASK.build_evaluator(RECIPE, SOURCE, "the log")
    assert evaluator._build_data() == "batches" and evaluator._source is SOURCE
    assert config_of(SOURCE, calls)["corrupt"] == "the log"


def build(classes):
    inputs = keras.Input((None, None, 3))
    return keras.Model(inputs, keras.layers.Conv2D(classes, 1)(inputs), name="segmenter")


def test_a_file_is_evaluated(monkeypatch):
    loads = record(monkeypatch, "load_trained", build(3))
    measured = record(monkeypatch, "measure", {"mean_iou": 0.5})
    record(monkeypatch, "segmentation_eval_pipeline", "batches")
    assert TASK.evaluate(RECIPE, "model.keras", SOURCE, None) == {"mean_iou": 0.5}
    assert loads == [(("model.keras", "segmentation"), {})] and measured[0][0][1:] == (SOURCE, "batches")


def test_a_file_with_other_classes_is_refused(monkeypatch):
    record(monkeypatch, "load_trained", build(4))
    message = "The network in model.keras has 4 classes, but scenes has 3. Evaluate it"
    with pytest.raises(MisuseError, match=f"^{re.escape(message)} on the data set that it was trained on"):
        TASK.evaluate(RECIPE, "model.keras", SOURCE, None)


def test_the_saved_network_returns_the_logits_alone(tmp_path):
    inputs = keras.Input((None, None, 3))
    logits, aux = (keras.layers.Conv2D(3, 1, name=name)(inputs) for name in ("logits", "aux"))
    network = keras.Model(inputs, {"logits": logits, "aux": aux}, name="fcn")
    TASK.save(network, tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    images = rng.normal(size=(1, 4, 4, 3)).astype("float32")
    np.testing.assert_allclose(loaded(images), network(images)["logits"], rtol=1e-6)
    assert loaded.name == "fcn_logits"
