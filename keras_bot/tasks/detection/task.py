"""The trainer's object detection task: the paper's Faster R-CNN, or RetinaNet, on a trained backbone (6.1)."""

import functools
import pathlib

import keras
import numpy as np
import tensorflow as tf

from keras_bot import tricks
from keras_bot.atomic_files import write_atomically
from keras_bot.data.augment import color
from keras_bot.errors import MisuseError
from keras_bot.recipe import Recipe
from keras_bot.tasks.base import Task
from keras_bot.tasks.detection import boxes as box_maths
from keras_bot.tasks.detection.data.pipeline import detection_eval_pipeline, detection_train_pipeline
from keras_bot.tasks.detection.data.sets import first_set
from keras_bot.tasks.detection.data.source import open_detection
from keras_bot.tasks.detection.faster_rcnn import FasterRCNN
from keras_bot.tasks.detection.metrics import AREA, ELEVEN_POINT, CocoMap, VocMap, table
from keras_bot.tasks.detection.retinanet import RetinaNet
from keras_bot.tasks.drawing import draw_boxes, picture_grid, spread
from keras_bot.tasks.serving import load_trained
from keras_bot.tasks.setup import build_backbone, check_recipe
from keras_bot.training import assemble

HEADS = ("faster_rcnn", "faster_rcnn_c4", "retinanet")
SHOWN = 12
SHOWN_SCORE = 0.3


def open_source(recipe: Recipe, split: str, strategy=None, class_names: tuple[str, ...] = ()):
    """Opens a split of the recipe's data set; `class_names`, if given, set the order of the classes."""
    check_recipe(recipe, HEADS)
    _check(recipe, split)
    options = {"data_dir": recipe.data_dir or None, "class_names": class_names or None}
    if split == "train":
        source = open_detection(recipe.dataset, recipe.train_split or "train", **options)
    else:
        source = open_detection(first_set(recipe.dataset), recipe.eval_split or "eval", **options)
    if recipe.num_classes not in (0, source.num_classes):
        raise MisuseError(
            f"Expected {recipe.num_classes} classes (num_classes), {source.name} has {source.num_classes}."
        )
    return source


def _check(recipe, split):
    """Raises MisuseError if the recipe uses options or data that detection does not support."""
    if recipe.layer_decay < 1:
        raise MisuseError(f"Expected no --layer_decay for {recipe.task}, received it. Drop it, or freeze stages.")
    strides = (16, 32) if recipe.head == "faster_rcnn_c4" else (32,)
    if recipe.output_stride not in (0, *strides):
        head = recipe.head or HEADS[0]
        raise MisuseError(
            f"Expected --output_stride as {' or '.join(map(str, strides))} for {head}, received {recipe.output_stride}."
        )
    first = first_set(recipe.dataset)
    if split == "train" and pathlib.Path(first).expanduser().is_file():
        raise MisuseError(
            f"Expected a folder with files for training and evaluation, received {first}, which would be both. Name "
            "two files train.json and val.json in a folder, with their images, and give that."
        )


def build(recipe: Recipe, source, strategy) -> tuple[keras.Model, keras.Model]:
    """Builds and compiles the detector."""
    backbone, scale = build_backbone(recipe), recipe.anchor_scale
    options = {"channels": recipe.head_channels} if recipe.head_channels else {}
    if recipe.head == "retinanet":
        options |= {"anchor_scale": scale} if scale else {}
        detector = RetinaNet(backbone, source.num_classes, **options)
    elif recipe.head == "faster_rcnn_c4":
        options |= {"anchor_sizes": [16 * scale * 2**i for i in range(5)]} if scale else {}
        detector = FasterRCNN(backbone, source.num_classes, neck="c4", seed=recipe.seed, **options)
    else:
        options |= {"anchor_sizes": [(scale * 2**level,) for level in range(2, 7)]} if scale else {}
        options |= {"head_units": 4 * recipe.head_channels} if recipe.head_channels else {}
        detector = FasterRCNN(backbone, source.num_classes, seed=recipe.seed, **options)
    schedule = assemble.build_schedule(recipe, assemble.steps_in_epoch(recipe, source, strategy.workers))
    assemble.compile_for(recipe, detector, detector, schedule, strategy)
    return detector, detector


def training_data(recipe: Recipe, source, corrupt, *, first_epoch=0, first_step=0, strategy=None) -> tf.data.Dataset:
    """Returns batches of augmented images with their boxes."""
    return detection_train_pipeline(
        source,
        **assemble.stream_options(recipe, corrupt, first_epoch, first_step, strategy),
        image_size=recipe.image_size,
        min_zoom=recipe.min_zoom,
        max_zoom=recipe.max_zoom,
    )


