"""TensorFlow Datasets (TFDS) with masks, such as `oxford_iiit_pet` and `cityscapes`, read as encoded bytes.

A set has an `image` (or `image_left`) and a mask of one channel under one of the names in `_MASKS`, or under the names
in its supervised_keys. TFDS names the classes only if the mask is a LabeledImage. The classes of the sets below are
built in; others need `num_classes`.

    oxford_iiit_pet    pet, background and border, ids 1 to 3
    cityscapes         the 19 classes of the benchmark among the ids 0 to 33; the others are void

`scene_parse150` is rejected: its masks are the challenge's instances of 100 classes, as colours, not the 150 classes of
ADE20K. For those, use a folder, see `folder`.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from keras_bot.data.sources import tfds as tfds_set
from keras_bot.data.sources.base import run_error
from keras_bot.data.sources.record_files import Reading, record_keys, record_name
from keras_bot.errors import MisuseError
from keras_bot.tasks.segmentation.data import classes
from keras_bot.tasks.segmentation.data.source import SegmentationSource, largest_size, png_size

_IMAGES = ("image", "image_left")
_MASKS = ("segmentation_mask", "segmentation_label", "mask", "annotation", "annotations", "label")
_PET = {1: "pet", 2: "background", 3: "border"}
_CITYSCAPES = {
    7: "road",
    8: "sidewalk",
    11: "building",
    12: "wall",
    13: "fence",
    17: "pole",
    19: "traffic light",
    20: "traffic sign",
    21: "vegetation",
    22: "terrain",
    23: "sky",
    24: "person",
    25: "rider",
    26: "car",
    27: "truck",
    28: "bus",
    31: "train",
    32: "motorcycle",
    33: "bicycle",
}
_NAMES = {"oxford_iiit_pet": _PET, "cityscapes": dict.fromkeys(range(34), "void") | _CITYSCAPES}


def open_tfds_segmentation(
    dataset: str,
    split: str,
    *,
    num_classes: int = 0,
    ignore: Sequence[int] | None = None,
    class_names: Sequence[str] | None = None,
    data_dir: str | None = None,
) -> SegmentationSource:
    """Opens one split.

    Args:
        dataset: TFDS name, also "name/config:version"; prepared on first use.
        split: a TFDS split, also like "train[:90%]"; "eval" as in `tfds_set.split_info`.
        num_classes, ignore, class_names: see `open_segmentation`.
        data_dir: directory of TFDS data; None uses TFDS's default.

    Raises:
        MisuseError: If the name or split is unknown, the set needs a manual download, or its features or classes don't
            fit.
        RunError: If the set could not be downloaded or prepared.
    """
    if dataset.startswith("scene_parse150"):
        raise MisuseError(
            "TFDS's scene_parse150 has masks of single objects of 100 classes, not the 150 classes of ADE20K. Unpack "
            "ADEChallengeData2016.zip and pass its folder."
        )
    builder = tfds_set.prepare(dataset, data_dir)
    features = builder.info.features
    image, mask = _form(dataset, features, builder.info.supervised_keys)
    legend = _legend(dataset, builder, features[mask], num_classes or len(class_names or ()), ignore or ())
    info = tfds_set.split_info(builder, dataset, split)
    keys = record_keys(tfds_set.record_files(info), Reading())
    parse = tfds_set.parser(features, {image: True, mask: True})

    def read(serialized: tf.Tensor, file: tf.Tensor, index: tf.Tensor) -> dict[str, tf.Tensor]:
        record = parse(serialized)
        return {"image": record[image], "mask": record[mask]}

    return SegmentationSource(
        name=f"{dataset} {split}",
        size=info.num_examples,
        keys=keys,
        read=read,
        record_name=lambda serialized, file, index: record_name(file, index),
        largest=functools.cache(lambda: _largest(keys, read)),
        **classes.build_classes(f"TFDS set {dataset!r}", legend, num_classes, ignore, class_names),
    )


def _form(dataset: str, features: Any, supervised_keys: Any = None) -> tuple[str, str]:
    """Returns the feature names of the image and the mask; the set's supervised_keys are tried last."""
    import tensorflow_datasets as tfds

    parts = dict(features.items()) if isinstance(features, tfds.features.FeaturesDict) else {}
    pictures = {name: part for name, part in parts.items() if isinstance(part, tfds.features.Image)}
    keys = supervised_keys if isinstance(supervised_keys, tuple) and len(supervised_keys) == 2 else ("", "")
    images = [name for name in (*_IMAGES, keys[0]) if name in pictures]
    masks = [name for name in (*_MASKS, keys[1]) if name in pictures and pictures[name].shape[-1] == 1]
    if not images or not masks:
        raise MisuseError(
            f"TFDS set {dataset!r} has the features {', '.join(parts) or repr(features)}. Segmentation needs an Image "
            f"`image` and an Image with one channel named {', '.join(_MASKS[:-1])} or {_MASKS[-1]}. Use another set, "
            "or save this one as a folder."
        )
    return images[0], masks[0]


def _legend(dataset: str, builder: Any, mask: Any, num_classes: int, ignore: Sequence[int]) -> classes.Legend:
    own = mask.names if getattr(mask, "num_classes", None) else ()  # a LabeledImage
    names = _NAMES.get(builder.name) or dict(enumerate(own))
    if names:
        return {index: (name, ()) for index, name in names.items()}
    if num_classes < 1:
        raise MisuseError(
            f"TFDS has no class names for {dataset!r}. Set num_classes; the classes are then the lowest ids "
            "that are not ignored."
        )
    return classes.numbered_classes(num_classes, ignore)


def _largest(keys: Callable, read: Callable) -> tuple[int, int]:
    """Returns the greatest height and width in the headers of all masks; reads every record."""

    def header(*key) -> tuple[tf.Tensor, tf.Tensor]:
        return tf.strings.substr(read(*key)["mask"], 0, 24), record_name(*key[1:])

    headers = keys(None, 1).map(header, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    try:
        return largest_size(
            [png_size(data, name.decode(errors="replace")) for data, name in headers.as_numpy_iterator()]
        )
    except tf.errors.OpError as error:
        raise run_error(error) or error from None
