"""A trained network as one .keras, .onnx or .tflite file for those without keras_bot, checked before it is there.

    export_file(network, "digits.onnx", image_size=16)

`images` -> `probabilities`: float32 RGB (B, H, W, 3) in 0 … 255, normalised within, to softmax over the last axis,
(B, K) of a classifier, (B, H, W, K) of a segmenter. Resizing and cropping are the caller's: `preprocessing` in the
file's description says how evaluation did it. Where each form keeps the description: see `formats`.
"""

import os
import pathlib
import shutil
import tempfile
from collections.abc import Callable, Sequence

import keras

from keras_bot.data import color
from keras_bot.data.image import eval_edge
from keras_bot.errors import MisuseError, RunError
from keras_bot.export.formats import find_form
from keras_bot.export.place import check_text
from keras_bot.export.readback import check_sizes, refuse_difference, worst_difference
from keras_bot.training.failures import first_line
from keras_bot.training.network import takes_pixels


def export_file(
    network: keras.Model,
    path: str | os.PathLike,
    *,
    image_size: int,
    transform: str | None = "imagenet",
    eval_crop: float = 0.875,
    description: dict | None = None,
    overwrite: bool = False,
) -> float:
    """Writes a classifier or segmenter, whole or not at all, after the file's own runtime gave what the network gives.

    Args:
        network: normalised float32 images (B, H, W, 3) to logits, classes last; float32.
        path: ends in .keras, .onnx or .tflite, which says the form.
        image_size: pixels of the images it is checked with; the height and width of a .tflite's.
        transform: whose evaluation preprocessing the file tells of: "imagenet", "cifar", "plain"; None for no resizing.
        eval_crop: the centre crop of "imagenet", as a fraction of the shorter edge.
        description: what else the file tells, such as `class_names`.
        overwrite: replace the file at `path`.

    Returns:
        The greatest difference between a probability of the file and of the network, over random images, as a part of
        the greatest probability.

    Raises:
        MisuseError: if `path` exists and `overwrite` is false, for another suffix, if a package is missing, or if the
            path is not valid UTF-8.
        RunError: if the network can't be converted, or the file differs by more than 2e-5 of it.
    """
    description = {**(description or {}), "preprocessing": _preprocessing(image_size, transform, eval_crop)}

    def expected(images):
        return keras.ops.softmax(network(color.normalise(images), training=False))

    sizes = check_sizes(image_size)
    return write_file(takes_pixels(network), path, expected, description, sizes=sizes, overwrite=overwrite)


def write_file(
    model: keras.Model,
    path: str | os.PathLike,
    expected: Callable,
    description: dict,
    *,
    sizes: Sequence[tuple[int, int, int]],
    overwrite: bool = False,
) -> float:
    """Writes any model's file and checks it; returns the greatest difference, as a part of the greatest output.

    Args:
        model: what is written.
        path, overwrite: see `export_file`.
        expected: images to the outputs that the file must give.
        description: goes into the file.
        sizes: (batch, height, width) of the random images that it is checked with; the first one's height is
            that of a form that takes only one.

    Raises:
        MisuseError, RunError: as `export_file`.
    """
    path = pathlib.Path(path)
    form = find_form(path)
    check_text(path)
    if path.is_dir():
        raise MisuseError(f"Expected {path} as a file to write, there is a directory. Choose another --name.")
    if path.exists() and not overwrite:
        raise MisuseError(f"{path} exists already. Choose another --name, or --overwrite to replace it.")
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = pathlib.Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent))
    try:
        partial = folder / path.name
        checked = sizes if form.any_size else [size for size in sizes if size[1:] == sizes[0][1:]]
        try:
            form.write(model, partial, description, sizes[0][1])
            run = form.run(partial)
            with keras.device("cpu:0"):  # a GPU may round its convolutions' inputs
                worst = worst_difference(run, expected, checked)
        except Exception as error:  # converters and runtimes raise whatever they stumble over
            raise RunError(f"Can't write {model.name} as {form.name}: {first_line(error)}") from error
        refuse_difference(worst, model.name, form.name)
        partial.replace(path)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return worst


def _preprocessing(size, transform, eval_crop):
    edge = eval_edge(size, eval_crop)
    crop = f"the shorter edge to {edge}, bilinear without antialiasing; then the middle {size}x{size}"
    resize = "none" if transform is None else crop if transform == "imagenet" else f"to {size}x{size}, bilinear"
    told = {"image_size": size, "transform": transform, "eval_crop": eval_crop, "resize": resize}
    told = {name: value for name, value in told.items() if value is not None}
    return {**told, "range": [0, 255], "channels": "RGB", "normalisation": "inside"}
