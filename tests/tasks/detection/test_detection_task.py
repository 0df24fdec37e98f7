"""Detection passes each field of the recipe to its source, detector and pipelines, and measures in original pixels."""

import dataclasses
import re
import types

import numpy as np
import pytest
import tensorflow as tf
from pipeline_calls import TRAIN_CONFIG, config_of

from keras_bot.errors import MisuseError
from keras_bot.recipe import Recipe
from keras_bot.tasks import find_task
from keras_bot.tasks.detection import task
from keras_bot.tasks.detection.metrics import AREA, ELEVEN_POINT, CocoMap, VocMap
from keras_bot.tasks.detection.task import Detection, EvaluateBoxes, draw_found, measure

RECIPE = Recipe(task="detection", dataset="scenes+more", batch_size=4, image_size=32)
TASK = Detection()
ONE = types.SimpleNamespace(worker=1, workers=2, replicas=2)
BOXES = np.array([[10, 20, 30, 40], [0, 0, 10, 10]], "float32")
CLASSES = np.array([1, 0], "int32")


class FakeAnnotations:
    """Image 7 has two objects, any other image has none."""

    def of(self, index):
        count = 2 if index == 7 else 0
        return BOXES[:count], CLASSES[:count], np.zeros(count, bool)


SOURCE = types.SimpleNamespace(
    name="scenes", num_classes=2, class_names=("blue", "red"), size=3, annotations=FakeAnnotations()
)


def record(monkeypatch, name, result=None):
    """Replaces a function of the module by one that returns `result`; returns the list of its calls."""
    calls = []
    monkeypatch.setattr(task, name, lambda *args, **options: calls.append((args, options)) or result)
    return calls


def test_the_task_has_its_name_and_metric():
    assert (TASK.name, TASK.metrics) == ("detection", ("map",)) and type(find_task("detection")) is Detection


@pytest.mark.parametrize(
    ("changes", "split", "class_names", "arguments", "options"),
    [
        ({}, "train", (), ("scenes+more", "train"), {}),
        ({}, "eval", (), ("scenes", "eval"), {}),  # the first of several sets
        ({"train_split": "a", "eval_split": "b"}, "train", (), ("scenes+more", "a"), {}),
        ({"train_split": "a", "eval_split": "b"}, "eval", (), ("scenes", "b"), {}),
        ({"data_dir": "/data", "num_classes": 2}, "train", (), ("scenes+more", "train"), {"data_dir": "/data"}),
        ({}, "eval", ("x",), ("scenes", "eval"), {"class_names": ("x",)}),
    ],
)
def test_the_source_is_opened_as_the_recipe_sets(changes, split, class_names, arguments, options, monkeypatch):
    calls = record(monkeypatch, "open_detection", SOURCE)
    assert TASK.open_source(dataclasses.replace(RECIPE, **changes), split, class_names=class_names) is SOURCE
    assert calls == [(arguments, {"data_dir": None, "class_names": None, **options})]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_classes": 3}, "--num_classes=3 does not match scenes, which has 2 classes. Drop the flag."),
        (
            {"head": "fcn"},
            "--head must be faster_rcnn, faster_rcnn_c4 or retinanet for --task=detection, received fcn.",
        ),
        ({"layer_decay": 0.9}, "--layer_decay is not supported for --task=detection. Use --frozen_stages instead."),
        ({"output_stride": 16}, "--output_stride must be 32 for --head=faster_rcnn, received 16."),
        ({"output_stride": 8, "head": "retinanet"}, "--output_stride must be 32 for --head=retinanet, received 8."),
        (
            {"output_stride": 8, "head": "faster_rcnn_c4"},
            "--output_stride must be 16 or 32 for --head=faster_rcnn_c4, received 8.",
        ),
    ],
    ids=str,
)
def test_a_recipe_that_detection_does_not_support_is_refused(changes, message, monkeypatch):
    record(monkeypatch, "open_detection", SOURCE)
    with pytest.raises(MisuseError, match=f"^{re.escape(message)}$"):
        TASK.open_source(dataclasses.replace(RECIPE, **changes), "train")


