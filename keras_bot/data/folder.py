"""A folder of images: `train/CLASS/*.jpg` and `val/CLASS/*.jpg`. Classes are `train`'s folders, sorted, or as
`classes.csv` orders and names them. Folders inside a class folder belong to that class.
"""

import dataclasses
import itertools
import os
import pathlib
import sys
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from keras_bot.data.class_file import CLASS_FILE, read_class_file
from keras_bot.data.decode import SUFFIXES
from keras_bot.data.listing import Listing, list_images, printable, subfolders
from keras_bot.data.source import Source, check_num_classes, cpu_constant, indices
from keras_bot.errors import MisuseError

_EVAL_FOLDERS = ("val", "validation", "test")
_LAYOUT = f"expected train/CLASS/*.jpg and val/CLASS/*.jpg (or {', '.join(SUFFIXES[1:])})"
_BLOCK = 64  # file names in one string of the graph's constant: a look-up copies its block


@dataclasses.dataclass(frozen=True)
class ImageFolder:
    """A folder whose layout is right.

    Attributes:
        root: the folder.
        folders: names of the class folders, one for each label.
        class_names: names to show, one for each label.
    """

    root: pathlib.Path
    folders: tuple[str, ...]
    class_names: tuple[str, ...]

    def directory(self, split: str) -> pathlib.Path:
        """Where the images of "train" or "eval" are. Raises MisuseError if there is no such folder."""
        if split == "train":
            return self.root / "train"
        for name in _EVAL_FOLDERS:
            if (self.root / name).is_dir():
                return self.root / name
        raise MisuseError(
            f"{self.root} has no folder to evaluate on: {_LAYOUT}; tried {', '.join(_EVAL_FOLDERS)}. Add one of these."
        )

    def listing(self, split: str) -> Listing:
        """The images of "train" or "eval"; what is skipped is one line on stderr.

        Raises:
            MisuseError: a class has no images, or `train` lacks it, or a folder can't be read.
        """
        try:
            listing = list_images(self.directory(split), self.folders)
        except OSError as error:
            raise MisuseError(f"Cannot list {error.filename}: {error.strerror}. Make it readable.") from None
        if listing.skipped:
            print(f"keras-bot: {listing.skipped}", file=sys.stderr, flush=True)
        return listing


def open_layout(folder: str) -> ImageFolder:
    """Find the classes of an image folder.

    Raises:
        MisuseError: the folder has another layout, or `classes.csv` doesn't agree with it.
    """
    root = pathlib.Path(folder).expanduser()
    if not root.is_dir():
        raise MisuseError(f"No folder {str(root)!r}: {_LAYOUT}. Check the path.")
    folders = subfolders(root / "train")
    if not folders:
        kind = "empty of class folders" if (root / "train").is_dir() else "missing"
        raise MisuseError(f"{root / 'train'} is {kind}: {_LAYOUT}. Sort the images into such folders.")
    names = {name: name for name in folders}
    if (root / CLASS_FILE).exists():
        names = read_class_file(root / CLASS_FILE, folders)
    return ImageFolder(root, tuple(names), tuple(printable(name) for name in names.values()))


def open_folder(folder: str, split: str, num_classes: int) -> Source:
    """Open one split of a folder; only names are read, the images when a pipeline wants them.

    Args:
        folder: holds `train` and one of `val`, `validation`, `test`, and perhaps `classes.csv`: a header, then a
            line for each class in the order of the labels, with the class folder first and a readable name second.
        split: "train" or "eval".
        num_classes: 0, or what is expected.

    Raises:
        MisuseError: the folder has another layout, a class without images, or in `val` a class that `train` lacks;
            `classes.csv` and `train` disagree.
    """
    layout = open_layout(folder)
    check_num_classes(str(layout.root), num_classes, len(layout.folders))
    return _source(layout, layout.listing(split))


def _source(layout: ImageFolder, listing: Listing) -> Source:
    file_name = _names(listing)
    starts = cpu_constant(listing.starts)
    parents = cpu_constant([os.fsencode(f"{listing.directory.name}/{name}/") for name in listing.folders])
    prefix = os.fsencode(layout.root) + b"/"

    def label(index: tf.Tensor) -> tf.Tensor:
        found = tf.searchsorted(starts, tf.reshape(index, [-1]), side="right", out_type=tf.int64) - 1
        return tf.reshape(found, tf.shape(index))

    def record_name(index: tf.Tensor) -> tf.Tensor:
        return tf.strings.join([tf.gather(parents, label(index)), file_name(index)])

    def read(index: tf.Tensor) -> dict[str, tf.Tensor]:
        name = record_name(index)
        return {"image": tf.io.read_file(prefix + name), "label": label(index), "name": name}

    return Source(
        name=str(listing.directory),
        num_classes=len(layout.folders),
        class_names=layout.class_names,
        size=len(listing),
        keys=indices(len(listing)),
        read=read,
        record_name=record_name,
    )


def _names(listing: Listing) -> Callable[[tf.Tensor], tf.Tensor]:
    """In a graph: positions, int64 of any shape -> file names. The names are one constant of long strings."""
    bounds = listing.offsets[np.append(np.arange(0, len(listing), _BLOCK), len(listing))]
    blocks = cpu_constant([listing.names[begin:end] for begin, end in itertools.pairwise(bounds)])
    offsets = cpu_constant(listing.offsets)

    def name(index: tf.Tensor) -> tf.Tensor:
        block, begin = index // _BLOCK, tf.gather(offsets, index)
        length = tf.gather(offsets, index + 1) - begin
        return tf.strings.substr(tf.gather(blocks, block), begin - tf.gather(offsets, block * _BLOCK), length)

    return name
