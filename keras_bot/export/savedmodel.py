"""A trained network as a SavedModel: images in, probabilities out, preprocessing included.

    loaded = tf.saved_model.load("savedmodels/digits")
    probabilities = loaded.serve(images)            # (batch, height, width, 3), uint8 or float32 in [0, 255]

It needs TensorFlow alone. `assets.extra/model.json` beside the graph tells the classes and how it was trained.
"""

import json
import os
import pathlib
import shutil
import tempfile

import keras
import tensorflow as tf

from keras_bot import data
from keras_bot.errors import MisuseError, RunError
from keras_bot.training.evaluate import first_line

DESCRIPTION = pathlib.Path("assets.extra") / "model.json"


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
    """Writes a SavedModel whole or not at all.

    Args:
        model: takes normalised float32 (batch, size, size, 3), gives (batch, classes) logits; float32.
        path: the directory to make.
        image_size: pixels that the network was trained with.
        transform: whose evaluation preprocessing is built in: "imagenet", "cifar" or "plain".
        eval_crop: the centre crop of "imagenet", as a fraction of the shorter edge.
        description: what model.json holds; `class_names` in it name the classes for `predict`.
        overwrite: replace what stands at `path`.

    Returns:
        The path.

    Raises:
        MisuseError: if `path` exists and `overwrite` is false, or it is no SavedModel.
    """
    path = pathlib.Path(path)
    if path.exists():
        if not overwrite:
            raise MisuseError(f"{path} exists already. Choose another --name, or --overwrite to replace it.")
        if not (path / "saved_model.pb").exists():
            raise MisuseError(f"{path} exists and is no SavedModel, so it is not overwritten. Choose another --name.")
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = pathlib.Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent))
    try:
        module = _serving_module(model, image_size, transform, eval_crop)
        tf.saved_model.save(
            module,
            partial,
            signatures={"serving_default": module.serve.get_concrete_function(_images(tf.float32))},
        )
        (partial / DESCRIPTION).parent.mkdir()
        (partial / DESCRIPTION).write_text(json.dumps(description or {}, indent=2) + "\n", encoding="utf-8")
        partial.chmod(0o755)
        _take_place(partial, path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return path


def _take_place(partial, path):
    replaced = partial.with_suffix(".old")
    if path.exists():
        path.rename(replaced)
    partial.rename(path)
    shutil.rmtree(replaced, ignore_errors=True)


def _images(dtype):
    return tf.TensorSpec((None, None, None, 3), dtype, name="images")


def _serving_module(model, image_size, transform, eval_crop):
    module = tf.Module()
    module.model_variables = [variable.value for variable in model.variables]
    module.serve = tf.function(
        lambda images: tf.nn.softmax(
            model(data.preprocess_eval(images, image_size, transform, eval_crop), training=False)
        ),
        autograph=False,
    )
    module.serve.get_concrete_function(_images(tf.uint8))
    return module


def load_savedmodel(path: str | pathlib.Path):
    """Loads a SavedModel that `export_savedmodel` wrote.

    Returns:
        The loaded object, whose `serve` takes images, and its description (a dict, with `class_names`).

    Raises:
        MisuseError: if there is none at `path`, RunError if it can't be read.
    """
    path = pathlib.Path(path)
    if not (path / "saved_model.pb").exists():
        raise MisuseError(f"Expected a SavedModel directory, received {os.fspath(path)}. `keras-bot export` makes one.")
    try:
        loaded = tf.saved_model.load(path)
        description = json.loads((path / DESCRIPTION).read_text(encoding="utf-8"))
    except (OSError, ValueError, tf.errors.OpError) as error:
        raise RunError(f"Can't load the SavedModel {path}: {first_line(error)}") from None
    if not hasattr(loaded, "serve"):
        raise MisuseError(f"The SavedModel {path} has no serve endpoint: keras-bot didn't export it.")
    return loaded, description