@pytest.mark.parametrize(
    ("head", "stride"), [("faster_rcnn_c4", 16), ("faster_rcnn_c4", 32), ("retinanet", 32), ("", 0)]
)
def test_the_strides_of_each_head_are_accepted(head, stride, monkeypatch):
    record(monkeypatch, "open_detection", SOURCE)
    TASK.open_source(dataclasses.replace(RECIPE, head=head, output_stride=stride), "train")


def test_one_annotation_file_is_not_used_for_training_and_evaluation(tmp_path, monkeypatch):
    record(monkeypatch, "open_detection", SOURCE)
    (tmp_path / "train.json").touch()
    recipe = dataclasses.replace(RECIPE, dataset=str(tmp_path / "train.json"))
    assert TASK.open_source(recipe, "eval") is SOURCE
    with pytest.raises(MisuseError, match=r"train\.json is one annotation file, which would be used for both"):
        TASK.open_source(recipe, "train")


ANCHORS = [(2 * 2**level,) for level in range(2, 7)]


@pytest.mark.parametrize(
    ("changes", "builder", "options"),
    [
        ({}, "FasterRCNN", {"seed": 5}),
        ({"head": "faster_rcnn"}, "FasterRCNN", {"seed": 5}),
        ({"head_channels": 8}, "FasterRCNN", {"seed": 5, "channels": 8, "head_units": 32}),
        ({"anchor_scale": 2.0}, "FasterRCNN", {"seed": 5, "anchor_sizes": ANCHORS}),
        ({"head": "faster_rcnn_c4"}, "FasterRCNN", {"neck": "c4", "seed": 5}),
        (
            {"head": "faster_rcnn_c4", "head_channels": 8, "anchor_scale": 2.0},
            "FasterRCNN",
            {"neck": "c4", "seed": 5, "channels": 8, "anchor_sizes": [32, 64, 128, 256, 512]},
        ),
        ({"head": "retinanet"}, "RetinaNet", {}),
        (
            {"head": "retinanet", "head_channels": 8, "anchor_scale": 3.0},
            "RetinaNet",
            {"channels": 8, "anchor_scale": 3.0},
        ),
    ],
    ids=str,
)
def test_the_detector_has_the_recipes_head(changes, builder, options, monkeypatch):
    recipe = dataclasses.replace(RECIPE, seed=5, **changes)
    backbones = record(monkeypatch, "build_backbone", "the backbone")
    calls = {name: record(monkeypatch, name, f"a {name}") for name in ("FasterRCNN", "RetinaNet")}
    assert TASK.build_network(recipe, SOURCE) == f"a {builder}"
    assert backbones == [((recipe,), {})]
    assert calls.pop(builder) == [(("the backbone", 2), options)] and calls.popitem()[1] == []


TRAIN = {
    **TRAIN_CONFIG,
    **{"image_size": 32, "resize": "letterbox"},
    **{"min_zoom": 0.5, "max_zoom": 2.0, "min_visible": 0.3, "max_boxes": 0},
}


@pytest.mark.parametrize(
    ("changes", "arguments", "changed"),
    [
        ({}, (), {}),
        ({"image_size": 48}, (), {"image_size": 48}),
        ({"min_zoom": 0.7, "max_zoom": 1.3}, (), {"min_zoom": 0.7, "max_zoom": 1.3}),
        ({"color_jitter": 0.1, "flip": False}, (), {"color_jitter": 0.1, "flip": False}),
        ({"seed": 5}, (None, 2, 3), {"seed": 5, "first_epoch": 2, "first_step": 3}),
        ({}, (ONE,), {"worker": 1, "workers": 2}),
    ],
    ids=str,
)
def test_training_data_follow_the_recipe(changes, arguments, changed, monkeypatch):
    calls = record(monkeypatch, "detection_train_pipeline", "batches")
    assert TASK.training_data(dataclasses.replace(RECIPE, **changes), SOURCE, "the log", *arguments) == "batches"
    assert config_of(SOURCE, calls) == {**TRAIN, **changed}


