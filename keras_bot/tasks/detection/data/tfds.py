"""TensorFlow Datasets (TFDS) with boxes, such as `voc/2007` and `coco/2017`, read as encoded bytes.

A set has an `image` and `objects`, a sequence with a `bbox` (relative to the image) and a `label`, optionally with
`is_difficult` or `is_crowd`. Opening a set reads all records once, for their boxes.
"""

import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from keras_bot.data import decode
from keras_bot.data.sources import tfds as tfds_set
from keras_bot.data.sources.base import run_error
from keras_bot.data.sources.record_files import Reading, record_keys, record_name
from keras_bot.errors import MisuseError, RunError
from keras_bot.tasks.detection.data.annotations import Example, unknown_class
from keras_bot.tasks.detection.data.sets import DetectionSet

_MARKS = ("is_difficult", "is_crowd")


def read_tfds_detection(
    dataset: str, split: str, data_dir: str | None = None, class_names: Sequence[str] | None = None
) -> DetectionSet:
    """Reads one split.

    Args:
        dataset: TFDS name, also "name/config:version"; prepared on first use.
        split: a TFDS split, also like "train[:90%]" or "train+validation"; "eval" as in `tfds_set.split_info`.
        data_dir: directory of TFDS data; None uses TFDS's default.
        class_names: see `open_detection`; must include all class names of the set.

    Raises:
        MisuseError: If the name or split is unknown, or the set needs a manual download or has other features.
        RunError: If the set could not be downloaded or prepared, or one of its files is damaged.
    """
    builder = tfds_set.prepare(dataset, data_dir)
    features = builder.info.features
    names, mark = _form(dataset, features)
    classes = names if class_names is None else list(class_names)
    for name in names:
        if name not in classes:
            raise unknown_class(f"TFDS set {dataset!r}", name, classes)
    files = tfds_set.record_files(tfds_set.split_info(builder, dataset, split))
    numbers = np.array([classes.index(name) for name in names], np.int32)
    # TFDS's voc keeps the xmin and ymin of the XML files, which count from 1.
    shift = 1.0 if builder.name == "voc" else 0.0
    image = tfds_set.parser(features, {"image": True})
    objects = {"bbox": True, "label": True, **({mark: True} if mark else {})}
    whole = tfds_set.parser(features, {"image": True, "objects": objects})
    keys = record_keys(files, Reading())
    examples = _scan(f"{dataset} {split}", keys(None, 1), whole, mark, numbers, shift)
    return DetectionSet(
        f"{dataset} {split}",
        tuple(classes),
        tuple(examples),
        train_on_difficult=mark != "is_crowd",
        files=tuple((records, os.path.basename(records.path)) for records in files),
        image_of=lambda serialized: image(serialized)["image"],
    )


def _form(dataset: str, features: Any) -> tuple[list[str], str]:
    """Returns the class names, and which of `_MARKS` the objects have, or ""."""
    import tensorflow_datasets as tfds

    parts = dict(features.items()) if isinstance(features, tfds.features.FeaturesDict) else {}
    objects = dict(getattr(getattr(parts.get("objects"), "feature", None), "items", dict)())
    box, label = objects.get("bbox"), objects.get("label")
    has_boxes = isinstance(parts.get("image"), tfds.features.Image) and isinstance(box, tfds.features.BBoxFeature)
    if not has_boxes or not isinstance(label, tfds.features.ClassLabel):
        raise MisuseError(
            f"TFDS set {dataset!r} has the features {', '.join(parts) or repr(features)}. Detection needs an Image "
            "`image` and a Sequence `objects` with a BBoxFeature `bbox` and a ClassLabel `label`. Use another set."
        )
    return list(label.names), next((mark for mark in _MARKS if mark in objects), "")


def _scan(
    name: str, keys: tf.data.Dataset, parse: Callable, mark: str, numbers: np.ndarray, shift: float
) -> list[Example]:
    """Reads all annotations in their natural order.

    Args:
        name: name of the set, for messages.
        keys: keys of all records.
        parse: serialised record -> its `image` and `objects`.
        mark: name of the feature that marks objects as difficult, or "".
        numbers: class number of each label.
        shift: subtracted from the top left corners, in pixels.
    """

    def shape_of(image: tf.Tensor) -> tf.Tensor:
        return tf.cond(
            tf.io.is_jpeg(image), lambda: decode.jpeg_shape(image), lambda: tf.shape(decode.decode(image))[:2]
        )

    def describe(serialized: tf.Tensor, file: tf.Tensor, index: tf.Tensor) -> tuple:
        record = parse(serialized)
        objects = record["objects"]
        marks = objects[mark] if mark else tf.zeros_like(objects["label"], tf.bool)
        return record_name(file, index), shape_of(record["image"]), objects["bbox"], objects["label"], marks

    examples = []
    described = keys.map(describe, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    try:
        for record, (height, width), boxes, labels, marks in described.as_numpy_iterator():
            # Computed in float64 and rounded, so that integer pixel coordinates stay integers.
            boxes = np.round(boxes.astype(np.float64) * [height, width, height, width], 3)
            sized = (boxes[:, 2:] > boxes[:, :2]).all(axis=1, keepdims=True)
            boxes = boxes - np.where(sized, [shift, shift, 0.0, 0.0], 0.0)
            text = record.decode(errors="replace")
            classes = numbers[labels.astype(np.int64)]
            examples.append(Example(text, "", int(height), int(width), boxes.astype(np.float32), classes, marks > 0))
    except tf.errors.OpError as error:
        raise run_error(error) or RunError(
            f"{name}: record {len(examples)} cannot be read: {error.message.splitlines()[0]} Prepare the set again."
        ) from None
    return examples
