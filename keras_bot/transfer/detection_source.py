"""Where images with boxes come from: a Pascal VOC folder, a COCO annotation file or a TFDS set, all in one form.

Boxes are y0, x0, y1, x1 in pixels of their image and mended as `annotations` says. Several sets can be joined to one,
see `detection_sets`.
"""

import dataclasses
import hashlib
import itertools
import os
import pathlib
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from keras_bot.data import tfds_set
from keras_bot.data.record_files import Reading, Records, record_keys
from keras_bot.data.source import cpu_constant, indices, sample
from keras_bot.errors import MisuseError
from keras_bot.transfer import coco, tfds_detection, voc
from keras_bot.transfer.annotations import Annotations, Example, mend
from keras_bot.transfer.detection_sets import DetectionSet, join, set_names


@dataclasses.dataclass(frozen=True)
class DetectionSource:
    """A data set's split. It has what `keras_bot.data`'s guards against broken images need of a `Source`.

    Attributes:
        name: what the user called it, with the split.
        class_names: one for each class.
        size: number of images.
        annotations: their boxes, in the images' natural order.
        keys: as `Source.keys`: `keys(seed, buffer, first=0)` -> data set of tuples of scalars.
        read: the parts of a key -> {"image": encoded bytes, "index": int64, the place in the natural order,
            "boxes": float32 (n, 4), "classes": int32 (n,), "difficult": bool (n,)}. Runs in parallel, in a graph.
        record_name: the parts of a key, or of a batch of keys -> name, also of an image that can't be read.
        dropped: a line for each box without a size inside its image.
        clipped: a line for each box that reached more than a pixel out of its image.
        train_on_difficult: whether boxes marked difficult are shown in training: VOC's are single objects, COCO's
            crowds are not.
    """

    name: str
    class_names: tuple[str, ...]
    size: int
    annotations: Annotations
    keys: Callable[..., tf.data.Dataset]
    read: Callable[..., dict[str, tf.Tensor]]
    record_name: Callable[..., tf.Tensor]
    dropped: tuple[str, ...] = ()
    clipped: tuple[str, ...] = ()
    train_on_difficult: bool = True

    @property
    def num_classes(self) -> int:
        """Classes are 0..num_classes-1."""
        return len(self.class_names)

    @property
    def max_boxes(self) -> int:
        """The most boxes that one image has."""
        return int(np.diff(self.annotations.offsets).max(initial=0))

    def fingerprint(self, samples: int = 16) -> str:
        """A checksum of all boxes and of so many images as they are stored, as `Source.fingerprint`."""
        digest = hashlib.sha256()
        for name in ("offsets", "classes", "boxes"):
            digest.update(getattr(self.annotations, name).tobytes())
        for record in sample(self, samples):
            digest.update(record["image"].numpy() if record else b"unreadable")
        return digest.hexdigest()[:16]


def open_detection(
    dataset: str | os.PathLike,
    split: str,
    *,
    images: str | os.PathLike | None = None,
    class_names: Sequence[str] | None = None,
    data_dir: str | None = None,
) -> DetectionSource:
    """Open one split of a detection data set, or of several as one. What had to be mended is one line on stderr.

    Args:
        dataset: a folder in Pascal VOC's layout (see `voc`) or COCO's, a COCO annotation file (see `coco`), or the
            name of a TFDS set like "voc/2007" or "coco/2017"; or some of them joined by "+" (see `detection_sets`).
        split: its name in each of them, as in "train", "val", "test" or "trainval", or several as in "train+val";
            "eval" is the first there is of val, validation, valid and test.
        images: of a COCO set, the folder of the images; None looks for it.
        class_names: those that the labels should count by, as of a trained network; None takes them from the data,
            whose classes may have another order, and may be fewer.
        data_dir: where TFDS keeps its data.

    Raises:
        MisuseError: there is no such set or split, it has another form, an image is missing or there twice, an
            annotation is broken or of an unknown class. The message names the file.
        RunError: a TFDS set could not be prepared.
    """
    options = {"images": images, "class_names": class_names, "data_dir": data_dir}
    sets = [one for part in set_names(dataset) for one in _read(part, split, **options)]
    whole = join(f"{dataset} {split}", sets)
    return _record_source(whole) if whole.files else _image_source(whole)


def file_source(name: str, class_names: Sequence[str], examples: Sequence[Example], **more) -> DetectionSource:
    """A source of images in files.

    Args:
        name: with the split.
        class_names: one for each class.
        examples: in their natural order; at least one.
        **more: other attributes of `DetectionSet`.
    """
    return _image_source(DetectionSet(name, tuple(class_names), tuple(examples), **more))


def _read(part: str, split: str, images, class_names, data_dir) -> list[DetectionSet]:
    """One part of `open_detection`'s data set; more than one of a COCO folder with a file for each split."""
    path = pathlib.Path(part).expanduser()
    if path.is_dir() and voc.is_voc(path):
        _refuse(images=images, data_dir=data_dir)
        return [voc.read_voc(path, split, class_names)]
    if path.exists():
        _refuse(data_dir=data_dir)
        splits = split.split("+") if path.is_dir() else [split]
        return [coco.read_coco(path, one, images, class_names) for one in splits]
    _refuse(images=images)
    if not tfds_set.is_name(part):
        raise MisuseError(f"There is no folder or file {part!r}, and TFDS has no such names. Mend the path.")
    return [tfds_detection.read_tfds_detection(part, split, data_dir, class_names)]


def _image_source(whole: DetectionSet) -> DetectionSource:
    """The source of a set whose images are files."""
    paths = cpu_constant([os.fsencode(example.path) for example in whole.examples])
    return _source(
        whole,
        keys=indices(len(whole.examples)),
        place=lambda index: index,
        image=lambda index: tf.io.read_file(tf.gather(paths, index)),
        record_name=lambda index: tf.gather(paths, index),
    )


def _record_source(whole: DetectionSet) -> DetectionSource:
    """The source of a set whose images are in record files."""
    files = [records for records, _ in whole.files]
    paths, names = cpu_constant([file.path for file in files]), cpu_constant([name for _, name in whole.files])

    def record_name(serialized: tf.Tensor, file: tf.Tensor, index: tf.Tensor) -> tf.Tensor:
        told = tf.gather(names, tf.argmax(paths == file[..., None], -1))
        return tf.strings.join([told, "[", tf.strings.as_string(index), "]"])

    return _source(
        whole,
        keys=record_keys(files, Reading()),
        place=_place(whole.name, files),
        image=lambda serialized, file, index: whole.image_of(serialized),
        record_name=record_name,
    )


def _source(
    whole: DetectionSet, *, keys: Callable, place: Callable, image: Callable, record_name: Callable
) -> DetectionSource:
    """The source of a set; `place` and `image` take the parts of a key to the natural order and the encoded image."""
    annotations, dropped, clipped = mend(whole.name, whole.examples, whole.class_names)
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
    """In a graph: parts of a key -> the place in the natural order, int64. MisuseError if a record is there twice."""
    ordered = sorted(files, key=lambda records: (records.path, records.skip))
    for one, other in itertools.pairwise(ordered):
        if one.path == other.path and one.skip + one.take > other.skip:
            raise MisuseError(
                f"Expected each image once in {name}, received records of {one.path} twice. Join other sets or splits."
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


def _refuse(**given: object) -> None:
    """MisuseError for arguments that mean nothing to this kind of data set."""
    names = [name for name, value in given.items() if value is not None]
    if names:
        raise MisuseError(f"Expected no {' or '.join(names)} for this kind of data set. Leave it out.")