@pytest.mark.parametrize(("arguments", "changed"), [((), {}), ((ONE,), {"worker": 1, "workers": 2})])
def test_evaluation_data_follow_the_recipe(arguments, changed, monkeypatch):
    calls = record(monkeypatch, "detection_eval_pipeline", "batches")
    recipe = dataclasses.replace(RECIPE, ram_budget=77)
    assert TASK.evaluation_data(recipe, SOURCE, "the log", *arguments) == "batches"
    expected = {"batch_size": 4, "corrupt": "the log", "dtype": "float32", "ram_budget": 77, "worker": 0, "workers": 1}
    assert config_of(SOURCE, calls) == {**expected, "image_size": 32, "resize": "letterbox", **changed}


SCALE = np.array([[0.5, 0.25], [1.0, 1.0]], "float32")  # of the network's input to the original, by y and x


def data():
    """One batch: image 7, halved in height and a quarter as wide, and padding of weight 0."""
    targets = {
        "index": np.array([7, 0]),
        "shape": np.array([[36, 48], [1, 1]], "int32"),
        "scale": SCALE,
    }
    return tf.data.Dataset.from_tensors((np.zeros((2, 32, 32, 3), "float32"), targets, np.array([1.0, 0.0], "float32")))


def predict(images):
    """Finds the objects of image 7, exactly, then one below the image, and one beyond `count`."""
    boxes = np.zeros((2, 4, 4), "float32")
    boxes[0, :2] = BOXES * np.tile(SCALE[0], 2)
    boxes[0, 2] = [15, 2, 40, 20]
    scores, classes = np.array([[0.9, 0.8, 0.5, 0.4]] * 2, "float32"), np.array([[1, 0, 1, 1]] * 2, "int32")
    return {
        name: tf.constant(value)
        for name, value in (
            ("boxes", boxes),
            ("scores", scores),
            ("classes", classes),
            ("count", np.array([3, 4], "int32")),
        )
    }


@pytest.mark.parametrize(
    ("map_metric", "kind", "options"),
    [("voc", "VocMap", {"form": AREA}), ("voc07", "VocMap", {"form": ELEVEN_POINT}), ("coco", "CocoMap", {})],
)
def test_detections_are_measured_in_original_pixels(map_metric, kind, options, monkeypatch):
    added = []
    metric = types.SimpleNamespace(add=lambda *arguments: added.append(arguments), result=lambda: {"map": 0.5})
    calls = record(monkeypatch, kind, metric)
    assert measure(dataclasses.replace(RECIPE, map_metric=map_metric), predict, SOURCE, data()) == {"map": 0.5}
    assert calls == [((("blue", "red"),), options)]
    ((boxes, classes, difficult, found, scores, found_classes),) = added  # the padding is left out
    np.testing.assert_array_equal(boxes, BOXES)
    np.testing.assert_array_equal(classes, CLASSES)
    assert not difficult.any()
    clipped = [30, 8, 36, 48]  # at the original's border
    np.testing.assert_allclose(found, [*BOXES, clipped], rtol=1e-6)
    np.testing.assert_allclose(scores, [0.9, 0.8, 0.5], rtol=1e-6)
    assert found_classes.tolist() == [1, 0, 1]


def test_the_map_of_exact_detections_is_1():
    assert measure(RECIPE, predict, SOURCE, data())["map"] == pytest.approx(1.0)
    assert {type(VocMap(["a"])), type(CocoMap(["a"]))} == {VocMap, CocoMap}


