"""A folder of images: `train/CLASS/*.jpg` and `val/CLASS/*.jpg`. Classes are `train`'s folders, sorted, or as
`classes.csv` beside them orders and names them.

A listing of millions of files is one byte string and an array of offsets, about 30 bytes a file.
"""

import dataclasses
import itertools
import os
import pathlib
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from keras_bot.data.class_file import CLASS_FILE, read_class_file
from keras_bot.data.source import Source, check_num_classes, cpu_constant, indices
from keras_bot.errors import MisuseError

SUFFIXES = (".jpg", ".jpeg", ".png", ".gif", ".bmp")

_EVAL_FOLDERS = ("val", "validation", "test")
_LAYOUT = "expected train/CLASS/*.jpg and val/CLASS/*.jpg (or .jpeg, .png, .gif, .bmp)"
_BLOCK = 64  # file names in one string of the graph's constant: a look-up copies its block


@dataclasses.dataclass(frozen=True)
class Listing:
    """The images of one split in the order of their labels, each class's sorted by name.

    Attributes:
        directory: of the split.
        folders: the class folders' names, one for each label.
        starts: position of each class's first image, int64 (K,).
        names: the file names, one after the other.
        offsets: where each begins in `names`, and the end; int64 (N + 1,).
    """

    directory: pathlib.Path
    folders: tuple[str, ...]
    starts: np.ndarray
    names: bytes
    offsets: np.ndarray

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def label(self, index: int) -> int:
        """The label of one image."""
        return int(np.searchsorted(self.starts, index, side="right")) - 1

    def path(self, index: int) -> bytes:
        """The path of one image, as the file system has it."""
        name = self.names[self.offsets[index] : self.offsets[index + 1]]
        return os.path.join(os.fsencode(self.directory / self.folders[self.label(index)]), name)


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
        """The images of "train" or "eval".

        Raises:
            MisuseError: a class has no images, or `train` lacks it.
        """
        return _list_images(self.directory(split), self.folders)


def open_layout(folder: str) -> ImageFolder:
    """Find the classes of an image folder.

    Raises:
        MisuseError: the folder has another layout, or `classes.csv` doesn't agree with it.
    """
    root = pathlib.Path(folder).expanduser()
    if not root.is_dir():
        raise MisuseError(f"No folder {str(root)!r}: {_LAYOUT}. Check the path.")
    folders = _subfolders(root / "train")
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


def printable(name: str) -> str:
    """A file's name as text that can be written anywhere: bytes that are no UTF-8 are replaced."""
    return os.fsencode(name).decode("utf-8", "replace")


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


def _subfolders(directory: pathlib.Path) -> list[str]:
    if not directory.is_dir():
        return []
    with os.scandir(directory) as entries:
        return sorted(e.name for e in entries if e.is_dir() and not e.name.startswith("."))


def _list_images(directory: pathlib.Path, folders: tuple[str, ...]) -> Listing:
    present = _subfolders(directory)
    for name in present:
        if name not in folders:
            raise MisuseError(
                f"Class {name!r} is in {directory} but not in {directory.parent / 'train'}: expected "
                "the same class folders. Remove it, or add its training images."
            )
    if not present:
        raise MisuseError(f"{directory} has no class folders: expected those of train: {', '.join(folders[:5])}.")
    names, lengths, counts = [], [], []
    for folder in folders:
        files = _image_files(directory / folder) if folder in present else []
        names.append(b"".join(files))
        lengths.append(np.fromiter(map(len, files), np.int64, len(files)))
        counts.append(len(files))
    offsets = np.concatenate([[0], *lengths]).astype(np.int64, copy=False)
    return Listing(
        directory=directory,
        folders=folders,
        starts=np.cumsum([0, *counts[:-1]], dtype=np.int64),
        names=b"".join(names),
        offsets=np.cumsum(offsets, out=offsets),
    )


def _image_files(directory: pathlib.Path) -> list[bytes]:
    """Names of the images in one class folder, sorted."""
    suffixes = tuple(suffix.encode() for suffix in SUFFIXES)
    with os.scandir(os.fsencode(directory)) as entries:
        found = (e for e in entries if e.name.lower().endswith(suffixes) and not e.name.startswith(b"."))
        files = sorted(e.name for e in found if not e.is_dir())
    if not files:
        raise MisuseError(
            f"Class folder {directory} holds no images: expected {', '.join(SUFFIXES)} files. Fill it or remove it."
        )
    return files
