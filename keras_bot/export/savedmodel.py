"""Export of a trained network as a SavedModel, to serve and fine-tune with TensorFlow alone.

    loaded = tf.saved_model.load("savedmodels/digits")
    loaded.serve(images)              # (B, H, W, 3) uint8 or float32 in 0 … 255 -> probabilities (B, K)

| endpoint | images | returns |
|---|---|---|
| `serve` | any size, uint8 or float32; resized, cropped and normalised as in evaluation | probabilities (B, K) |
| `logits` | the same, float32 | logits (B, K) |
| `features` | float32, not resized, normalised | {"C2": (B, H / 4, W / 4, C), … "C5"} |
| `features_train` | the same | the same, with batch norm in training mode: updates its statistics |

Outputs are float32; feature map sizes are rounded up. `variables`, `trainable_variables` and
`non_trainable_variables` are in the network's order. In `assets.extra/`, model.json contains classes, preprocessing and
training settings; network.json is the Keras configuration, from which `model_files.read_network` builds the model
without running this graph.
"""

import json
import os
import pathlib
import shutil
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_bot import data, models
from keras_bot.data.augment import color
from keras_bot.errors import MisuseError, RunError, first_line
from keras_bot.export.path_checks import check_savedmodel_path
from keras_bot.export.verification import check_difference, sample_sizes, worst_difference
from keras_bot.model_files import SAVEDMODEL_CONFIG, SAVEDMODEL_DESCRIPTION, check_finite, check_savedmodel
from keras_bot.paths import loadable

ENDPOINTS = ("serve", "logits", "features", "features_train")


def export_savedmodel(
    model: keras.Model,
    path: str | pathlib.Path,
    *,
    image_size: int,
    transform: str = "imagenet",
    eval_crop: float = 0.875,
    description: dict | None = None,
    overwrite: bool = False,
) -> pathlib.Path:
    """Atomically writes a SavedModel, after loading it and comparing its outputs with the network's.

    Args:
        model: float32 model from normalised images (batch, size, size, 3) to logits (batch, classes). If it has the
            layers C2 … C5 of keras_bot's networks, it gets the endpoints `features` and `features_train`.
        path: the directory to create.
        image_size: size in pixels that the network was trained with.
        transform: evaluation preprocessing to build in: "imagenet", "cifar" or "plain".
        eval_crop: the centre crop of "imagenet", as a fraction of the shorter edge.
        description: content of model.json; its `class_names` name the classes for `predict`. `write_savedmodel` adds
            `worst_difference`.
        overwrite: replace the SavedModel at `path`.

    Returns:
        The path.

    Raises:
        MisuseError: if `path` exists and `overwrite` is false or it is not a SavedModel, or if TensorFlow could not
            load a SavedModel from there.
        RunError: if it can't be written, or its outputs differ from the network's when it is read back.
    """
    settings = {"image_size": image_size, "transform": transform, "eval_crop": eval_crop}
    endpoints = _endpoints(model, **settings)
    preprocessing = {**settings, "range": [0, 255], "channels": "RGB", "mean": color.MEAN, "std": color.STD}
    description = {**(description or {}), "preprocessing": preprocessing}
    return write_savedmodel(path, model, endpoints, description, sizes=sample_sizes(image_size), overwrite=overwrite)


def write_savedmodel(
    path: str | os.PathLike,
    model: keras.Model,
    endpoints: dict[str, Callable],
    description: dict,
    *,
    sizes: Sequence[tuple[int, int, int]],
    overwrite: bool = False,
) -> pathlib.Path:
    """Atomically writes a SavedModel with any endpoints and verifies it; returns its path.

    Before the SavedModel is moved to `path`, it is loaded and its outputs for random images are compared with those of
    `endpoints`. The greatest difference, relative to the greatest output, becomes `worst_difference` in model.json.

    Args:
        path: the directory to create.
        model: its variables and configuration are saved too.
        endpoints: functions of images (B, H, W, 3) float32; one is `serve`, which must also take uint8.
        description: content of model.json.
        sizes: (batch, height, width) of the images for the check.
        overwrite: replace the SavedModel at `path`.

    Raises:
        MisuseError, RunError: as `export_savedmodel`.
    """
    path = pathlib.Path(path)
    check_savedmodel_path(path, overwrite)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = pathlib.Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent))
    try:
        traced = {name: tf.function(endpoint, autograph=False) for name, endpoint in endpoints.items()}
        try:
            _save(partial, model, traced)
        except tf.errors.OpError as error:
            raise RunError(f"Cannot write {path}: {first_line(error)} No files remain.") from None
        worst = _read_back(partial, model, traced, sizes)
        check_difference(worst, model.name, "SavedModel")
        description = {**description, "worst_difference": worst}
        (partial / SAVEDMODEL_DESCRIPTION).parent.mkdir()
        (partial / SAVEDMODEL_DESCRIPTION).write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")
        (partial / SAVEDMODEL_CONFIG).write_text(model.to_json() + "\n", encoding="utf-8")
        partial.chmod(0o755)
        _replace(path, partial)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return path


