"""Export of a classifier as a SavedModel or a single file, chosen by suffix or format."""

import json
import os
import pathlib
from typing import Any

import keras

from keras_bot.errors import MisuseError, unknown
from keras_bot.export.formats import FORMATS
from keras_bot.export.portable import export_file
from keras_bot.export.savedmodel import export_savedmodel
from keras_bot.model_files import SAVEDMODEL_DESCRIPTION

SUFFIXES = {"savedmodel": "", **{format.name: suffix for suffix, format in FORMATS.items()}}


def export_model(
    model: keras.Model,
    path: str | os.PathLike,
    *,
    image_size: int,
    transform: str = "imagenet",
    eval_crop: float = 0.875,
    description: dict | None = None,
    format: str | None = None,
    overwrite: bool = False,
) -> float:
    """Exports a classifier with its preprocessing, and compares the export's outputs with the model's.

        export_model(model, "savedmodels/digits", image_size=16)
        export_model(model, "digits.onnx", image_size=16)

    A SavedModel takes images of any size and resizes them as in evaluation: see `keras_bot.export.savedmodel`. A
    single file normalises images, but doesn't resize them: see `keras_bot.export.portable`.

    Args:
        model: float32 model from normalised images (B, H, W, 3) to logits (B, K).
        path: a directory for a SavedModel, or a file that ends in .keras, .onnx or .tflite.
        image_size: size in pixels that the model was trained with.
        transform: evaluation preprocessing: "imagenet", "cifar" or "plain".
        eval_crop: the centre crop of "imagenet", as a fraction of the shorter edge.
        description: further content of the export's description; `class_names` names the classes for `predict`.
        format: "savedmodel", "keras", "onnx" or "litert"; None chooses by the suffix, SavedModel if there is none.
        overwrite: replace an export at `path`.

    Returns:
        The greatest difference between the outputs of the export and of the model on random images, relative to the
        greatest output. It is at most 2e-5.

    Raises:
        MisuseError: if the format is unknown or does not fit the suffix, a package is missing, or `path` is not
            suitable, for example because it exists.
        RunError: if the model can't be converted or written, or the difference is too large.
    """
    path = pathlib.Path(path)
    format = format or _format_of(path)
    if format not in SUFFIXES:
        raise unknown("format", format, SUFFIXES)
    options: dict[str, Any] = {
        "image_size": image_size,
        "transform": transform,
        "eval_crop": eval_crop,
        "overwrite": overwrite,
    }
    if format == "savedmodel":
        export_savedmodel(model, path, description=description, **options)
        return json.loads((path / SAVEDMODEL_DESCRIPTION).read_text(encoding="utf-8"))["worst_difference"]
    if path.suffix != SUFFIXES[format]:
        raise MisuseError(f"The path of format={format!r} must end in {SUFFIXES[format]}, received {path}.")
    return export_file(model, path, description=description, **options)


def _format_of(path):
    for format, suffix in SUFFIXES.items():
        if path.suffix == suffix:
            return format
    known = ", ".join(suffix for suffix in SUFFIXES.values() if suffix)
    raise MisuseError(
        f'The suffix {path.suffix} of {path} is unknown. Use {known}, or format="savedmodel" for a directory. '
        "keras_bot.interop.save_timm writes .safetensors files."
    )
