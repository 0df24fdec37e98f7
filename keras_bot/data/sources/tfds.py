"""TensorFlow Datasets: prepared on first use unless a manual download is required, read as encoded bytes."""

import contextlib
import io
import os
import re
from collections.abc import Callable, Iterator
from typing import Any

import tensorflow as tf

from keras_bot.data.sources.base import TFDS_EVAL_SPLITS, Source, check_num_classes, share_of
from keras_bot.data.sources.record_files import Records, reading_of, record_keys, record_name, take_share
from keras_bot.errors import MisuseError, RunError, unknown

_NAME = r"\w+(/[\w.-]+)?(:[\w.]+)?"


def known_names() -> list[str]:
    """Returns the names of all TFDS sets, including `digits`."""
    return _tfds().list_builders(with_community_datasets=False)


def is_name(text: str) -> bool:
    """Returns whether a text has the form of a TFDS name: name, with optional /config and :version."""
    return re.fullmatch(_NAME, text) is not None


def open_tfds(
    dataset: str, split: str, data_dir: str | None, num_classes: int, tfds_split: str = "", read_config: Any = None
) -> Source:
    """Opens one split of a TFDS set with features `image` and `label`, or those in its supervised_keys.

    Args:
        dataset: TFDS name, also "name/config:version".
        split: "train" or "eval"; "eval" uses the first of validation, test and val that exists.
        data_dir: the TFDS data directory; None is the TFDS default.
        num_classes: 0, or the expected number.
        tfds_split: a TFDS split such as "train[:90%]" that overrides `split`.
        read_config: see `open_source`.

    Raises:
        MisuseError: the name or split is unknown, or the set needs a manual download or lacks these features.
        RunError: the set could not be downloaded or prepared.
    """
    builder = prepare(dataset, data_dir)
    features = builder.info.features
    image, label_name = _image_and_label(dataset, builder.info)
    label = features[label_name]
    check_num_classes(f"TFDS set {dataset!r}", num_classes, label.num_classes)
    info = split_info(builder, dataset, tfds_split or split)
    parse = parser(features, {image: True, label_name: True})

    def read(serialized: tf.Tensor, file: tf.Tensor, index: tf.Tensor) -> dict[str, tf.Tensor]:
        record = parse(serialized)
        return {"image": record[image], "label": record[label_name], "name": record_name(file, index)}

    share = share_of(read_config, info.num_examples, split)
    return Source(
        name=f"{dataset} {tfds_split or split}",
        num_classes=label.num_classes,
        class_names=tuple(label.names),
        size=share.size,
        keys=record_keys(take_share(record_files(info), share), reading_of(read_config)),
        read=read,
        record_name=lambda serialized, file, index: record_name(file, index),
    )


def _image_and_label(dataset: str, info: Any) -> tuple[str, str]:
    """Returns the names of an Image and a ClassLabel: `image` and `label`, else those of the supervised_keys."""
    features = _tfds().features
    parts = dict(info.features.items()) if isinstance(info.features, features.FeaturesDict) else {}
    pairs = [("image", "label")]
    if isinstance(info.supervised_keys, tuple) and len(info.supervised_keys) == 2:
        pairs.append(info.supervised_keys)
    for image, label in pairs:
        found = [parts.get(name) if isinstance(name, str) else None for name in (image, label)]
        if isinstance(found[0], features.Image) and isinstance(found[1], features.ClassLabel):
            return image, label
    raise MisuseError(
        f"TFDS set {dataset!r} has the features {', '.join(parts) or repr(info.features)}. Classification needs an "
        "Image `image` and a ClassLabel `label`, or two such features in its supervised_keys. Choose a set for image "
        "classification, or save it as an image folder."
    )


def _tfds() -> Any:
    """Returns TFDS with `digits` registered; imported lazily because it is slow and other sources do not need it."""
    import tensorflow_datasets

    from keras_bot.data.sources import digits

    del digits
    return tensorflow_datasets


def prepare(dataset: str, data_dir: str | None) -> Any:
    """Returns the builder of a data set; downloads and prepares the set if it is not on disk yet.

    Args:
        dataset: TFDS name, also "name/config:version".
        data_dir: the TFDS data directory; None is the TFDS default.

    Raises:
        MisuseError: the name is unknown, or the set needs a manual download or is not stored as TFRecord files.
        RunError: the set could not be downloaded or prepared.
    """
    builder = _prepared(dataset, data_dir)
    file_format = str(getattr(builder.info.file_format, "value", builder.info.file_format))
    if file_format != "tfrecord":
        raise MisuseError(
            f"TFDS set {dataset!r} is stored as {file_format}; only tfrecord is supported. Build it with "
            f"`tfds build {builder.name} --file_format=tfrecord`."
        )
    return builder


