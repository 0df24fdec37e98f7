"""The trainer's object detection task: the paper's Faster R-CNN, or RetinaNet, on a trained backbone (6.1)."""

import functools
import pathlib
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_bot import tricks
from keras_bot.atomic_files import write_atomically
from keras_bot.data.augment import color
from keras_bot.data.corrupt import CorruptLog
from keras_bot.errors import MisuseError
from keras_bot.recipe import Recipe
from keras_bot.surgery import recast
from keras_bot.tasks.backbone import build_backbone, check_recipe
from keras_bot.tasks.base import Task
from keras_bot.tasks.detection import box_ops
from keras_bot.tasks.detection.data.factory import open_detection
from keras_bot.tasks.detection.data.pipeline import (
    DetectionEvalConfig,
    DetectionTrainConfig,
    detection_eval_pipeline,
    detection_train_pipeline,
)
from keras_bot.tasks.detection.data.sets import first_set
from keras_bot.tasks.detection.data.source import DetectionSource
from keras_bot.tasks.detection.faster_rcnn import FasterRCNN
from keras_bot.tasks.detection.metrics import AREA, ELEVEN_POINT, CocoMap, VocMap, table
from keras_bot.tasks.detection.retinanet import RetinaNet
from keras_bot.tasks.drawing import draw_boxes, picture_grid, spread
from keras_bot.tasks.serving import load_trained
from keras_bot.training import batches
from keras_bot.training.distributed.strategy import Strategy

HEADS = ("faster_rcnn", "faster_rcnn_c4", "retinanet")
SHOWN = 12
SHOWN_SCORE = 0.3


class Detection(Task):
    """Object detection with a head on a trained backbone."""

    name = "detection"
    metrics = ("map",)

    def open_source(
        self, recipe: Recipe, split: str, strategy: Strategy | None = None, class_names: tuple[str, ...] = ()
    ) -> DetectionSource:
        """Opens a split of the recipe's data set; `class_names`, if given, set the order of the classes."""
        check_recipe(recipe, HEADS)
        _check(recipe, split)
        options: dict[str, Any] = {"data_dir": recipe.data_dir or None, "class_names": class_names or None}
        if split == "train":
            source = open_detection(recipe.dataset, recipe.train_split or "train", **options)
        else:
            source = open_detection(first_set(recipe.dataset), recipe.eval_split or "eval", **options)
        if recipe.num_classes not in (0, source.num_classes):
            raise MisuseError(
                f"--num_classes={recipe.num_classes} does not match {source.name}, which has {source.num_classes} "
                "classes. Drop the flag."
            )
        return source

    def build_network(self, recipe: Recipe, source: DetectionSource) -> keras.Model:
        """Builds the detector, which computes its own losses."""
        backbone, scale = build_backbone(recipe), recipe.anchor_scale
        options: dict[str, Any] = {"channels": recipe.head_channels} if recipe.head_channels else {}
        if recipe.head == "retinanet":
            options |= {"anchor_scale": scale} if scale else {}
            return RetinaNet(backbone, source.num_classes, **options)
        if recipe.head == "faster_rcnn_c4":
            options |= {"anchor_sizes": [16 * scale * 2**i for i in range(5)]} if scale else {}
            return FasterRCNN(backbone, source.num_classes, neck="c4", seed=recipe.seed, **options)
        options |= {"anchor_sizes": [(scale * 2**level,) for level in range(2, 7)]} if scale else {}
        options |= {"head_units": 4 * recipe.head_channels} if recipe.head_channels else {}
        return FasterRCNN(backbone, source.num_classes, seed=recipe.seed, **options)

    def training_data(
        self,
        recipe: Recipe,
        source: DetectionSource,
        corrupt: CorruptLog,
        strategy: Strategy | None = None,
        first_epoch: int = 0,
        first_step: int = 0,
    ) -> tf.data.Dataset:
        """Returns batches of augmented images with their boxes."""
        config = DetectionTrainConfig(
            **batches.stream_options(recipe, corrupt, first_epoch, first_step, strategy),
            image_size=recipe.image_size,
            min_zoom=recipe.min_zoom,
            max_zoom=recipe.max_zoom,
        )
        return detection_train_pipeline(source, config)

    def evaluation_data(
        self, recipe: Recipe, source: DetectionSource, corrupt: CorruptLog, strategy: Strategy | None = None
    ) -> tf.data.Dataset:
        """Returns batches of whole images, with the scale and shape to map boxes to original pixels."""
        config = DetectionEvalConfig(
            batch_size=recipe.batch_size,
            image_size=recipe.image_size,
            corrupt=corrupt,
            ram_budget=recipe.ram_budget,
            **batches.sharing(strategy),
        )
        return detection_eval_pipeline(source, config)

    def build_evaluator(self, recipe: Recipe, source: DetectionSource, corrupt: CorruptLog) -> keras.callbacks.Callback:
        """Returns the callback that computes the mAP."""
        return EvaluateBoxes(recipe, source, functools.partial(self.evaluation_data, recipe, source, corrupt))

    def save(self, network: keras.Model, path: pathlib.Path) -> None:
        """Saves the detector uncompiled, in float32."""
        with tricks.mixed_precision("float32"):
            backbone = recast(network.backbone, "float32")
            copy = type(network)(backbone, **network.settings, name=network.name)
        copy.set_weights(network.get_weights())
        copy.save(path)

    def evaluate(
        self, recipe: Recipe, path: pathlib.Path, source: DetectionSource, corrupt: CorruptLog
    ) -> dict[str, Any]:
        """Evaluates a saved detector."""
        detector = load_trained(path, recipe.task)
        if detector.num_classes != source.num_classes:
            raise MisuseError(
                f"The detector in {path} has {detector.num_classes} classes, but {source.name} has "
                f"{source.num_classes}. Evaluate it on the data set that it was trained on."
            )
        predict = tf.function(detector.predict_boxes)
        return measure(recipe, predict, source, self.evaluation_data(recipe, source, corrupt))