def test_confident_detections_are_drawn_on_the_unpadded_image(monkeypatch):
    drawn = []
    monkeypatch.setattr(task, "draw_boxes", lambda *arguments: drawn.append(arguments) or "picture")
    monkeypatch.setattr(task, "SHOWN_SCORE", 0.6)
    assert draw_found(lambda images: {n: v[:1] for n, v in predict(images).items()}, data(), SOURCE) == ["picture"]
    ((image, boxes, classes, names, scores),) = drawn
    assert image.shape == (18, 12, 3) and image[0, 0].tolist() == [124, 117, 104]
    np.testing.assert_allclose(boxes, BOXES * np.tile(SCALE[0], 2), rtol=1e-6)
    assert classes.tolist() == [1, 0] and names == ("blue", "red") and scores.tolist() == pytest.approx([0.9, 0.8])


def test_the_map_of_each_epoch_is_logged_and_reported(tmp_path, monkeypatch):
    measured = record(monkeypatch, "measure", {"map": 0.25, "per_class": {}})
    monkeypatch.setattr(task, "table", lambda figures: f"table of {figures['map']}")
    monkeypatch.setattr(task, "draw_found", lambda *_: ["picture"])
    monkeypatch.setattr(task.tf, "function", lambda function: function)
    grids = record(monkeypatch, "picture_grid")
    evaluator = EvaluateBoxes(RECIPE, SOURCE, lambda: "batches")
    evaluator.set_model(types.SimpleNamespace(predict_boxes=predict))
    evaluator.on_train_begin()
    logs = {}
    evaluator.on_epoch_end(0, logs)
    assert logs == {"val_map": 0.25}
    evaluator.report(None, tmp_path)
    assert [arguments for arguments, _ in measured] == [(RECIPE, predict, SOURCE, "batches")]
    assert (tmp_path / "table.md").read_text() == "table of 0.25\n"
    assert grids == [((["picture"], tmp_path / "predictions.png"), {"columns": 4})]


def test_a_resumed_run_without_an_evaluation_measures_for_the_table(tmp_path, monkeypatch):
    measured = record(monkeypatch, "measure", {"map": 0.25})
    monkeypatch.setattr(task, "table", lambda figures: "table")
    monkeypatch.setattr(task, "draw_found", lambda *_: [])
    monkeypatch.setattr(task.tf, "function", lambda function: function)
    grids = record(monkeypatch, "picture_grid")
    EvaluateBoxes(RECIPE, SOURCE, lambda: "batches").report(types.SimpleNamespace(predict_boxes=predict), tmp_path)
    assert [arguments for arguments, _ in measured] == [(RECIPE, predict, SOURCE, "batches")] and not grids


def test_the_evaluator_measures_on_the_recipes_data(monkeypatch):
    calls = record(monkeypatch, "detection_eval_pipeline", "batches")
    assert TASK.build_evaluator(RECIPE, SOURCE, "the log")._data == "batches"
    assert config_of(SOURCE, calls)["corrupt"] == "the log"


def test_a_file_is_evaluated(monkeypatch):
    detector = types.SimpleNamespace(num_classes=2, predict_boxes=predict)
    loads = record(monkeypatch, "load_trained", detector)
    measured = record(monkeypatch, "measure", {"map": 0.5})
    record(monkeypatch, "detection_eval_pipeline", "batches")
    assert TASK.evaluate(RECIPE, "model.keras", SOURCE, None) == {"map": 0.5}
    assert loads == [(("model.keras", "detection"), {})]
    recipe, _, source, batches = measured[0][0]
    assert (recipe, source, batches) == (RECIPE, SOURCE, "batches")


def test_a_file_with_other_classes_is_refused(monkeypatch):
    record(monkeypatch, "load_trained", types.SimpleNamespace(num_classes=3))
    message = "The detector in model.keras has 3 classes, but scenes has 2. Evaluate it"
    with pytest.raises(MisuseError, match=f"^{re.escape(message)} on the data set that it was trained on"):
        TASK.evaluate(RECIPE, "model.keras", SOURCE, None)
