"""Loading of networks from .keras files, run directories and exported SavedModels, without running their code."""

import json
import os
import pathlib
import zipfile
from collections.abc import Iterable

import keras
import numpy as np
import tensorflow as tf

from keras_bot.data.augment.color import MEAN, STD
from keras_bot.errors import MisuseError, RunError, first_few, first_line
from keras_bot.paths import loadable

SAVEDMODEL_DESCRIPTION = pathlib.Path("assets.extra") / "model.json"
SAVEDMODEL_CONFIG = pathlib.Path("assets.extra") / "network.json"  # the network's Keras configuration
ARCHIVED_DESCRIPTION = "model.json"  # in the archive of a .keras or .tflite file


def read_network(path: str | pathlib.Path) -> tuple[keras.Model, dict]:
    """Rebuilds a network from its configuration, loads its weights, and returns it with its description.

    Args:
        path: a .keras file, the directory of a finished run, or a SavedModel that keras_bot exported.

    Returns:
        The model, from normalised images to logits, float32 and uncompiled; and the content of its model.json or of
        metrics.json in the same directory, {} if there is none.

    Raises:
        MisuseError: if `path` is none of these, or the network can't be read.
        RunError: if weights are not finite, or the description can't be read.
    """
    path = pathlib.Path(path)
    if not path.exists():
        raise MisuseError(f"{path} does not exist. Pass a .keras file, a run directory or an exported SavedModel.")
    if (path / "saved_model.pb").exists():
        return _from_savedmodel(path)
    if path.is_dir():
        if not (path / "metrics.json").exists():
            raise MisuseError(
                f"The directory {path} is neither a finished run nor an exported SavedModel. Pass one of these, or a "
                ".keras file."
            )
        return load_network(path / "model.keras"), _read_json(path / "metrics.json")
    network, metrics = load_network(path), path.with_name("metrics.json")
    return network, read_description(path) or (_read_metrics(metrics) if metrics.exists() else {})


def class_names_of(description: dict) -> list[str]:
    """Returns the class names in a description from `read_network`, in label order; [] if it contains none."""
    return description.get("class_names") or description.get("dataset", {}).get("class_names", [])


def load_network(path: str | pathlib.Path, *, num_classes: int | None = None) -> keras.Model:
    """Loads a .keras file without its training state and without running code from it.

    For an exported file, returns the network inside.

    Raises:
        MisuseError: if it can't be read, is not a classifier, or does not have `num_classes` classes.
        RunError: if it has weights that are not finite.
    """
    if not pathlib.Path(path).is_file():
        raise MisuseError(
            f"The .keras file {path} does not exist. A finished run contains model.keras; `keras-bot train --resume` "
            "finishes an interrupted run."
        )
    if not zipfile.is_zipfile(path):
        raise MisuseError(f"Cannot load {path}: it is damaged, or not a .keras file.")
    no_classifier = (
        f"{path} does not contain a classifier, with one output (batch, classes). Pass a run or an export of "
        "--task=classification."
    )
    try:
        model = keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # Keras raises arbitrary exceptions for damaged files
        if "Could not locate class" in str(error):
            raise MisuseError(no_classifier) from None
        raise MisuseError(f"Cannot load {path} as a .keras file: {first_line(error)}") from None
    model = without_preprocessing(model)
    outputs = getattr(model, "outputs", None) or []
    if len(outputs) != 1 or len(outputs[0].shape) != 2:
        raise MisuseError(no_classifier)
    classes = outputs[0].shape[-1]
    if num_classes is not None and classes != num_classes:
        raise MisuseError(f"{path} has {classes} classes, but the data set has {num_classes}.")
    check_finite(model.variables, path)
    return model


