"""The one door to data: a name or a path -> `Source`."""

import os
import re

from keras_bot.data.arrays import open_npz, open_synthetic
from keras_bot.data.folder import open_folder
from keras_bot.data.source import Source
from keras_bot.data.tfds_set import known_names, open_tfds
from keras_bot.errors import MisuseError


def open_source(
    dataset: str,
    split: str = "train",
    *,
    data_dir: str | None = None,
    num_classes: int = 0,
    synthetic_images: int = 1024,
    image_size: int = 224,
    tfds_split: str = "",
    first_label: int = 0,
    read_config=None,
) -> Source:
    """Open one split of a data set.

    Args:
        dataset: "synthetic"; a path ending in .npz; a path of an image folder; or the name of a TFDS set, among
            them "digits", which needs no download.
        split: "train" or "eval".
        data_dir: where TFDS keeps its data; the others don't look at it.
        num_classes: 0 takes it from the data (1000 for "synthetic"); otherwise it must agree with the data.
        synthetic_images: number of images of "synthetic".
        image_size: height and width of the images of "synthetic".
        tfds_split: a split in TFDS's own notation, as "train[:90%]", instead of the one that `split` stands for.

    Raises:
        MisuseError: there is no such data set, or it has another form; says what was expected and what to do.
        RunError: a TFDS set could not be prepared.
    """
    if split not in ("train", "eval"):
        raise MisuseError(f"Expected split 'train' or 'eval', received {split!r}.")
    if num_classes < 0:
        raise MisuseError(f"Expected num_classes >= 0, received {num_classes}. 0 takes it from the data.")
    if not dataset:
        raise MisuseError("Expected a data set, received an empty name. Give a path or a name such as 'digits'.")
    is_tfds = dataset != "synthetic" and not dataset.endswith(".npz") and not _is_folder(dataset)
    if tfds_split and not is_tfds:
        raise MisuseError(f"tfds_split {tfds_split!r} is for TFDS sets, but {dataset!r} is none. Leave it empty.")
    if is_tfds:
        return open_tfds(dataset, split, data_dir, num_classes, tfds_split)
    if dataset == "synthetic":
        return open_synthetic(split, num_classes, synthetic_images, image_size)
    return (
        open_npz(dataset, split, num_classes) if dataset.endswith(".npz") else open_folder(dataset, split, num_classes)
    )


def _is_folder(dataset: str) -> bool:
    """Whether a path is meant: it exists, or has a separator and doesn't begin with a TFDS set's name."""
    if os.path.exists(os.path.expanduser(dataset)):
        return True
    if os.sep not in dataset and "/" not in dataset:
        return False
    return re.split(r"[/:]", dataset)[0] not in known_names()
