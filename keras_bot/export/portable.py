"""Export of a trained network to one .keras, .onnx or .tflite file that runs without keras_bot.

    export_file(network, "digits.onnx", image_size=16)

The file maps `images`, float32 RGB (B, H, W, 3) in 0 … 255, normalised inside, to `probabilities`, the softmax over
the last axis: (B, K) for a classifier, (B, H, W, K) for a segmenter. The caller resizes and crops; `preprocessing` in
the file's description records how evaluation did so. `formats` documents where each format stores the description.
"""

import os
import pathlib
import shutil
import tempfile
from collections.abc import Callable, Sequence

import keras

from keras_bot.data.augment import color
from keras_bot.data.augment.geometry import eval_edge
from keras_bot.errors import MisuseError, RunError, first_line
from keras_bot.export.formats import find_format
from keras_bot.export.path_checks import check_utf8
from keras_bot.export.verification import check_difference, sample_sizes, worst_difference
from keras_bot.model_files import with_preprocessing


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
    """Writes a classifier or segmenter atomically, after comparing the file's outputs with the network's.

    Args:
        network: float32 model from normalised images (B, H, W, 3) to logits, classes last.
        path: ends in .keras, .onnx or .tflite, which selects the format.
        image_size: base size in pixels of the images for the check; height and width of a .tflite's input.
        transform: evaluation preprocessing to describe: "imagenet", "cifar", "plain"; None for no resizing.
        eval_crop: the centre crop of "imagenet", as a fraction of the shorter edge.
        description: further content of the file's description, such as `class_names`.
        overwrite: replace the file at `path`.

    Returns:
        The greatest difference between the file's and the network's probabilities on random images, relative to the
        greatest probability.

    Raises:
        MisuseError: if `path` exists and `overwrite` is false, its suffix is unknown, a package is missing, or the path
            is not valid UTF-8.
        RunError: if the network can't be converted, or that difference exceeds 2e-5.
    """
    description = {**(description or {}), "preprocessing": _preprocessing(image_size, transform, eval_crop)}

    def expected(images):
        return keras.ops.softmax(network(color.normalise(images), training=False))

    model, sizes = with_preprocessing(network), sample_sizes(image_size)
    return write_file(model, path, expected, description, sizes=sizes, overwrite=overwrite)


def write_file(
    model: keras.Model,
    path: str | os.PathLike,
    expected: Callable,
    description: dict,
    *,
    sizes: Sequence[tuple[int, int, int]],
    overwrite: bool = False,
) -> float:
    """Writes any model to a file and checks it; returns the greatest difference, relative to the greatest output.

    Args:
        model: the model to write.
        path, overwrite: see `export_file`.
        expected: function from images to the outputs that the file must produce.
        description: stored in the file.
        sizes: (batch, height, width) of the random images for the check; the first height is the image size of
            formats with a fixed one.

    Raises:
        MisuseError, RunError: as `export_file`.
    """
    path = pathlib.Path(path)
    format = find_format(path)
    check_utf8(path)
    if path.is_dir():
        raise MisuseError(f"{path} is a directory, so no file can be written there. Choose another name.")
    if path.exists() and not overwrite:
        raise MisuseError(
            f"{path} already exists. Choose another name, or replace it with --overwrite (overwrite=True)."
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = pathlib.Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent))
    try:
        partial = folder / path.name
        checked = sizes if format.any_size else [size for size in sizes if size[1:] == sizes[0][1:]]
        try:
            format.write(model, partial, description, sizes[0][1])
            run = format.run(partial)
            with keras.device("cpu:0"):  # a GPU may round the inputs of convolutions
                worst = worst_difference(run, expected, checked)
        except Exception as error:  # converters and runtimes raise arbitrary exceptions
            raise RunError(f"Cannot write {model.name} as {format.name}: {first_line(error)}") from error
        check_difference(worst, model.name, format.name)
        partial.replace(path)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return worst


def _preprocessing(size, transform, eval_crop):
    edge = eval_edge(size, eval_crop)
    crop = f"the shorter edge to {edge}, bilinear without antialiasing; then the middle {size}x{size}"
    resize = "none" if transform is None else crop if transform == "imagenet" else f"to {size}x{size}, bilinear"
    settings = {"image_size": size, "transform": transform, "eval_crop": eval_crop, "resize": resize}
    settings = {name: value for name, value in settings.items() if value is not None}
    return {**settings, "range": [0, 255], "channels": "RGB", "normalisation": "inside"}
