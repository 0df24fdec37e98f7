"""Where images with boxes come from: a Pascal VOC folder, a COCO annotation file or a TFDS set, all in one form.

Boxes are y0, x0, y1, x1 in pixels of their image, on continuous coordinates, within the image and with an area: what
sticks out is clipped, what has no size is dropped, and both are told. An image without boxes stays, as a negative.
"""

import dataclasses
import hashlib
import os
import pathlib
import re
import sys
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import tensorflow as tf

from keras_bot.data.source import cpu_constant, indices
from keras_bot.errors import MisuseError, first_few

_TFDS_NAME = r"\w+(/[\w.-]+)?(:[\w.]+)?"
_TOLERANCE = 1.0  # pixels: that far boxes reach outside where a file counts from 0 and we think from 1


@dataclasses.dataclass(frozen=True)
class Example:
    """One image as its annotation describes it, before anything is mended.

    Attributes:
        name: what a message calls it.
        path: of the image; "" if it isn't in a file of its own.
        height, width: of the image, in pixels.
        boxes: float32 (n, 4).
        classes: int32 (n,).
        difficult: bool (n,); see `Annotations`.
    """

    name: str
    path: str
    height: int
    width: int
    boxes: np.ndarray
    classes: np.ndarray
    difficult: np.ndarray