def check_finite(variables: Iterable[keras.Variable | tf.Variable], path: str | os.PathLike) -> None:
    """Raises RunError with the variables' names if values read from `path` are not finite."""
    broken = []
    for variable in variables:
        values = np.asarray(variable)
        if np.issubdtype(values.dtype, np.inexact) and not (finite := np.isfinite(values)).all():
            name = getattr(variable, "path", variable.name)
            broken.append(f"{name} ({values.size - np.count_nonzero(finite)} of {values.size} values)")
    if broken:
        raise RunError(f"{path} contains weights that are not finite: {first_few(broken)}. Use another file.")


def with_preprocessing(network: keras.Model) -> keras.Model:
    """Wraps a network to map "images" (B, H, W, 3) float32 in 0 … 255 to "probabilities"."""
    images = keras.Input((None, None, 3), name="images")
    scale, offset = [1 / std for std in STD], [-mean / std for mean, std in zip(MEAN, STD, strict=True)]
    x = network(keras.layers.Rescaling(scale, offset, name="normalise")(images))
    return keras.Model(images, keras.layers.Softmax(name="probabilities")(x), name=f"{network.name}_of_images")


def without_preprocessing(model: keras.Model) -> keras.Model:
    """Returns the network that `with_preprocessing` wrapped, or the model itself if it is not wrapped."""
    match getattr(model, "layers", ()):
        case (
            keras.layers.InputLayer(),
            keras.layers.Rescaling(scale=scale),
            keras.Model() as network,
            keras.layers.Softmax(),
        ) if np.allclose(scale, 1 / np.array(STD)):
            return network
    return model


def read_description(path: str | os.PathLike) -> dict:
    """Reads the description in an exported file's archive, {} if it has none. Raises RunError if it can't be read."""
    try:
        with zipfile.ZipFile(path) as archive:
            stored = ARCHIVED_DESCRIPTION in archive.namelist()
            return json.loads(archive.read(ARCHIVED_DESCRIPTION)) if stored else {}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise RunError(f"Cannot read the description in {path}: {error}.") from None


def check_savedmodel(path: str | os.PathLike) -> None:
    """Raises MisuseError unless there is a SavedModel at `path`."""
    if not (pathlib.Path(path) / "saved_model.pb").exists():
        raise MisuseError(f"{os.fspath(path)} is not a SavedModel, as `keras-bot export` writes it without --format.")


def _from_savedmodel(path):
    if not (path / SAVEDMODEL_CONFIG).exists():
        raise MisuseError(
            f"The SavedModel {path} contains no {SAVEDMODEL_CONFIG}, so keras_bot did not export it, or an old version "
            "did. Export the network again."
        )
    description = _read_json(path / SAVEDMODEL_DESCRIPTION)
    if "task" in description:
        raise MisuseError(f"{path} contains a network for {description['task']}, but a classifier is needed.")
    try:
        model = keras.models.model_from_json((path / SAVEDMODEL_CONFIG).read_text(encoding="utf-8"))
        with loadable(path) as folder:
            reader = tf.train.load_checkpoint(os.path.join(folder, "variables", "variables"))
            names = [f"variables/{i}/.ATTRIBUTES/VARIABLE_VALUE" for i in range(len(model.variables))]
            values = [reader.get_tensor(name) for name in names]
        for variable, value in zip(model.variables, values, strict=True):
            variable.assign(value)
    except Exception as error:  # Keras and TensorFlow raise arbitrary exceptions for damaged files
        raise MisuseError(f"Cannot read the network of the SavedModel {path}: {first_line(error)}") from None
    check_finite(model.variables, path)
    return model, description


def _read_metrics(path):
    """Reads a run's metrics.json; returns {} if keras_bot did not write it."""
    metrics = _read_json(path)
    return metrics if all(isinstance(metrics.get(name), dict) for name in ("recipe", "dataset")) else {}


def _read_json(path):
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise RunError(f"Cannot read {path}: {error}.") from None
    if not isinstance(content, dict):
        raise RunError(f"{path} must contain a JSON object, but contains a {type(content).__name__}. Restore it.")
    return content
