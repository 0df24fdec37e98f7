"""Box annotations: `Example`, one image as read from a file, and `Annotations`, all images after cleaning.

Boxes are y0, x0, y1, x1 in image pixels, in continuous coordinates. Cleaning clips boxes to their image and drops boxes
without an area; both are reported. Images without boxes are kept as negatives.
"""

import dataclasses
import sys
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import tensorflow as tf

from keras_bot.data.sources.base import cpu_constant
from keras_bot.errors import MisuseError, first_few, unknown

_TOLERANCE = 1.0  # pixels; boxes exceed the image by this much if a 0-based file is read as 1-based


@dataclasses.dataclass(frozen=True)
class Example:
    """One image with its annotation as read, before cleaning.

    Attributes:
        name: display name for messages.
        path: image file; "" if the image is not in its own file.
        height, width: image size in pixels.
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
    """All boxes of N images, concatenated.

    Attributes:
        names: image names.
        shapes: image heights and widths, int32 (N, 2).
        boxes: float32 (M, 4).
        classes: int32 (M,).
        difficult: bool (M,): VOC's `difficult` and COCO's `iscrowd`. Metrics ignore such boxes, whether they are
            detected or missed.
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
        """Returns boxes (n, 4), classes (n,) and difficult (n,) of one image."""
        part = slice(self.offsets[index], self.offsets[index + 1])
        return self.boxes[part], self.classes[part], self.difficult[part]

    def lookup(self) -> Callable[[tf.Tensor], dict[str, tf.Tensor]]:
        """Returns a graph function from an int64 image index to "index", "boxes", "classes" and "difficult"."""
        offsets = cpu_constant(self.offsets)
        parts = {name: cpu_constant(getattr(self, name)) for name in ("boxes", "classes", "difficult")}

        def find(index: tf.Tensor) -> dict[str, tf.Tensor]:
            begin, end = offsets[index], offsets[index + 1]
            return {"index": index, **{name: part[begin:end] for name, part in parts.items()}}

        return find


def clean(
    source: str, examples: Iterable[Example], class_names: Sequence[str]
) -> tuple[Annotations, tuple[str, ...], tuple[str, ...]]:
    """Clips boxes to their images, drops empty boxes, and summarises both in one line on stderr.

    Args:
        source: name of the data set, for the summary.
        examples: the images in natural order.
        class_names: class names for the descriptions of boxes.

    Returns:
        The annotations, one line per dropped box, and one line per clipped box.
    """
    cleaned: list[tuple[np.ndarray, ...]] = []
    names: list[str] = []
    shapes: list[tuple[int, int]] = []
    dropped: list[str] = []
    clipped: list[str] = []
    for example in examples:
        limits = np.array([example.height, example.width] * 2, np.float32)
        boxes = np.clip(example.boxes.reshape(-1, 4), 0, limits).astype(np.float32)
        whole = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
        cut = whole & (np.abs(boxes - example.boxes.reshape(-1, 4)) > _TOLERANCE).any(axis=1)
        for lines, chosen in ((dropped, ~whole), (clipped, cut)):
            for i in np.flatnonzero(chosen):
                numbers = ", ".join(f"{x:g}" for x in example.boxes[i])
                lines.append(f"{example.name}: {class_names[example.classes[i]]} at y0, x0, y1, x1 = {numbers}")
        cleaned.append((boxes[whole], example.classes[whole], example.difficult[whole]))
        names.append(example.name)
        shapes.append((example.height, example.width))
    _report(source, dropped, clipped)
    boxes, classes, difficult = (np.concatenate(parts) for parts in zip(*cleaned, strict=True))
    offsets = np.cumsum([0, *(len(part[0]) for part in cleaned)], dtype=np.int64)
    annotations = Annotations(tuple(names), np.array(shapes, np.int32), boxes, classes, difficult, offsets)
    return annotations, tuple(dropped), tuple(clipped)


def unknown_class(where: str, name: str, class_names: Iterable[str]) -> MisuseError:
    """Returns the error for a class `name` that is not in `class_names`; `where` is the file and the entry."""
    return MisuseError(f"{where}: {unknown('class', name, class_names)} Correct it, or use data with these classes.")


def _report(source: str, dropped: Sequence[str], clipped: Sequence[str]) -> None:
    """Prints one line to stderr if boxes were dropped or clipped."""
    parts = []
    for lines, action in (
        (dropped, "without an area inside the image dropped"),
        (clipped, "extending beyond the image clipped"),
    ):
        if lines:
            names = list(dict.fromkeys(line.rsplit(": ", 1)[0] for line in lines))
            parts.append(f"{len(lines)} box{'es' * (len(lines) > 1)} {action}, in {first_few(names)}")
    if parts:
        print(f"keras-bot: {source}: {'; '.join(parts)}.", file=sys.stderr, flush=True)
