"""Image folders: `train/CLASS/*.jpg` and `val/CLASS/*.jpg`. The classes are the folders of `train`, sorted, or ordered
and named by `classes.csv`. Folders inside a class folder belong to that class.
"""

import dataclasses
import itertools
import os
import pathlib
import sys
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from keras_bot.data.decode import SUFFIXES
from keras_bot.data.sources.base import EVAL_SPLITS, Source, check_num_classes, cpu_constant, indices
from keras_bot.data.sources.class_file import CLASS_FILE, read_class_file
from keras_bot.data.sources.listing import Listing, list_images, printable, subfolders
from keras_bot.errors import MisuseError

_LAYOUT = f"An image folder contains train/CLASS/*.jpg and val/CLASS/*.jpg (or {', '.join(SUFFIXES[1:])})"
_BLOCK = 64  # file names per string of the constant: a lookup copies its block


@dataclasses.dataclass(frozen=True)
class ImageFolder:
    """An image folder with a valid layout.

    Attributes:
        root: the folder.
        folders: names of the class folders, one per label.
        class_names: display names, one per label.
    """

    root: pathlib.Path
    folders: tuple[str, ...]
    class_names: tuple[str, ...]

    def directory(self, split: str) -> pathlib.Path:
        """Returns the directory of "train" or "eval". Raises MisuseError if there is no evaluation folder."""
        if split == "train":
            return self.root / "train"
        for name in EVAL_SPLITS:
            if (self.root / name).is_dir():
                return self.root / name
        raise MisuseError(f"{self.root} has no folder to evaluate on. {_LAYOUT}. Add one of {', '.join(EVAL_SPLITS)}.")

    def listing(self, split: str) -> Listing:
        """Lists the images of "train" or "eval"; prints one line about skipped entries to stderr.

        Raises:
            MisuseError: a class has no images or is not in `train`, or a folder cannot be read.
        """
        try:
            listing = list_images(self.directory(split), self.folders)
        except OSError as error:
            raise MisuseError(f"Cannot list {error.filename}: {error.strerror}. Make it readable.") from None
        if listing.skipped:
            print(f"keras-bot: {listing.skipped}", file=sys.stderr, flush=True)
        return listing


def open_layout(folder: str) -> ImageFolder:
    """Finds the classes of an image folder.

    Raises:
        MisuseError: the folder has a different layout, or `classes.csv` is inconsistent with it.
    """
    root = pathlib.Path(folder).expanduser()
    if not root.is_dir():
        raise MisuseError(f"No folder {str(root)!r}. {_LAYOUT}. Check the path.")
    folders = subfolders(root / "train")
    if not folders:
        problem = "has no class folders" if (root / "train").is_dir() else "is missing"
        raise MisuseError(f"{root / 'train'} {problem}. {_LAYOUT}. Sort the images into such folders.")
    names = {name: name for name in folders}
    if (root / CLASS_FILE).exists():
        names = read_class_file(root / CLASS_FILE, folders)
    return ImageFolder(root, tuple(names), tuple(printable(name) for name in names.values()))


def open_folder(folder: str, split: str, num_classes: int) -> Source:
    """Opens one split of an image folder. It only lists file names; the pipeline reads the images.

    Args:
        folder: contains `train` and one of `val`, `validation`, `test`, and optionally `classes.csv`: a header, then
            one line per class in label order, with the class folder first and a readable name second.
        split: "train" or "eval".
        num_classes: 0, or the expected number.

    Raises:
        MisuseError: the folder has a different layout, a class without images, or an evaluation class that `train`
            lacks; or `classes.csv` and `train` disagree.
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
    """Returns a graph function: indices, int64 of any shape -> file names, stored in one constant of long strings."""
    bounds = listing.offsets[np.append(np.arange(0, len(listing), _BLOCK), len(listing))]
    blocks = cpu_constant([listing.names[begin:end] for begin, end in itertools.pairwise(bounds)])
    offsets = cpu_constant(listing.offsets)

    def name(index: tf.Tensor) -> tf.Tensor:
        block, begin = index // _BLOCK, tf.gather(offsets, index)
        length = tf.gather(offsets, index + 1) - begin
        return tf.strings.substr(tf.gather(blocks, block), begin - tf.gather(offsets, block * _BLOCK), length)

    return name
