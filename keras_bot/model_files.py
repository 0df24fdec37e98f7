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

DESCRIPTION = pathlib.Path("assets.extra") / "model.json"
NETWORK = pathlib.Path("assets.extra") / "network.json"
CARD = "model.json"  # in the archive of an exported file


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
        raise MisuseError(
            f"Expected a .keras file, a run directory or an exported SavedModel, received {path}, which isn't there."
        )
    if (path / "saved_model.pb").exists():
        return _from_savedmodel(path)
    if path.is_dir():
        if not (path / "metrics.json").exists():
            raise MisuseError(
                "Expected a .keras file, a run directory or an exported SavedModel, received the directory "
                f"{path}, which is none of them."
            )
        return load_network(path / "model.keras"), _json(path / "metrics.json")
    network, beside = load_network(path), path.with_name("metrics.json")
    return network, read_card(path) or (_of_a_run(beside) if beside.exists() else {})


def class_names_of(known: dict) -> list[str]:
    """Returns the class names in a description from `read_network`, in label order; [] if it contains none."""
    return known.get("class_names") or known.get("dataset", {}).get("class_names", [])


def load_network(path: str | pathlib.Path, *, num_classes: int | None = None) -> keras.Model:
    """Loads a .keras file without its training state and without running code from it.

    For an exported file, returns the network inside.

    Raises:
        MisuseError: if it can't be read, is not a classifier, or does not have `num_classes` classes.
        RunError: if it has weights that are not finite.
    """
    if not pathlib.Path(path).is_file():
        raise MisuseError(
            f"Expected a .keras file, received {path}, which isn't there. A finished run has model.keras; "
            "`keras-bot train --resume` finishes one that was interrupted."
        )
    if not zipfile.is_zipfile(path):
        raise MisuseError(f"Can't load {path}: it is damaged, or no .keras file.")
    other = f"Expected {path} to hold a classifier, with one output (batch, classes); it holds another network."
    try:
        model = keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # Keras raises arbitrary exceptions for damaged files
        if "Could not locate class" in str(error):
            raise MisuseError(f"{other} Give a run or an export of --task=classification.") from None
        raise MisuseError(f"Can't load {path} as a .keras file: {first_line(error)}") from None
    model = within(model)
    outputs = getattr(model, "outputs", None) or ()
    if len(outputs) != 1 or len(outputs[0].shape) != 2:
        raise MisuseError(f"{other} Give a run or an export of --task=classification.")
    classes = outputs[0].shape[-1]
    if num_classes is not None and classes != num_classes:
        raise MisuseError(f"Expected a network with {num_classes} classes, as the data set has; {path} has {classes}.")
    check_finite(model.variables, path)
    return model


def check_finite(variables: Iterable[keras.Variable | tf.Variable], path: str | os.PathLike):
    """Raises RunError with the variables' names if values read from `path` are not finite."""
    broken = []
    for variable in variables:
        values = np.asarray(variable)
        if np.issubdtype(values.dtype, np.inexact) and not (finite := np.isfinite(values)).all():
            name = getattr(variable, "path", variable.name)
            broken.append(f"{name} ({values.size - np.count_nonzero(finite)} of {values.size} values)")
    if broken:
        raise RunError(f"{path} has weights that are not finite: {first_few(broken)}. Use another file.")


def takes_pixels(network: keras.Model) -> keras.Model:
    """Wraps a network to map "images" (B, H, W, 3) float32 in 0 … 255 to "probabilities". `within` unwraps it."""
    images = keras.Input((None, None, 3), name="images")
    scale, offset = [1 / std for std in STD], [-mean / std for mean, std in zip(MEAN, STD, strict=True)]
    x = network(keras.layers.Rescaling(scale, offset, name="normalise")(images))
    return keras.Model(images, keras.layers.Softmax(name="probabilities")(x), name=f"{network.name}_of_images")


def within(model):
    """Returns the network that `takes_pixels` wrapped, or the model itself if it is not wrapped."""
    match getattr(model, "layers", ()):
        case (
            keras.layers.InputLayer(),
            keras.layers.Rescaling(scale=scale),
            keras.Model() as network,
            keras.layers.Softmax(),
        ) if np.allclose(scale, 1 / np.array(STD)):
            return network
    return model


def read_card(path: str | os.PathLike) -> dict:
    """Reads the description in an exported file's archive, {} if it has none. Raises RunError if it can't be read."""
    try:
        with zipfile.ZipFile(path) as archive:
            return json.loads(archive.read(CARD)) if CARD in archive.namelist() else {}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise RunError(f"Can't read the description in {path}: {error}.") from None


def check_savedmodel(path: str | os.PathLike):
    """Raises MisuseError unless there is a SavedModel at `path`."""
    if not (pathlib.Path(path) / "saved_model.pb").exists():
        raise MisuseError(f"Expected a SavedModel directory, received {os.fspath(path)}. `keras-bot export` makes one.")


def _from_savedmodel(path):
    if not (path / NETWORK).exists():
        raise MisuseError(
            f"The SavedModel {path} has no {NETWORK}: keras_bot didn't export it, or an old version did. "
            "Export it again."
        )
    known = _json(path / DESCRIPTION)
    if "task" in known:
        raise MisuseError(f"Expected a classifier in {path}, received the network of a {known['task']}. Give another.")
    try:
        model = keras.models.model_from_json((path / NETWORK).read_text(encoding="utf-8"))
        with loadable(path) as place:
            reader = tf.train.load_checkpoint(os.path.join(place, "variables", "variables"))
            names = [f"variables/{i}/.ATTRIBUTES/VARIABLE_VALUE" for i in range(len(model.variables))]
            values = [reader.get_tensor(name) for name in names]
        for variable, value in zip(model.variables, values, strict=True):
            variable.assign(value)
    except Exception as error:  # Keras and TensorFlow raise arbitrary exceptions for damaged files
        raise MisuseError(f"Can't read the network of the SavedModel {path}: {first_line(error)}") from None
    check_finite(model.variables, path)
    return model, known


def _of_a_run(path):
    """Reads a run's metrics.json; returns {} if the file of that name is something else."""
    told = _json(path)
    return told if all(isinstance(told.get(name), dict) for name in ("recipe", "dataset")) else {}


def _json(path):
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise RunError(f"Can't read {path}: {error}.") from None
    if not isinstance(content, dict):
        raise RunError(f"Can't read {path}: expected a JSON object, received {type(content).__name__}. Export anew.")
    return content
