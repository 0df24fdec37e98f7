"""Opens detection data sets: Pascal VOC folders, COCO annotation files and TFDS sets, or several of them joined.

Boxes are cleaned as described in `annotations`. Joining is described in `sets`.
"""

import itertools
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from keras_bot.data.sources import tfds as tfds_set
from keras_bot.data.sources.base import cpu_constant, indices
from keras_bot.data.sources.record_files import Reading, Records, record_keys
from keras_bot.errors import MisuseError
from keras_bot.tasks.detection.data import coco, voc
from keras_bot.tasks.detection.data import tfds as tfds_detection
from keras_bot.tasks.detection.data.annotations import Example, clean
from keras_bot.tasks.detection.data.sets import DetectionSet, join, set_names
from keras_bot.tasks.detection.data.source import DetectionSource


def open_detection(
    dataset: str | os.PathLike,
    split: str,
    *,
    images: str | os.PathLike | None = None,
    class_names: Sequence[str] | None = None,
    data_dir: str | None = None,
) -> DetectionSource:
    """Opens one split of a detection data set, or of several joined sets. Cleaned boxes are reported on stderr.

    Args:
        dataset: a folder in Pascal VOC's layout (see `voc`) or COCO's, a COCO annotation file (see `coco`), or the
            name of a TFDS set like "voc/2007" or "coco/2017"; or several joined by "+" (see `sets`).
        split: the split of each set, such as "train", "val", "test" or "trainval", or several as in "train+val";
            "eval" is the first existing of val, validation, valid and test.
        images: image folder of a COCO set; None searches for it.
        class_names: class names that number the labels, such as those of a trained network, if the data's classes may
            be fewer or in another order. None takes them from the data.
        data_dir: the TFDS data directory.

    Raises:
        MisuseError: the set or split does not exist or has the wrong format, an image is missing or occurs twice, or
            an annotation is broken or of an unknown class. The message names the file.
        RunError: a TFDS set could not be prepared.
    """
    options = {"images": images, "class_names": class_names, "data_dir": data_dir}
    sets = [one for part in set_names(dataset) for one in _read(part, split, **options)]
    whole = join(f"{dataset} {split}", sets)
    return _record_source(whole, whole.image_of) if whole.image_of else _image_source(whole)


def file_source(name: str, class_names: Sequence[str], examples: Sequence[Example], **more: Any) -> DetectionSource:
    """Creates a source of images in files.

    Args:
        name: name of the set, with the split.
        class_names: one name per class.
        examples: the images in natural order; at least one.
        **more: other attributes of `DetectionSet`.
    """
    return _image_source(DetectionSet(name, tuple(class_names), tuple(examples), **more))


def _read(part: str, split: str, images, class_names, data_dir) -> list[DetectionSet]:
    """Reads one part of `open_detection`'s data set; a COCO folder gives one set per split."""
    path = pathlib.Path(part).expanduser()
    if path.is_dir() and voc.is_voc(path):
        _refuse(part, images=images, data_dir=data_dir)
        return [voc.read_voc(path, split, class_names)]
    if path.exists():
        _refuse(part, data_dir=data_dir)
        splits = split.split("+") if path.is_dir() else [split]
        return [coco.read_coco(path, one, images, class_names) for one in splits]
    _refuse(part, images=images)
    if not tfds_set.is_name(part):
        raise MisuseError(f"No folder or file {part!r}, and it cannot be the name of a TFDS set. Check the path.")
    return [tfds_detection.read_tfds_detection(part, split, data_dir, class_names)]


def _image_source(whole: DetectionSet) -> DetectionSource:
    """Creates the source of a set whose images are files."""
    paths = cpu_constant([os.fsencode(example.path) for example in whole.examples])
    return _source(
        whole,
        keys=indices(len(whole.examples)),
        place=lambda index: index,
        image=lambda index: tf.io.read_file(tf.gather(paths, index)),
        record_name=lambda index: tf.gather(paths, index),
    )


def _record_source(whole: DetectionSet, image_of: Callable[[tf.Tensor], tf.Tensor]) -> DetectionSource:
    """Creates the source of a set whose images are in record files."""
    files = [records for records, _ in whole.files]
    paths, names = cpu_constant([file.path for file in files]), cpu_constant([name for _, name in whole.files])

    def record_name(serialized: tf.Tensor, file: tf.Tensor, index: tf.Tensor) -> tf.Tensor:
        name = tf.gather(names, tf.argmax(paths == file[..., None], -1))
        return tf.strings.join([name, "[", tf.strings.as_string(index), "]"])

    return _source(
        whole,
        keys=record_keys(files, Reading()),
        place=_place(whole.name, files),
        image=lambda serialized, file, index: image_of(serialized),
        record_name=record_name,
    )


def _source(
    whole: DetectionSet, *, keys: Callable, place: Callable, image: Callable, record_name: Callable
) -> DetectionSource:
    """Creates the source of a set; `place` and `image` map the parts of a key to the index and the encoded image."""
    annotations, dropped, clipped = clean(whole.name, whole.examples, whole.class_names)
    find = annotations.lookup()

    def read(*key) -> dict[str, tf.Tensor]:
        return {"image": image(*key), **find(place(*key))}

    return DetectionSource(
        name=whole.name,
        class_names=whole.class_names,
        size=len(annotations),
        annotations=annotations,
        keys=keys,
        read=read,
        record_name=record_name,
        dropped=dropped,
        clipped=clipped,
        train_on_difficult=whole.train_on_difficult,
    )


def _place(name: str, files: Sequence[Records]) -> Callable:
    """Returns a graph function from the parts of a key to the int64 index in natural order.

    Raises MisuseError if a record occurs twice.
    """
    ordered = sorted(files, key=lambda records: (records.path, records.skip))
    for one, other in itertools.pairwise(ordered):
        if one.path == other.path and one.skip + one.take > other.skip:
            raise MisuseError(
                f"{name} contains records of {one.path} twice. Join sets or splits without common images."
            )
    paths = cpu_constant([file.path for file in files])
    skips = cpu_constant([file.skip for file in files], tf.int64)
    takes = cpu_constant([file.take for file in files], tf.int64)
    starts = tf.cumsum(takes, exclusive=True)

    def place(serialized: tf.Tensor, file: tf.Tensor, index: tf.Tensor) -> tf.Tensor:
        del serialized
        index = tf.cast(index, tf.int64)
        mine = tf.argmax((paths == file) & (index >= skips) & (index < skips + takes))
        return starts[mine] + index - skips[mine]

    return place


def _refuse(part: str, **arguments: object) -> None:
    """Raises MisuseError for arguments other than None, which do not apply to this kind of data set."""
    for name, value in arguments.items():
        if value is not None:
            raise MisuseError(f"{name} does not apply to the data set {part}. Remove it.")
