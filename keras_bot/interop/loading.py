"""Loading of another library's weight file into one of our networks."""

import dataclasses
import hashlib
import json
import os
import pathlib

import keras

from keras_bot import models
from keras_bot.errors import MisuseError, unknown
from keras_bot.interop.files import read_metadata, read_tensors
from keras_bot.interop.matching import check_network, check_source, recognise
from keras_bot.interop.preprocessing import default_preprocessing, find_preprocessing
from keras_bot.interop.report import Report
from keras_bot.interop.timm_file import METADATA, timm_name
from keras_bot.interop.weights import assign_tensors


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
        num_classes: number of classes of the network; None uses the file's, or that of `model` if it is a network.
            With a number other than the file's, the head is new.
        head: "keep" uses the file's head if the number of classes is the same; "new" never uses it.
        normalisation: normalisation of the network's input, "ours" or "theirs": see `assign_tensors`.
        preprocessing: overrides of the result of `find_preprocessing`.
        config: the source's JSON file of preprocessing settings; None looks for one in the folder of `file`.

    Raises:
        MisuseError: if the file cannot be read or does not exactly match the network. A given model is unchanged.
    """
    check_source(source)
    file = pathlib.Path(file)
    tensors = read_tensors(file)
    content = recognise(tensors, source)
    found, more = _find_preprocessing(file, source, config, content.network)
    for key in preprocessing or {}:
        if key not in found:
            raise unknown("preprocessing setting", key, found)
    architecture = more.get("architecture")
    if content.network and architecture and architecture != timm_name(content.network):
        raise MisuseError(
            f"The config of {file} is for timm's {architecture}, but the file contains {content.description}."
        )
    if not isinstance(model, keras.Model):
        model = _create(model, content, num_classes or content.classes, file, source)
    elif num_classes not in (None, model.output_shape[-1]):
        raise MisuseError(f"num_classes={num_classes}, but the model has {model.output_shape[-1]} classes.")
    options = {"head": head, "normalisation": normalisation, "preprocessing": found | (preprocessing or {})}
    report = assign_tensors(model, tensors, source, **options, file=str(file))
    origin = {"name": file.name} | ({"sha256": _sha256(file)} if file.is_file() else {})
    return model, dataclasses.replace(report, file=origin, class_names=tuple(more.get("class_names", ())))


def _create(name, content, classes, file, source):
    if name is not None and name not in models.names():
        raise unknown("model", name, models.names())
    check_network(content, name, file, source)
    if classes is None:
        raise MisuseError(f"{file} contains {content.description}. Pass num_classes to add a new head.")
    return models.create_model(name or content.network, num_classes=classes, dtype="float32")


def _find_preprocessing(file, source, config, network):
    """Returns the preprocessing in the user's config, the file, or a config in its folder, else source defaults."""
    stored = read_metadata(file).get(METADATA) if source == "timm" and config is None else None
    if stored:
        values = {key: tuple(v) if isinstance(v, list) else v for key, v in json.loads(stored).items()}
        return default_preprocessing(source, network) | values, {}
    return find_preprocessing(file, source, pathlib.Path(config) if config else None, network)


def _sha256(file):
    digest = hashlib.sha256()
    with open(file, "rb") as content:
        while part := content.read(2**20):
            digest.update(part)
    return digest.hexdigest()
