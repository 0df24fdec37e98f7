"""A folder of images: `train/CLASS/*.jpg` and `val/CLASS/*.jpg`. Classes are `train`'s folders, sorted."""

import os
import pathlib

import numpy as np
import tensorflow as tf

from keras_bot.data.source import Source, check_num_classes, cpu_constant, indices
from keras_bot.errors import MisuseError

SUFFIXES = (".jpg", ".jpeg", ".png", ".gif", ".bmp")

_EVAL_FOLDERS = ("val", "validation", "test")


def open_folder(folder: str, split: str, num_classes: int) -> Source:
    """Open one split of a folder; only names are read, the images when a pipeline wants them.

    Args:
        folder: holds `train` and one of `val`, `validation`, `test`.
        split: "train" or "eval".
        num_classes: 0, or what is expected.

    Raises:
        MisuseError: the folder has another layout, a class without images, or in `val` a class that `train` lacks.
    """
    root = pathlib.Path(folder).expanduser()
    layout = "expected train/CLASS/*.jpg and val/CLASS/*.jpg (or .jpeg, .png, .gif, .bmp)"
    if not root.is_dir():
        raise MisuseError(f"No folder {str(root)!r}: {layout}. Check the path.")
    class_names = _subfolders(root / "train")
    if not class_names:
        kind = "empty of class folders" if (root / "train").is_dir() else "missing"
        raise MisuseError(f"{root / 'train'} is {kind}: {layout}. Sort the images into such folders.")
    check_num_classes(str(root), num_classes, len(class_names))
    directory = root / "train" if split == "train" else _eval_folder(root, layout)
    paths, labels = _list_images(directory, class_names)
    return _source(root, directory, paths, labels, class_names)


def _source(
    root: pathlib.Path, directory: pathlib.Path, paths: list[str], labels: list[int], class_names: list[str]
) -> Source:
    names, classes = cpu_constant(paths), cpu_constant(np.array(labels, np.int64))
    prefix = f"{root}{os.sep}"

    def read(index: tf.Tensor) -> dict[str, tf.Tensor]:
        name = tf.gather(names, index)
        return {"image": tf.io.read_file(prefix + name), "label": tf.gather(classes, index), "name": name}

    return Source(
        name=str(directory),
        num_classes=len(class_names),
        class_names=tuple(class_names),
        size=len(paths),
        keys=indices(len(paths)),
        read=read,
        record_name=lambda index: tf.gather(names, index),
    )


def _eval_folder(root: pathlib.Path, layout: str) -> pathlib.Path:
    for name in _EVAL_FOLDERS:
        if (root / name).is_dir():
            return root / name
    raise MisuseError(
        f"{root} has no folder to evaluate on: {layout}; tried {', '.join(_EVAL_FOLDERS)}. Add one of these."
    )


def _subfolders(directory: pathlib.Path) -> list[str]:
    if not directory.is_dir():
        return []
    return sorted(e.name for e in os.scandir(directory) if e.is_dir() and not e.name.startswith("."))


def _list_images(directory: pathlib.Path, class_names: list[str]) -> tuple[list[str], list[int]]:
    """Paths relative to the data set's folder, sorted, and their labels."""
    number = {name: i for i, name in enumerate(class_names)}
    paths: list[str] = []
    labels: list[int] = []
    for name in _subfolders(directory):
        if name not in number:
            raise MisuseError(
                f"Class {name!r} is in {directory} but not in {directory.parent / 'train'}: expected "
                "the same class folders. Remove it, or add its training images."
            )
        files = sorted(e.name for e in os.scandir(directory / name) if e.name.lower().endswith(SUFFIXES))
        if not files:
            raise MisuseError(
                f"Class folder {directory / name} holds no images: expected {', '.join(SUFFIXES)} files. "
                "Fill it or remove it."
            )
        paths += [os.path.join(directory.name, name, file) for file in files]
        labels += [number[name]] * len(files)
    if not paths:
        raise MisuseError(f"{directory} has no class folders: expected those of train: {', '.join(class_names[:5])}.")
    return paths, labels