@dataclasses.dataclass(frozen=True)
class Annotations:
    """All boxes of N images, one image's behind the other's.

    Attributes:
        names: of the images.
        shapes: their heights and widths, int32 (N, 2).
        boxes: float32 (M, 4).
        classes: int32 (M,).
        difficult: bool (M,): VOC's `difficult` and COCO's `iscrowd`. Metrics ignore such a box: neither finding
            nor missing it counts.
        offsets: int64 (N + 1,): image i has the boxes offsets[i] to offsets[i + 1].
    """

    names: tuple[str, ...]
    shapes: np.ndarray
    boxes: np.ndarray
    classes: np.ndarray
    difficult: np.ndarray
    offsets: np.ndarray

    def __len__(self) -> int:
        return len(self.names)

    def of(self, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Boxes (n, 4), classes (n,) and difficult (n,) of one image."""
        part = slice(self.offsets[index], self.offsets[index + 1])
        return self.boxes[part], self.classes[part], self.difficult[part]


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
        image_ids, category_ids: COCO's own numbers of images and classes; empty otherwise.
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
    image_ids: tuple[int, ...] = ()
    category_ids: tuple[int, ...] = ()

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
        for place in np.unique(np.linspace(0, self.size - 1, samples, dtype=np.int64)):
            for key in self.keys(None, 1, place).take(1):
                try:
                    digest.update(self.read(*key)["image"].numpy())
                except tf.errors.OpError:
                    digest.update(b"unreadable")
        return digest.hexdigest()[:16]


def open_detection(
    dataset: str | os.PathLike,
    split: str,
    *,
    images: str | os.PathLike | None = None,
    class_names: Sequence[str] | None = None,
    data_dir: str | None = None,
) -> DetectionSource:
    """Open one split of a detection data set. What had to be mended is one line on stderr.

    Args:
        dataset: a folder in Pascal VOC's layout (see `voc`) or COCO's, a COCO annotation file (see `coco`), or the
            name of a TFDS set like "voc/2007" or "coco/2017".
        split: its name in the data set, as in "train", "val", "test" or "trainval".
        images: of a COCO set, the folder of the images; None looks for it.
        class_names: those that the labels should count by, as of a trained network; None takes them from the data.
        data_dir: where TFDS keeps its data.

    Raises:
        MisuseError: there is no such set or split, it has another form, an image is missing, an annotation is broken
            or of an unknown class. The message names the file.
        RunError: a TFDS set could not be prepared.
    """
    # Imported late: they need this module, and TFDS takes a second.
    from keras_bot.transfer import coco, voc

    path = pathlib.Path(dataset).expanduser()
    if path.is_dir() and voc.is_voc(path):
        _refuse(images=images, data_dir=data_dir)
        return voc.open_voc(path, split, class_names)
    if path.exists():
        _refuse(data_dir=data_dir)
        return coco.open_coco(path, split, images, class_names)
    _refuse(images=images)
    if not re.fullmatch(_TFDS_NAME, str(dataset)):
        raise MisuseError(f"There is no folder or file {str(dataset)!r}, and TFDS has no such names. Mend the path.")
    from keras_bot.transfer import tfds_detection

    return tfds_detection.open_tfds_detection(str(dataset), split, data_dir, class_names)


def file_source(name: str, class_names: Sequence[str], examples: Sequence[Example], **more) -> DetectionSource:
    """A source of images in files.

    Args:
        name: with the split.
        class_names: one for each class.
        examples: in their natural order; at least one.
        **more: other attributes of the source.
    """
    annotations, dropped, clipped = mend(name, examples, class_names)
    find = lookup(annotations)
    paths = cpu_constant([os.fsencode(example.path) for example in examples])

    def read(index: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"image": tf.io.read_file(tf.gather(paths, index)), **find(index)}

    return DetectionSource(
        name=name,
        class_names=tuple(class_names),
        size=len(examples),
        annotations=annotations,
        keys=indices(len(examples)),
        read=read,
        record_name=lambda index: tf.gather(paths, index),
        dropped=dropped,
        clipped=clipped,
        **more,
    )


def lookup(annotations: Annotations) -> Callable[[tf.Tensor], dict[str, tf.Tensor]]:
    """In a graph: the place of an image, int64 -> its parts of a record, as `DetectionSource.read` gives them."""
    offsets = cpu_constant(annotations.offsets)
    parts = {name: cpu_constant(getattr(annotations, name)) for name in ("boxes", "classes", "difficult")}

    def find(index: tf.Tensor) -> dict[str, tf.Tensor]:
        begin, end = offsets[index], offsets[index + 1]
        return {"index": index, **{name: part[begin:end] for name, part in parts.items()}}

    return find


def mend(
    source: str, examples: Iterable[Example], class_names: Sequence[str]
) -> tuple[Annotations, tuple[str, ...], tuple[str, ...]]:
    """Clip every box to its image and drop those without a size; one line on stderr tells how many, and where.

    Args:
        source: the data set's name, for that line.
        examples: in their natural order.
        class_names: for the lines about boxes.

    Returns:
        The annotations; a line for each dropped and each clipped box.
    """
    kept: list[tuple[np.ndarray, ...]] = []
    names, shapes, dropped, clipped = [], [], [], []
    for example in examples:
        limits = np.array([example.height, example.width] * 2, np.float32)
        boxes = np.clip(example.boxes.reshape(-1, 4), 0, limits).astype(np.float32)
        whole = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
        cut = whole & (np.abs(boxes - example.boxes.reshape(-1, 4)) > _TOLERANCE).any(axis=1)
        for lines, chosen in ((dropped, ~whole), (clipped, cut)):
            for i in np.flatnonzero(chosen):
                numbers = ", ".join(f"{x:g}" for x in example.boxes[i])
                lines.append(f"{example.name}: {class_names[example.classes[i]]} at y0, x0, y1, x1 = {numbers}")
        kept.append((boxes[whole], example.classes[whole], example.difficult[whole]))
        names.append(example.name)
        shapes.append((example.height, example.width))
    _tell(source, dropped, clipped)
    boxes, classes, difficult = (np.concatenate(parts) for parts in zip(*kept, strict=True))
    offsets = np.cumsum([0, *(len(part[0]) for part in kept)], dtype=np.int64)
    shapes = np.array(shapes, np.int32)
    return Annotations(tuple(names), shapes, boxes, classes, difficult, offsets), tuple(dropped), tuple(clipped)


def _tell(source: str, dropped: Sequence[str], clipped: Sequence[str]) -> None:
    """One line on stderr, if there is something to tell."""
    told = []
    for lines, what in ((dropped, "without a size inside the image, dropped"), (clipped, "out of the image, clipped")):
        if lines:
            names = list(dict.fromkeys(line.split(": ")[0] for line in lines))
            told.append(f"{len(lines)} box{'es' * (len(lines) > 1)} {what}, in {first_few(names)}")
    if told:
        print(f"keras-bot: {source}: {'; '.join(told)}.", file=sys.stderr, flush=True)


def _refuse(**given: object) -> None:
    """MisuseError for arguments that mean nothing to this kind of data set."""
    names = [name for name, value in given.items() if value is not None]
    if names:
        raise MisuseError(f"Expected no {' or '.join(names)} for this kind of data set. Leave it out.")
