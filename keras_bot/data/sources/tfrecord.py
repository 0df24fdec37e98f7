"""TFRecord shards in the ImageNet layout: a folder of `train-00000-of-01024`, … and `validation-00000-of-00128`, ….

`manifest.json`, written by `keras-bot data convert`, contains the record counts and class names. Without it the records
are counted, and the class names are read from `labels.txt` if it exists.
"""

import concurrent.futures
import os
import pathlib
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError

from keras_bot.data.python_ops import numpy_function
from keras_bot.data.sources.base import SHARD_EVAL_SPLITS, Source, check_num_classes, share_of
from keras_bot.data.sources.manifest import MANIFEST, UNFINISHED, read_manifest
from keras_bot.data.sources.record_files import (
    Records,
    measure,
    reading_of,
    record_keys,
    record_name,
    take_share,
    truncation,
)
from keras_bot.errors import MisuseError, RunError

_SHARD = re.compile(r"(?P<set>.+)-(?P<number>\d{5,})-of-(?P<count>\d{5,})(?P<suffix>\.\w+)?")
_LABELS = "labels.txt"
_IMAGE, _LABEL = "image/encoded", "image/class/label"
_NAME = ("image/class/synset", "image/filename")
_THREADS = 16


def has_shards(folder: str) -> bool:
    """Returns whether a folder contains TFRecord shards or a manifest."""
    root = pathlib.Path(folder).expanduser()
    if not root.is_dir():
        return False
    with os.scandir(root) as entries:
        return any(e.name in (MANIFEST, UNFINISHED) or _SHARD.fullmatch(e.name) for e in entries)


def open_tfrecord(folder: str, split: str, num_classes: int, first_label: int, read_config: Any = None) -> Source:
    """Opens one split of a folder of shards with the features `image/encoded` and `image/class/label`.

    Args:
        folder: folder of the shards.
        split: "train" or "eval"; "eval" uses the first of validation, val and test that exists.
        num_classes: 0, or the expected number; required without a manifest and `labels.txt`.
        first_label: the number stored for class 0, if there is no manifest.
        read_config: see `open_source`.

    Raises:
        MisuseError: a shard is missing, or the folder's contents are not valid.
        RunError: a shard is truncated.
    """
    root = pathlib.Path(folder).expanduser()
    if (root / MANIFEST).exists():
        files, names, first = read_manifest(root, split)
        check_num_classes(str(root), num_classes, len(names))
        if first_label not in (0, first):
            raise MisuseError(
                f"first_label={first_label} contradicts {root / MANIFEST}, which has {first}. Leave it out."
            )
        first_label, numbering = first, ""
    else:
        paths = _find_shards(root, split)
        names = _class_names(root, num_classes, first_label)
        files = _count(paths, len(names), first_label)
        numbering = f" (first_label {first_label})"
    share = share_of(read_config, sum(file.take for file in files), split)

    def read(serialized: tf.Tensor, file: tf.Tensor, index: tf.Tensor) -> dict[str, tf.Tensor]:
        features = {_IMAGE: tf.io.FixedLenFeature([], tf.string), _LABEL: tf.io.FixedLenFeature([], tf.int64)}
        example = tf.io.parse_single_example(serialized, features)
        return {"image": example[_IMAGE], "label": example[_LABEL] - first_label, "name": record_name(file, index)}

    return Source(
        name=f"{root} {split}{numbering}",
        num_classes=len(names),
        class_names=names,
        size=share.size,
        keys=record_keys(take_share(files, share), reading_of(read_config)),
        read=read,
        record_name=_record_name,
    )


def _record_name(serialized: tf.Tensor, file: tf.Tensor, index: tf.Tensor) -> tf.Tensor:
    """Returns shard, index and original file name of a record; calls Python, so only used for corrupt records."""

    def image_names(records: np.ndarray | bytes) -> np.ndarray:
        records = np.asarray(records, object)  # a scalar is passed as bytes
        return np.array([_image_name(record) for record in records.ravel()], object).reshape(records.shape)

    names = tf.ensure_shape(numpy_function(image_names, [serialized], tf.string), serialized.shape)
    return tf.strings.join([record_name(file, index), names])


def _image_name(serialized: bytes) -> bytes:
    """Returns " CLASS/FILE" as stored by the converters, or b"" if absent."""
    try:
        features = tf.train.Example.FromString(serialized).features.feature
    except DecodeError:
        return b""
    parts = [features[name].bytes_list.value[:1] for name in _NAME if name in features]
    return b" " + b"/".join(part[0] for part in parts if part) if any(parts) else b""


