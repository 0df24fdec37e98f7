"""Prediction of the top classes of image files with an exported SavedModel."""

import dataclasses
import os
import pathlib
from collections.abc import Callable

import tensorflow as tf

from keras_bot.data.decode import SUFFIXES, decode
from keras_bot.errors import RunError


@dataclasses.dataclass(frozen=True)
class Prediction:
    """Top classes of one image: (name, probability) pairs, most probable first."""

    path: pathlib.Path
    top: list[tuple[str, float]]


def predict_file(
    serve: Callable[[tf.Tensor], tf.Tensor], class_names: list[str], path: str | pathlib.Path, *, top: int = 5
) -> Prediction:
    """Predicts the top classes of one image file with a SavedModel's `serve`.

    Args:
        serve: function from (1, height, width, 3) uint8 images to (1, classes) probabilities.
        class_names: names in class order; further classes are named by their numbers.
        path: the image file.
        top: number of classes to return.

    Raises:
        RunError: if the file can't be read as an image.
    """
    probabilities = serve(read_image(path)[None])[0].numpy()
    likeliest = probabilities.argsort()[::-1][:top]
    names = dict(enumerate(class_names))
    return Prediction(pathlib.Path(path), [(names.get(i, str(i)), float(probabilities[i])) for i in likeliest])


def read_image(path: str | pathlib.Path) -> tf.Tensor:
    """Reads an image file as uint8 (H, W, 3). Raises RunError if it can't be read."""
    try:
        return decode(tf.io.read_file(os.fsencode(path)))
    except tf.errors.OpError:
        if not pathlib.Path(path).is_file():
            raise RunError(f"{path} is not a file. Pass image files.") from None
        raise RunError(f"Cannot read {path} as an image: it is damaged, or not a {', '.join(SUFFIXES)} file.") from None
