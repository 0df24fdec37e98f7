"""Common representation of segmentation data, from a folder or a TFDS set.

A mask assigns an id to each pixel. Classes are numbered 0..K-1 in the order of their ids, or in the order of given
class names. Ignored ids become 255.
"""

import dataclasses
import hashlib
import struct
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from keras_bot.data.sources.base import sample
from keras_bot.errors import RunError
from keras_bot.tasks.segmentation.labels import IGNORE, UNKNOWN


@dataclasses.dataclass(frozen=True)
class SegmentationSource:
    """A split of images and masks, with the interface that `keras_bot.data.stream` needs.

    Attributes:
        name: the user's name of the data set, with the split.
        class_names: names of the classes that aren't ignored.
        class_ids: mask id of each class.
        palette: colour of each class, uint8 (K, 3): the data's own, otherwise from `drawing.class_colors`.
        ignored: mask ids that count as unlabelled.
        size: number of images.
        keys: keys of a pass in order, as `Source.keys`.
        read: parts of a key -> encoded files, {"image", "mask": string}, in a graph.
        record_name: parts of a key, or of a batch of keys -> name, also for pairs that can't be read.
        largest: () -> greatest height and greatest width of all masks, from their headers. Raises RunError if a mask is
            not a PNG.
        image_files, mask_files: paths in natural order if the data are files; otherwise empty.
    """

    name: str
    class_names: tuple[str, ...]
    class_ids: tuple[int, ...]
    palette: np.ndarray
    ignored: tuple[int, ...]
    size: int
    keys: Callable[..., tf.data.Dataset]
    read: Callable[..., dict[str, tf.Tensor]]
    record_name: Callable[..., tf.Tensor]
    largest: Callable[[], tuple[int, int]]
    image_files: tuple[str, ...] = ()
    mask_files: tuple[str, ...] = ()

    @property
    def num_classes(self) -> int:
        """Number of classes K; decoded masks contain 0..K-1 and 255."""
        return len(self.class_ids)

    def class_table(self) -> np.ndarray:
        """Returns the class of every mask id, int32 (257,): 0..K-1, 255 for ignored and -1 for unknown ids."""
        table = np.full(UNKNOWN + 1, -1, np.int32)
        table[list(self.ignored)] = IGNORE
        table[list(self.class_ids)] = np.arange(self.num_classes)
        return table

    def fingerprint(self, samples: int = 16) -> str:
        """Returns a checksum of the classes and `samples` stored pairs; see `Source.fingerprint`."""
        digest = hashlib.sha256(repr((self.class_names, self.class_ids, self.ignored, self.size)).encode())
        for record in sample(self, samples):
            for kind in ("image", "mask"):
                digest.update(record[kind].numpy() if record else b"unreadable")
        return digest.hexdigest()[:16]


def png_size(header: bytes, name: str) -> tuple[int, int]:
    """Returns height and width from a PNG's first 24 bytes. Raises RunError with `name` if it is no PNG."""
    if header[:8] != b"\x89PNG\r\n\x1a\n" or len(header) < 24:
        raise RunError(f"The mask {name} is not a PNG. Save it as PNG, because JPEG changes ids.")
    return struct.unpack(">II", header[16:24])[::-1]


def largest_size(sizes: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """Returns the greatest height and the greatest width in a sequence of (height, width)."""
    height, width = np.array(sizes).max(0)
    return int(height), int(width)
