"""Where images with a mask each come from: a folder or a TFDS set, in one form.

A mask gives each pixel an id. Classes are numbered 0..K-1 in the order of their ids, or in that of names that are
given; an ignored id becomes 255.
"""

import dataclasses
import hashlib
import struct
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from keras_bot.data.source import sample
from keras_bot.errors import RunError

IGNORE = 255
UNKNOWN = 256  # of a pixel that is no id: 16 bits, or a colour


@dataclasses.dataclass(frozen=True)
class SegmentationSource:
    """A split of images and masks. It has what `data.stream` needs of a source.

    Attributes:
        name: what the user called it, with the split.
        class_names: of the classes that aren't ignored.
        class_ids: the id of each class in the masks.
        palette: a colour for each class, uint8 (K, 3): the data's own, else one of `pictures.class_colors`.
        ignored: ids in the masks that count as unlabelled.
        size: the number of images.
        keys: the order of a pass, as `data.source.Source.keys`.
        read: the parts of a key -> the encoded files, {"image", "mask": string}, in a graph.
        record_name: the parts of a key, or of a batch of keys -> name, also of a pair that can't be read.
        largest: () -> the greatest height and the greatest width of all masks, by their headers. RunError: a mask is
            no PNG.
        image_files, mask_files: their paths in the natural order, if they are files; empty otherwise.
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
        """K; masks hold 0..K-1 and 255."""
        return len(self.class_ids)

    def class_table(self) -> np.ndarray:
        """The class of every id in a mask, int32 (257,): 0..K-1, 255 where ignored, -1 for an unknown id."""
        table = np.full(UNKNOWN + 1, -1, np.int32)
        table[list(self.ignored)] = IGNORE
        table[list(self.class_ids)] = np.arange(self.num_classes)
        return table

    def fingerprint(self, samples: int = 16) -> str:
        """A checksum of the classes and of so many pairs as they are stored, as `data.source.Source.fingerprint`."""
        digest = hashlib.sha256(repr((self.class_names, self.class_ids, self.ignored, self.size)).encode())
        for record in sample(self, samples):
            for kind in ("image", "mask"):
                digest.update(record[kind].numpy() if record else b"unreadable")
        return digest.hexdigest()[:16]


def png_size(header: bytes, name: str) -> tuple[int, int]:
    """Height and width by the first 24 bytes of a PNG; `name` is for the RunError about another file."""
    if header[:8] != b"\x89PNG\r\n\x1a\n" or len(header) < 24:
        raise RunError(f"Expected a PNG, received {name}, which is none. Save the mask as PNG; JPEG changes ids.")
    return struct.unpack(">II", header[16:24])[::-1]


def largest_of(sizes: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """The greatest height and the greatest width of some (height, width)."""
    height, width = np.array(sizes).max(0)
    return int(height), int(width)
