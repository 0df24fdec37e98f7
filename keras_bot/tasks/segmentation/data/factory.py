"""Opens segmentation data in a folder or a TFDS set."""

import os
import pathlib
from collections.abc import Sequence
from typing import Any

from keras_bot.data.sources import tfds as tfds_set
from keras_bot.errors import MisuseError
from keras_bot.tasks.segmentation.data.folder import open_folder
from keras_bot.tasks.segmentation.data.source import SegmentationSource
from keras_bot.tasks.segmentation.data.tfds import open_tfds_segmentation


def open_segmentation(
    dataset: str | os.PathLike,
    split: str = "train",
    *,
    num_classes: int = 0,
    ignore: Sequence[int] | None = None,
    class_names: Sequence[str] | None = None,
    data_dir: str | None = None,
) -> SegmentationSource:
    """Opens one split without reading its images.

    Args:
        dataset: a folder (see `folder`), or the name of a TFDS set (see `tfds`).
        split: its name in the data set; "eval" is the first existing split of val, validation and test, or for TFDS
            of validation, test and val.
        num_classes: expected number of classes, or 0. Required if the data does not name its classes; these are then
            the lowest ids that aren't ignored.
        ignore: ids that count as unlabelled, like 255 unless 255 is named as a class. None: ids named unlabelled, void
            or ignore.
        class_names: names that define the order of the labels, for example those of a trained network; the data must
            have exactly these. None takes them from the data.
        data_dir: directory of TFDS data.

    Raises:
        MisuseError: If the set or split does not exist or has an unsupported layout, an image or mask is missing, or
            the classes differ from `num_classes` or `class_names`. The message names the file.
        RunError: If a TFDS set could not be prepared.
    """
    options: dict[str, Any] = {"num_classes": num_classes, "ignore": ignore, "class_names": class_names}
    path = pathlib.Path(dataset).expanduser()
    if path.exists() or not tfds_set.is_name(str(dataset)):
        if data_dir is not None:
            raise MisuseError(f"data_dir does not apply to the folder {path}. Remove it.")
        return open_folder(path, split, **options)
    return open_tfds_segmentation(str(dataset), split, data_dir=data_dir, **options)
