"""Where images with a mask each come from: a folder or a TFDS set, in one form.

A mask gives each pixel an id. Classes are numbered 0..K-1 in the order of their ids, or in that of names that are
given; an ignored id becomes 255.
"""

import dataclasses
import hashlib
import os
import pathlib
import struct
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from keras_bot.data import tfds_set
from keras_bot.data.source import sample
from keras_bot.errors import MisuseError, RunError

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


def open_segmentation(
    dataset: str | os.PathLike,
    split: str = "train",
    *,
    num_classes: int = 0,
    ignore: Sequence[int] | None = None,
    class_names: Sequence[str] | None = None,
    data_dir: str | None = None,
) -> SegmentationSource:
    """Open one split; what is read of it are names, no images.

    Args:
        dataset: a folder (see `segmentation_folder`), or the name of a TFDS set (see `tfds_segmentation`).
        split: its name in the data set; "eval" is the first there is of val, validation and test.
        num_classes: 0, or what is expected. It must be given where the data names no classes: they are then the ids
            from 0 on that aren't ignored.
        ignore: ids that count as unlabelled, as 255 does unless it is named as a class. None: those whose name is
            unlabelled, void or ignore.
        class_names: those that the labels should count by, as of a trained network, in their order; the data must have
            these and no others. None takes them from the data.
        data_dir: where TFDS keeps its data.

    Raises:
        MisuseError: there is no such set or split, it has another form, an image or a mask is missing, or the classes
            differ from `num_classes` or `class_names`. The message names the file.
        RunError: a TFDS set could not be prepared.
    """
    # Imported late: they need this module.
    from keras_bot.transfer.segmentation_folder import open_folder
    from keras_bot.transfer.tfds_segmentation import open_tfds_segmentation

    options = {"num_classes": num_classes, "ignore": ignore, "class_names": class_names}
    path = pathlib.Path(dataset).expanduser()
    if path.exists() or not tfds_set.is_name(str(dataset)):
        if data_dir is not None:
            raise MisuseError(f"Expected no data_dir for the folder {path}. Leave it out.")
        return open_folder(path, split, **options)
    return open_tfds_segmentation(str(dataset), split, data_dir=data_dir, **options)


def png_size(header: bytes, name: str) -> tuple[int, int]:
    """Height and width by the first 24 bytes of a PNG; `name` is for the RunError about another file."""
    if header[:8] != b"\x89PNG\r\n\x1a\n" or len(header) < 24:
        raise RunError(f"Expected a PNG, received {name}, which is none. Save the mask as PNG; JPEG changes ids.")
    return struct.unpack(">II", header[16:24])[::-1]


def largest_of(sizes: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """The greatest height and the greatest width of some (height, width)."""
    height, width = np.array(sizes).max(0)
    return int(height), int(width)
