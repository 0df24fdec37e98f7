"""Loading of another library's weight file into one of our networks."""

import dataclasses
import hashlib
import json
import os
import pathlib

import keras

from keras_bot import models
from keras_bot.errors import MisuseError, unknown
from keras_bot.interop import architecture
from keras_bot.interop.files import read_metadata, read_tensors
from keras_bot.interop.matching import check_source, recognise
from keras_bot.interop.preprocessing import find_preprocessing, usual
from keras_bot.interop.report import Report
from keras_bot.interop.timm_file import METADATA, timm_name
from keras_bot.interop.weights import into


def load(
    file: str | os.PathLike,
    model: str | keras.Model | None = None,
    *,
    source: str,
    num_classes: int | None = None,
    head: str = "keep",
    normalisation: str = "ours",
    preprocessing: dict | None = None,
    config: str | os.PathLike | None = None,
) -> tuple[keras.Model, Report]:
    """Loads a weight file into one of our networks; returns the network and a report.

    Args:
        file: path of the weights; see `files` for the formats.
        model: the network's name, or a network whose weights are replaced; None detects the network from the file.
        source: timm, torchvision, keras_hub, keras_applications, gluoncv or paddleclas.
        num_classes: number of classes of the network; None is the file's, or that of a given network. With a number
            other than the file's, the head is new.
        head: "keep" uses the file's head if the number of classes is the same; "new" never uses it.
        normalisation: normalisation of the network's input, "ours" or "theirs": see `weights.into`.
        preprocessing: overrides for what `find_preprocessing` returns.
        config: the source's JSON file of preprocessing settings; None looks for one in the folder of `file`.

    Raises:
        MisuseError: if the file cannot be read or does not exactly match the network. A given model is unchanged.
    """
    check_source(source)
    file = pathlib.Path(file)
    tensors = read_tensors(file)
    name, classes, looks = recognise(tensors, source)
    found, more = _find_preprocessing(file, source, config, name)
    for key in preprocessing or {}:
        if key not in found:
            raise unknown("part of preprocessing", key, found)
    told = more.get("architecture")
    if name and told and told != timm_name(name):
        raise MisuseError(
            f"Expected in {file} the weights of timm's {told}, as the config says; it looks like {looks}."
        )
    if not isinstance(model, keras.Model):
        model = _create(model, name, looks, num_classes or classes, file, source)
    elif num_classes not in (None, model.output_shape[-1]):
        raise MisuseError(f"Expected num_classes as the model has, {model.output_shape[-1]}, received {num_classes}.")
    options = {"head": head, "normalisation": normalisation, "preprocessing": found | (preprocessing or {})}
    report = into(model, tensors, source, **options, file=str(file))
    fact = {"name": file.name} | ({"sha256": _sha256(file)} if file.is_file() else {})
    return model, dataclasses.replace(report, file=fact, class_names=tuple(more.get("class_names", ())))


def _create(wanted, name, looks, classes, file, source):
    if wanted is not None and wanted not in models.names():
        raise unknown("model", wanted, models.names())
    if name is None or not architecture.same(wanted or name, name):
        wanted = wanted or "a network of keras_bot's"
        raise MisuseError(f"Expected in {file} the weights of {wanted}, as {source} has them; it looks like {looks}.")
    if classes is None:
        raise MisuseError(f"Expected num_classes for a new head, since {file} has none; it looks like {looks}.")
    return models.create(wanted or name, num_classes=classes, dtype="float32")


def _find_preprocessing(file, source, config, network):
    """Returns the preprocessing in the user's config, the file, or a config in its folder, else the source's usual."""
    own = read_metadata(file).get(METADATA) if source == "timm" and config is None else None
    if own:
        told = json.loads(own)
        return usual(source, network) | {key: tuple(v) if isinstance(v, list) else v for key, v in told.items()}, {}
    return find_preprocessing(file, source, pathlib.Path(config) if config else None, network)


def _sha256(file):
    digest = hashlib.sha256()
    with open(file, "rb") as content:
        while part := content.read(2**20):
            digest.update(part)
    return digest.hexdigest()
