"""SavedModel export of detectors and segmenters: from images of any size to boxes or class maps in pixels.

| task | output of `serve` |
|---|---|
| detection | after NMS {"boxes" (B, K, 4) y0, x0, y1, x1; "scores" (B, K); "classes" int32 (B, K); "count" (B,)} |
| segmentation | the class of each pixel, int32 (B, H, W); `logits` returns float32 (B, H, W, classes) |

Images are RGB, uint8 or float32 in 0 … 255. A detector resizes them inside the graph to its training size.
"""

import os
import pathlib

import keras
import tensorflow as tf

from keras_bot.data.augment import color
from keras_bot.errors import MisuseError, first_line
from keras_bot.export.savedmodel import write_savedmodel
from keras_bot.export.verification import sample_sizes
from keras_bot.model_files import check_finite, without_preprocessing
from keras_bot.recipe import Recipe
from keras_bot.tasks.detection import box_ops, faster_rcnn, retinanet
from keras_bot.tasks.detection.data.view import preprocess_detection
from keras_bot.tasks.segmentation import fcn

CLASSES = {
    "detection": (retinanet.RetinaNet, faster_rcnn.FasterRCNN),
    "segmentation": (fcn.ResizeLike,),  # a layer of the network
}


def load_trained(path: str | os.PathLike, task: str) -> keras.Model:
    """Loads the detector, or the segmenter's network, from a run's .keras file in Keras' safe mode.

    Raises:
        MisuseError: If the file can't be read or contains a model for another task.
        RunError: If it contains weights that are not finite.
    """
    if not pathlib.Path(path).is_file():
        raise MisuseError(f"No file {path}. Pass a .keras file; a finished run contains one.")
    try:
        model = keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # Keras raises many error types for damaged files
        raise MisuseError(f"Cannot load {path} as a .keras file: {first_line(error)}") from None
    model = without_preprocessing(model)
    parts = [model, *getattr(model, "layers", ())]
    if not any(isinstance(part, CLASSES[task]) for part in parts):
        raise MisuseError(f"The network {model.name!r} in {path} is not for {task}.")
    check_finite(model.variables, path)
    return model


def export_trained(
    model: keras.Model, path: str | os.PathLike, recipe: Recipe, description: dict, *, overwrite: bool = False
) -> pathlib.Path:
    """Writes the SavedModel of a detector or segmenter and returns its path.

    Args:
        model: a model from `load_trained`.
        path, overwrite: see `write_savedmodel`.
        recipe: the recipe that it was trained with.
        description: contents of model.json, `class_names` included; the task is added.

    Raises:
        MisuseError, RunError: As in `write_savedmodel`.
    """
    if recipe.task == "detection":
        endpoints = {"serve": lambda images: _detect(model, images, recipe.image_size)}
    else:

        def logits(images):
            return model(color.normalise(tf.cast(images, tf.float32)), training=False)

        endpoints = {"serve": lambda images: tf.argmax(logits(images), -1, tf.int32), "logits": logits}
    description, sizes = {**description, "task": recipe.task}, sample_sizes(recipe.image_size)
    return write_savedmodel(path, model, endpoints, description, sizes=sizes, overwrite=overwrite)


def _detect(detector, images, image_size):
    """Returns detections in pixels of the input images."""
    resized, scale = preprocess_detection(images, image_size)
    found = detector.predict_boxes(resized)
    window = [0, 0, tf.shape(images)[1], tf.shape(images)[2]]
    boxes = box_ops.clip(box_ops.scale(found["boxes"], 1.0 / scale), window)
    present = found["classes"] >= 0
    return {**found, "boxes": tf.where(present[..., None], boxes, -1.0)}