def _find_shards(root: pathlib.Path, split: str) -> list[str]:
    """Returns the paths of one split's shards in order. Raises MisuseError if the set is not complete."""
    if (root / UNFINISHED).exists():
        raise MisuseError(f"{root} contains an unfinished conversion. Run the same `keras-bot data convert` again.")
    sets: dict[tuple[str, str], dict[int, str]] = {}
    for entry in sorted(os.listdir(root)):
        if match := _SHARD.fullmatch(entry):
            found = sets.setdefault((match["set"], f"-of-{match['count']}{match['suffix'] or ''}"), {})
            found[int(match["number"])] = entry
    wanted = ("train",) if split == "train" else SHARD_EVAL_SPLITS
    for word in wanted:
        chosen = {key: found for key, found in sets.items() if word in re.split(r"[^a-z0-9]+", key[0].lower())}
        if chosen:
            break
    else:
        raise MisuseError(
            f"{root} has no shards for {split!r}, named like {wanted[0]}-00000-of-00008, but only "
            f"{', '.join(sorted({key[0] for key in sets}))}. Rename or add them."
        )
    if len(chosen) > 1:
        names = ", ".join(sorted(min(found.values()) for found in chosen.values()))
        raise MisuseError(f"{root} has {len(chosen)} sets of {word} shards ({names}). Keep one and move the others.")
    (((_, ending), found),) = chosen.items()
    count = int(re.findall(r"\d+", ending)[0])
    missing = [number for number in range(count) if number not in found]
    if missing:
        gone = re.sub(r"-\d+-of-", f"-{missing[0]:05}-of-", next(iter(found.values())))
        raise MisuseError(
            f"{root} has {len(found)} of {count} {word} shards; the first missing one is {gone}. Copy the missing "
            "shards."
        )
    if len(found) > count:
        raise MisuseError(
            f"{root} has {len(found)} {word} shards, but their names are for {count}; {found[max(found)]} is one too "
            "many. Move it to another folder."
        )
    return [str(root / found[number]) for number in range(count)]


def _class_names(root: pathlib.Path, num_classes: int, first_label: int) -> tuple[str, ...]:
    """Reads `labels.txt`: one name per line, or "label:name" as TensorFlow's own converters write it."""
    path = root / _LABELS
    if not path.exists():
        if not num_classes:
            raise MisuseError(
                f"{root} has neither {MANIFEST} nor {_LABELS}, so the number of classes is unknown. Set num_classes."
            )
        return tuple(str(i) for i in range(num_classes))
    try:
        lines = [line.strip() for line in path.read_text("utf-8-sig").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise MisuseError(f"{path} can't be read ({error}). Write one class name per line, in UTF-8.") from error
    numbered = [re.fullmatch(r"(\d+):(.*)", line) for line in lines]
    names = lines
    if lines and all(numbered):
        found = {int(match[1]): match[2].strip() for match in numbered if match}
        if len(found) < len(lines) or sorted(found) != list(range(first_label, first_label + len(found))):
            raise MisuseError(
                f"{path} must contain each label from {first_label} to {first_label + len(lines) - 1} once, received "
                f"{len(found)} different labels from {min(found)} to {max(found)}. Fix the file, or set first_label "
                "to its lowest label."
            )
        names = [found[label] for label in sorted(found)]
    if not names:
        raise MisuseError(f"{path} is empty. Write one class name per line, or remove it.")
    check_num_classes(str(path), num_classes, len(names))
    return tuple(names)


def _count(paths: Sequence[str], num_classes: int, first_label: int) -> list[Records]:
    """Returns the shards with their record counts."""

    def count_records(path: str) -> Records:
        try:
            count, end, size = measure(path)
        except OSError as error:
            raise RunError(f"{path} can't be read: {error.strerror}.") from error
        if end < size:
            raise RunError(truncation(path, end, size))
        if not count:
            raise RunError(f"{path} contains no records. Copy it again, or write the set again.")
        _check_first(path, num_classes, first_label)
        return Records(path, 0, count)

    with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
        return list(pool.map(count_records, paths))


def _check_first(path: str, num_classes: int, first_label: int) -> None:
    """Validates the features and the label of a shard's first record."""
    try:
        serialized = next(iter(tf.data.TFRecordDataset(path))).numpy()
    except tf.errors.OpError as error:
        raise RunError(f"{path} is damaged in its first record, at byte 0. Copy it again.") from error
    try:
        features = tf.train.Example.FromString(serialized).features.feature
    except DecodeError:
        features = {}
    received = ", ".join(sorted(features)) or "other data"
    images = features[_IMAGE].bytes_list.value if _IMAGE in features else []
    labels = features[_LABEL].int64_list.value if _LABEL in features else []
    if len(images) != 1 or len(labels) != 1:
        raise MisuseError(
            f"{path} must contain tf.train.Example records with one {_IMAGE} (bytes) and one {_LABEL} (int64), "
            f"received {received}. Write the shards in the ImageNet layout."
        )
    if not 0 <= labels[0] - first_label < num_classes:
        raise MisuseError(
            f"{path}: labels must be {first_label} to {first_label + num_classes - 1} for {num_classes} classes "
            f"with first_label {first_label}, received {labels[0]}. Set first_label to the lowest label of the shards, "
            "0 or 1, and num_classes to the number of classes."
        )