def _prepared(dataset: str, data_dir: str | None) -> Any:
    """Prepares the set without querying Google Cloud Storage, which would wait for the network."""
    tfds = _tfds()
    where = os.path.expanduser(data_dir) if data_dir else None
    try:
        builder = tfds.builder(dataset, data_dir=where)
    except tfds.core.registered.DatasetNotFoundError as error:
        unknown_name = unknown("data set", dataset, known_names())
        raise MisuseError(f"{unknown_name} There is no folder or file of that name either.") from error
    except (AssertionError, ValueError, RuntimeError) as error:
        raise MisuseError(f"TFDS can't open {dataset!r}. Pass name, name/config or name:version. {error}") from error
    if builder.data_path.exists():
        return builder
    if builder.MANUAL_DOWNLOAD_INSTRUCTIONS:
        raise MisuseError(
            f"TFDS set {dataset!r} isn't prepared in {builder.data_path} and needs a manual download: "
            f"{' '.join(builder.MANUAL_DOWNLOAD_INSTRUCTIONS.split())} Then prepare it with "
            f"`tfds build {builder.name}`, or set data_dir to where it is prepared."
        )
    try:
        with _quietly(tfds) if builder.name == "digits" else contextlib.nullcontext():
            builder.download_and_prepare(download_config=tfds.download.DownloadConfig(try_download_gcs=False))
    except ImportError as error:
        raise RunError(f"TFDS needs the package {error.name!r} to prepare {dataset!r}. Install it.") from error
    except Exception as error:
        # Two processes may prepare a set at once: the first moves its folder into place, the second fails to.
        if not builder.data_path.exists():
            raise RunError(
                f"TFDS set {dataset!r} could not be prepared in {builder.data_path}: {type(error).__name__}: "
                f"{str(error)[:300]}. Prepare it on a machine with network access with `tfds build {builder.name}`, "
                "and set data_dir to its folder."
            ) from error
        builder = tfds.builder(dataset, data_dir=where)
    return builder


@contextlib.contextmanager
def _quietly(tfds: Any) -> Iterator[None]:
    """Disables TFDS's progress bars and prints, for short preparations."""
    tfds.disable_progress_bar()
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        tfds.enable_progress_bar()


def split_info(builder: Any, dataset: str, split: str) -> Any:
    """Returns TFDS's SplitInfo.

    Args:
        builder: builder of the set.
        dataset: name given by the user, for error messages.
        split: a TFDS split, also like "train[:90%]" or "train+validation"; "eval" is the first of validation, test
            and val that exists.

    Raises:
        MisuseError: there is no such split, or it is empty.
    """
    splits = builder.info.splits
    known = ", ".join(splits)
    name = next((name for name in TFDS_EVAL_SPLITS if name in splits), "") if split == "eval" else split
    if not name:
        raise MisuseError(
            f"TFDS set {dataset!r} has no split {' or '.join(TFDS_EVAL_SPLITS)}, only {known}. Choose one of these."
        )
    try:
        info = splits[name]
    except (KeyError, ValueError, AssertionError) as error:
        raise MisuseError(
            f"TFDS set {dataset!r} has no split {name!r}. Choose one of {known}, or a part of one like 'train[:90%]'."
        ) from error
    if not info.num_examples:
        raise MisuseError(f"Split {name!r} of TFDS set {dataset!r} is empty. Choose a larger part.")
    return info


def record_files(info: Any) -> list[Records]:
    """Returns the files and record ranges of a SplitInfo, in natural order."""
    return [Records(str(part.filename), part.skip, part.take) for part in info.file_instructions]


def parser(features: Any, wanted: dict) -> Callable[[tf.Tensor], dict]:
    """Returns a graph function that parses some features of a serialised record; images stay encoded.

    Args:
        features: the set's FeaturesDict.
        wanted: the names of the features to parse, each mapped to True, or to a nested dict of this form.
    """
    tfds = _tfds()
    chosen = tfds.decode.PartialDecoding(wanted).extract_features(features)
    images = [name for name in wanted if isinstance(features[name], tfds.features.Image)]
    decoders = {name: tfds.decode.SkipDecoding() for name in images}
    return lambda serialized: chosen.deserialize_example(serialized, decoders=decoders)