def evaluation_data(recipe: Recipe, source, corrupt, strategy=None) -> tf.data.Dataset:
    """Returns batches of whole images, with the scale and shape to map boxes to original pixels."""
    return detection_eval_pipeline(
        source,
        batch_size=recipe.batch_size,
        image_size=recipe.image_size,
        corrupt=corrupt,
        ram_budget=recipe.ram_budget,
        **assemble.sharing(strategy),
    )


class EvaluateBoxes(keras.callbacks.Callback):
    """Callback that logs the mAP over the whole set as "val_map" after each epoch, in pixels of the original images."""

    def __init__(self, recipe: Recipe, source, corrupt):
        super().__init__()
        self._recipe, self._source, self._corrupt = recipe, source, corrupt
        self._figures = self._predict = None

    @functools.cached_property
    def _data(self):
        return evaluation_data(self._recipe, self._source, self._corrupt)

    def on_train_begin(self, logs=None):  # noqa: D102
        self._predict = tf.function(self.model.predict_boxes)

    def on_epoch_end(self, epoch, logs=None):  # noqa: D102
        self._figures = measure(self._recipe, self._predict, self._source, self._data)
        logs["val_map"] = self._figures["map"]

    def report(self, trainee: keras.Model, folder: pathlib.Path):
        """Writes table.md, with per-class average precision, and predictions.png, with detections on images."""
        predict = self._predict or tf.function(trainee.predict_boxes)
        figures = self._figures or measure(self._recipe, predict, self._source, self._data)
        write_atomically(folder / "table.md", table(figures) + "\n")
        pictures = draw_found(predict, self._data, self._source)
        if pictures:
            picture_grid(pictures, folder / "predictions.png", columns=4)


def draw_found(predict, data: tf.data.Dataset, source) -> list[np.ndarray]:
    """Draws detections on images spread over the whole set, from the batches of `evaluation_data`."""
    pictures = []
    for images, targets, _ in spread(data, source.size, SHOWN):
        found = {name: value.numpy() for name, value in predict(images).items()}
        sizes = np.ceil(targets["shape"].numpy() * targets["scale"].numpy()).astype(int)
        for row, (image, (height, width)) in enumerate(zip(color.denormalise(images.numpy()), sizes, strict=True)):
            shown = found["scores"][row] >= SHOWN_SCORE
            boxes, classes, scores = (found[name][row][shown] for name in ("boxes", "classes", "scores"))
            pictures.append(draw_boxes(image[:height, :width], boxes, classes, source.class_names, scores))
    return pictures


def measure(recipe: Recipe, predict, source, data: tf.data.Dataset) -> dict:
    """Computes the mAP and the average precision of each class; see `detection_metrics`.

    Args:
        recipe: its `map_metric` selects the kind of mAP.
        predict: `predict_boxes` of a detector.
        source: source of the images.
        data: batches of `evaluation_data`.
    """
    if recipe.map_metric == "coco":
        metric = CocoMap(source.class_names)
    else:
        metric = VocMap(source.class_names, form=ELEVEN_POINT if recipe.map_metric == "voc07" else AREA)
    for images, targets, weights in data:
        found = predict(images)
        scaled = box_maths.scale(found["boxes"], 1.0 / targets["scale"][:, None]).numpy()
        for row in np.flatnonzero(weights.numpy()):
            own = slice(int(found["count"][row]))
            truth = source.annotations.of(int(targets["index"][row]))
            shape = targets["shape"][row].numpy()
            clipped = np.clip(scaled[row][own], 0, [*shape, *shape])
            metric.add(*truth, clipped, found["scores"][row].numpy()[own], found["classes"][row].numpy()[own])
    return metric.result()


def evaluate(recipe: Recipe, path: pathlib.Path, source, corrupt) -> dict:
    """Evaluates a saved detector. Raises MisuseError if the file is unusable or its number of classes differs."""
    detector = load_trained(path, recipe.task)
    if detector.num_classes != source.num_classes:
        raise MisuseError(
            f"Expected a detector of {source.num_classes} classes, as {source.name} has; {path} has "
            f"{detector.num_classes}. Choose the data that it was trained on."
        )
    return measure(recipe, tf.function(detector.predict_boxes), source, evaluation_data(recipe, source, corrupt))


def save(detector: keras.Model, path: pathlib.Path):
    """Saves the detector uncompiled, in float32."""
    with tricks.mixed_precision("float32"):
        backbone = tricks.recast(detector.backbone, "float32")
        copy = type(detector)(backbone, **detector.settings, name=detector.name)
    copy.set_weights(detector.get_weights())
    copy.save(path)


DETECTION = Task(
    name="detection",
    metrics=("map",),
    open_source=open_source,
    build=build,
    training_data=training_data,
    evaluation_data=evaluation_data,
    save=save,
    evaluate=evaluate,
    evaluator=EvaluateBoxes,
)
