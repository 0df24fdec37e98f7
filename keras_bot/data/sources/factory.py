"""Opens any supported data set, by name or path, as a `Source`."""

import dataclasses
import os
import re
from typing import Any

from keras_bot.data.config import check_names, field_names
from keras_bot.data.sources.arrays import open_npz, open_synthetic
from keras_bot.data.sources.base import Source, share_of
from keras_bot.data.sources.folder import open_folder
from keras_bot.data.sources.tfds import known_names, open_tfds
from keras_bot.data.sources.tfrecord import has_shards, open_tfrecord
from keras_bot.errors import MisuseError


@dataclasses.dataclass(frozen=True, kw_only=True)
class SourceOptions:
    """Options of `open_source`.

    Attributes:
        data_dir: the TFDS data directory; ignored for other data sets.
        num_classes: 0 takes it from the data (1000 for "synthetic"); otherwise it must agree with the data.
        synthetic_images: number of images of "synthetic".
        image_size: height and width of the images of "synthetic".
        tfds_split: a split in TFDS notation, such as "train[:90%]", that overrides `split`.
        first_label: 0 or 1: the label of the first class in TFRecord shards without a manifest. TensorFlow's
            ImageNet shards have labels from 1.
        read_config: a `tfds.ReadConfig`, for any kind of data set. With an `input_context` the source is one worker's
            share; shares are disjoint. In training all shares have the same size and the remainder is dropped; in
            evaluation it is distributed over the first shares. `interleave_cycle_length` and
            `interleave_block_length` apply to record files. Other fields are ignored.
    """

    data_dir: str | None = None
    num_classes: int = 0
    synthetic_images: int = 1024
    image_size: int = 224
    tfds_split: str = ""
    first_label: int = 0
    read_config: Any = None

    def __post_init__(self):
        if self.num_classes < 0:
            raise MisuseError(f"num_classes must be at least 0, received {self.num_classes}. 0 takes it from the data.")


def open_source(dataset: str | os.PathLike, split: str = "train", **options: Any) -> Source:
    """Opens one split of a data set.

    Args:
        dataset: "synthetic"; a path ending in .npz; a path of an image folder, or of a folder of TFRecord shards in
            the ImageNet layout; or the name of a TFDS set, among them "digits", which needs no download.
        split: "train" or "eval".
        **options: fields of `SourceOptions`: data_dir, num_classes, synthetic_images, image_size, tfds_split,
            first_label, read_config.

    Raises:
        MisuseError: there is no such data set, or its contents are not valid.
        RunError: a TFDS set could not be prepared, or a TFRecord shard is truncated.
        TypeError: there is no such option.
    """
    check_names("open_source", options, field_names(SourceOptions))
    chosen = SourceOptions(**options)
    dataset, num_classes, first_label = os.fspath(dataset), chosen.num_classes, chosen.first_label
    if split not in ("train", "eval"):
        raise MisuseError(f"split must be 'train' or 'eval', received {split!r}.")
    if not dataset:
        raise MisuseError("The name of the data set is empty. Pass a path, or a name such as 'digits'.")
    is_folder, is_npz = _is_folder(dataset), dataset.endswith(".npz")
    is_tfds = dataset != "synthetic" and not is_npz and not is_folder
    is_shards = is_folder and not is_npz and has_shards(dataset)
    if chosen.tfds_split and not is_tfds:
        raise MisuseError(
            f"tfds_split={chosen.tfds_split!r} is only supported for TFDS sets, and {dataset!r} is not one. Remove it."
        )
    if first_label not in ((0, 1) if is_shards else (0,)):
        raise MisuseError(
            f"first_label must be 0, or 1 for TFRecord shards, received {first_label} for {dataset!r}. Leave it at 0."
        )
    if is_tfds:
        return open_tfds(dataset, split, chosen.data_dir, num_classes, chosen.tfds_split, chosen.read_config)
    if is_shards:
        return open_tfrecord(dataset, split, num_classes, first_label, chosen.read_config)
    if dataset == "synthetic":
        source = open_synthetic(split, num_classes, chosen.synthetic_images, chosen.image_size)
    else:
        source = (open_npz if is_npz else open_folder)(dataset, split, num_classes)
    return source.shared(share_of(chosen.read_config, source.size, split))


def _is_folder(dataset: str) -> bool:
    """Returns whether it is a path: it exists, or has a separator and does not start with the name of a TFDS set."""
    if os.path.exists(os.path.expanduser(dataset)):
        return True
    if os.sep not in dataset and "/" not in dataset:
        return False
    return re.split(r"[/:]", dataset)[0] not in known_names()