def _check(recipe, split):
    """Raises MisuseError if the recipe uses options or data that detection does not support."""
    if recipe.layer_decay < 1:
        raise MisuseError(f"--layer_decay is not supported for --task={recipe.task}. Use --frozen_stages instead.")
    strides = (16, 32) if recipe.head == "faster_rcnn_c4" else (32,)
    if recipe.output_stride not in (0, *strides):
        head = recipe.head or HEADS[0]
        raise MisuseError(
            f"--output_stride must be {' or '.join(map(str, strides))} for --head={head}, received "
            f"{recipe.output_stride}."
        )
    first = first_set(recipe.dataset)
    if split == "train" and pathlib.Path(first).expanduser().is_file():
        raise MisuseError(
            f"{first} is one annotation file, which would be used for both training and evaluation. Pass a folder that "
            "contains train.json, val.json and the images."
        )


class EvaluateBoxes(keras.callbacks.Callback):
    """Callback that logs the mAP over the whole set as "val_map" after each epoch, in pixels of the original images."""

    def __init__(self, recipe: Recipe, source: DetectionSource, build_data: Callable[[], tf.data.Dataset]) -> None:
        super().__init__()
        self._recipe, self._source, self._build_data = recipe, source, build_data
        self._figures: dict[str, Any] | None = None
        self._predict: Any = None

    @functools.cached_property
    def _data(self):
        return self._build_data()

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:  # noqa: D102
        self._predict = tf.function(self.model.predict_boxes)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any]) -> None:  # noqa: D102
        figures = measure(self._recipe, self._predict, self._source, self._data)
        self._figures, logs["val_map"] = figures, figures["map"]

    def report(self, trainee: keras.Model, folder: pathlib.Path) -> None:
        """Writes table.md, with per-class average precision, and predictions.png, with detections on images."""
        predict = self._predict or tf.function(trainee.predict_boxes)
        figures = self._figures or measure(self._recipe, predict, self._source, self._data)
        write_atomically(folder / "table.md", table(figures) + "\n")
        pictures = draw_found(predict, self._data, self._source)
        if pictures:
            picture_grid(pictures, folder / "predictions.png", columns=4)


def draw_found(
    predict: Callable[[tf.Tensor], dict[str, tf.Tensor]], data: tf.data.Dataset, source: DetectionSource
) -> list[np.ndarray]:
    """Draws detections on images spread over the whole set, from the batches of `Detection.evaluation_data`."""
    pictures = []
    for images, targets, _ in spread(data, source.size, SHOWN):
        found = {name: value.numpy() for name, value in predict(images).items()}
        sizes = np.ceil(targets["shape"].numpy() * targets["scale"].numpy()).astype(int)
        for row, (image, (height, width)) in enumerate(zip(color.denormalise(images.numpy()), sizes, strict=True)):
            shown = found["scores"][row] >= SHOWN_SCORE
            boxes, classes, scores = (found[name][row][shown] for name in ("boxes", "classes", "scores"))
            pictures.append(draw_boxes(image[:height, :width], boxes, classes, source.class_names, scores))
    return pictures


def measure(
    recipe: Recipe,
    predict: Callable[[tf.Tensor], dict[str, tf.Tensor]],
    source: DetectionSource,
    data: tf.data.Dataset,
) -> dict[str, Any]:
    """Computes the mAP and the average precision of each class; see `metrics`.

    Args:
        recipe: its `map_metric` selects the kind of mAP.
        predict: `predict_boxes` of a detector.
        source: source of the images.
        data: batches of `Detection.evaluation_data`.
    """
    metric: CocoMap | VocMap
    if recipe.map_metric == "coco":
        metric = CocoMap(source.class_names)
    else:
        metric = VocMap(source.class_names, form=ELEVEN_POINT if recipe.map_metric == "voc07" else AREA)
    for images, targets, weights in data:
        found = predict(images)
        scaled = box_ops.scale(found["boxes"], 1.0 / targets["scale"][:, None]).numpy()
        for row in np.flatnonzero(weights.numpy()):
            own = slice(int(found["count"][row]))
            truth = source.annotations.of(int(targets["index"][row]))
            shape = targets["shape"][row].numpy()
            clipped = np.clip(scaled[row][own], 0, [*shape, *shape])
            metric.add(*truth, clipped, found["scores"][row].numpy()[own], found["classes"][row].numpy()[own])
    return metric.result()