def _save(path, model, traced):
    exported = tf.train.Checkpoint()  # any trackable object will do; Keras' ExportArchive stores every weight twice
    for name in ("variables", "trainable_variables", "non_trainable_variables"):
        setattr(exported, name, [variable.value for variable in getattr(model, name)])
    signatures = {name: function.get_concrete_function(_images(tf.float32)) for name, function in traced.items()}
    traced["serve"].get_concrete_function(_images(tf.uint8))
    for name, function in traced.items():
        setattr(exported, name, function)
    tf.saved_model.save(exported, path, {"serving_default": signatures["serve"], **signatures})


def _read_back(path, model, traced, sizes):
    """Returns the greatest difference between the SavedModel at `path` and the functions it was made from."""
    try:
        loaded = tf.saved_model.load(path)
        pairs = zip(loaded.variables, model.variables, strict=True)
        if not all(np.array_equal(ours.numpy(), keras.ops.convert_to_numpy(theirs)) for ours, theirs in pairs):
            raise RunError("its weights differ from the network's.")
        worst = []
        for name in traced.keys() - {"features_train"}:  # running it would update batch norm statistics
            for dtype in (tf.float32, tf.uint8) if name == "serve" else (tf.float32,):
                # Use the graph that was saved: another one rounds differently, which changes pixels of a class map.
                saved = traced[name].get_concrete_function(_images(dtype))
                run, expected = (_casting(function, dtype) for function in (getattr(loaded, name), saved))
                worst.append(worst_difference(run, expected, sizes))
    except Exception as error:  # TensorFlow raises arbitrary exceptions
        raise RunError(f"The SavedModel of {model.name} failed verification: {first_line(error)}") from error
    return float(np.max(worst))


def _casting(function, dtype):
    return lambda images: function(tf.cast(images, dtype))


def _replace(path, partial):
    """Moves the directory `partial` to `path`; if that fails, an existing directory stays there."""
    replaced = partial.with_suffix(".old")
    if path.exists():
        path.rename(replaced)
    try:
        partial.rename(path)
    except OSError:
        if replaced.exists():
            replaced.rename(path)
        raise
    shutil.rmtree(replaced, ignore_errors=True)


def _endpoints(model, image_size, transform, eval_crop):
    """Returns the endpoint functions by name."""

    def logits(images):
        return model(data.preprocess_eval(images, image_size, transform, eval_crop), training=False)

    functions = {"serve": lambda images: tf.nn.softmax(logits(images)), "logits": logits}
    try:
        features = models.features(model)
    except ValueError:  # not a keras_bot architecture
        features = None
    if features:
        functions["features"] = lambda images: features(color.normalise(images), training=False)
        functions["features_train"] = lambda images: features(color.normalise(images), training=True)
    return functions


def _images(dtype):
    return tf.TensorSpec((None, None, None, 3), dtype, name="images")


def load_savedmodel(path: str | pathlib.Path) -> tuple[Any, dict]:
    """Loads a SavedModel that keras_bot exported. Calls run its graph, so only load files that you trust.

    Returns:
        The loaded object, whose `serve` takes images, and its description (a dict, with `class_names`).

    Raises:
        MisuseError: if there is none at `path`, or keras_bot did not export it.
        RunError: if it can't be read, or has weights that are not finite.
    """
    path = pathlib.Path(path)
    check_savedmodel(path)
    if not (path / SAVEDMODEL_DESCRIPTION).exists():
        raise MisuseError(f"{path} contains no {SAVEDMODEL_DESCRIPTION}. Pass a SavedModel that keras_bot exported.")
    try:
        with loadable(path) as folder:
            loaded = tf.saved_model.load(folder)
        description = json.loads((path / SAVEDMODEL_DESCRIPTION).read_text(encoding="utf-8"))
    except Exception as error:  # TensorFlow raises arbitrary exceptions for damaged files
        raise RunError(f"Cannot load the SavedModel {path}: {first_line(error)}") from None
    if not isinstance(description, dict) or not isinstance(description.get("class_names", []), list):
        raise RunError(
            f"{path / SAVEDMODEL_DESCRIPTION} must be a JSON object with a list of class_names. Export it again."
        )
    if not hasattr(loaded, "serve"):
        raise MisuseError(f"{path} has no serve endpoint. Pass a SavedModel that keras_bot exported.")
    check_finite(loaded.variables, path)
    return loaded, description
