"""TensorFlow Datasets with boxes, such as `voc/2007` and `coco/2017`, read as encoded bytes.

A set has an `image` and `objects`, a sequence with a `bbox` (relative to the image) and a `label`, perhaps with
`is_difficult` or `is_crowd`. All records are read once when it is opened, for their boxes.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from keras_bot.data import decode, tfds_set
from keras_bot.data.record_files import Reading, Records, record_keys, record_name
from keras_bot.data.source import cpu_constant, run_error
from keras_bot.errors import MisuseError, RunError, unknown
from keras_bot.transfer.detection_source import DetectionSource, Example, lookup, mend

_MARKS = ("is_difficult", "is_crowd")


def open_tfds_detection(
    dataset: str, split: str, data_dir: str | None = None, class_names: Sequence[str] | None = None
) -> DetectionSource:
    """Open one split.

    Args:
        dataset: TFDS name, also "name/config:version"; prepared on first use.
        split: a TFDS split, also like "train[:90%]" or "train+validation".
        data_dir: where TFDS keeps its data; None is TFDS's own default.
        class_names: see `open_detection`; all names of the set must be among them.

    Raises:
        MisuseError: unknown name or split, a set that needs a manual download, or one of another form.
        RunError: the set could not be downloaded or prepared, or a file of it is damaged.
    """
    builder = tfds_set._prepared(dataset, data_dir)
    features = builder.info.features
    names, mark = _form(dataset, features)
    classes = names if class_names is None else list(class_names)
    for name in names:
        if name not in classes:
            raise MisuseError(f"TFDS set {dataset!r}: {unknown('class', name, classes)}")
    info = tfds_set._split(builder, dataset, split, split)
    files = [Records(str(i.filename), i.skip, i.take) for i in info.file_instructions]
    keys = record_keys(files, Reading())
    parse = _parser(features, mark)
    numbers = np.array([classes.index(name) for name in names], np.int32)
    # TFDS's voc keeps the file's xmin, which counts from 1.
    shift = 1.0 if builder.name == "voc" else 0.0
    examples = _scan(f"{dataset} {split}", keys(None, 1), parse, numbers, shift)
    annotations, dropped, clipped = mend(f"{dataset} {split}", examples, classes)
    find, place = lookup(annotations), _place(files)

    def read(serialized: tf.Tensor, file: tf.Tensor, index: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"image": parse(serialized)["image"], **find(place(file, index))}

    return DetectionSource(
        name=f"{dataset} {split}",
        class_names=tuple(classes),
        size=len(annotations),
        annotations=annotations,
        keys=keys,
        read=read,
        record_name=lambda serialized, file, index: record_name(file, index),
        dropped=dropped,
        clipped=clipped,
        train_on_difficult=mark != "is_crowd",
    )


def _form(dataset: str, features: Any) -> tuple[list[str], str]:
    """The names of the classes, and which of `_MARKS` the objects have, or ""."""
    import tensorflow_datasets as tfds

    parts = dict(features.items()) if isinstance(features, tfds.features.FeaturesDict) else {}
    objects = dict(getattr(getattr(parts.get("objects"), "feature", None), "items", dict)())
    box, label = objects.get("bbox"), objects.get("label")
    right = isinstance(parts.get("image"), tfds.features.Image) and isinstance(box, tfds.features.BBoxFeature)
    if not right or not isinstance(label, tfds.features.ClassLabel):
        raise MisuseError(
            f"TFDS set {dataset!r} has the features {', '.join(parts) or repr(features)}: expected an Image `image` "
            "and a Sequence `objects` with a BBoxFeature `bbox` and a ClassLabel `label`. Choose a set for detection."
        )
    return list(label.names), next((mark for mark in _MARKS if mark in objects), "")


def _parser(features: Any, mark: str) -> Any:
    """A serialised record -> encoded image, boxes relative to it (n, 4), labels (n,), and marks bool (n,)."""
    import tensorflow_datasets as tfds

    wanted: dict = {"image": True, "objects": {"bbox": True, "label": True, **({mark: True} if mark else {})}}
    chosen = tfds.decode.PartialDecoding(wanted).extract_features(features)
    decoders = {"image": tfds.decode.SkipDecoding()}

    def parse(serialized: tf.Tensor) -> dict[str, tf.Tensor]:
        example = chosen.deserialize_example(serialized, decoders=decoders)
        objects = example["objects"]
        marks = objects[mark] if mark else tf.zeros_like(objects["label"], tf.bool)
        return {"image": example["image"], "bbox": objects["bbox"], "label": objects["label"], "mark": marks}

    return parse


def _scan(name: str, keys: tf.data.Dataset, parse: Any, numbers: np.ndarray, shift: float) -> list[Example]:
    """All annotations in their natural order; `name` is for messages, `shift` is taken from the upper left corners."""

    def shape_of(image: tf.Tensor) -> tf.Tensor:
        return tf.cond(
            tf.io.is_jpeg(image), lambda: decode.jpeg_shape(image), lambda: tf.shape(decode.decode(image))[:2]
        )

    def describe(serialized: tf.Tensor, file: tf.Tensor, index: tf.Tensor) -> tuple:
        record = parse(serialized)
        shape = shape_of(record["image"])
        return record_name(file, index), shape, record["bbox"], record["label"], record["mark"]

    examples = []
    described = keys.map(describe, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    try:
        for record, (height, width), boxes, labels, marks in described.as_numpy_iterator():
            # Through float64 and rounded, so that whole pixels come out whole.
            boxes = np.round(boxes.astype(np.float64) * [height, width, height, width], 3)
            sized = (boxes[:, 2:] > boxes[:, :2]).all(axis=1, keepdims=True)
            boxes = boxes - np.where(sized, [shift, shift, 0.0, 0.0], 0.0)
            text = record.decode(errors="replace")
            classes = numbers[labels.astype(np.int64)]
            examples.append(Example(text, "", int(height), int(width), boxes.astype(np.float32), classes, marks > 0))
    except tf.errors.OpError as error:
        raise run_error(error) or RunError(
            f"{name}: record {len(examples)} can't be read: {error.message.splitlines()[0]} Prepare the set anew."
        ) from None
    return examples


def _place(files: Sequence[Records]) -> Any:
    """In a graph: file and index in it -> the place in the natural order, int64."""
    paths = cpu_constant([file.path for file in files])
    skips = cpu_constant([file.skip for file in files], tf.int64)
    takes = cpu_constant([file.take for file in files], tf.int64)
    starts = tf.cumsum(takes, exclusive=True)

    def place(file: tf.Tensor, index: tf.Tensor) -> tf.Tensor:
        index = tf.cast(index, tf.int64)
        mine = tf.argmax((paths == file) & (index >= skips) & (index < skips + takes))
        return starts[mine] + index - skips[mine]

    return place
