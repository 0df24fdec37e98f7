"""Predictions of an exported detector or segmenter for image files, drawn into pictures."""

import pathlib
from collections.abc import Callable

import numpy as np

from keras_bot.errors import one_line
from keras_bot.export.prediction import read_image
from keras_bot.tasks.drawing import draw_boxes, draw_mask, picture_grid


def draw_file(
    serve: Callable, description: dict, path: str | pathlib.Path, output: pathlib.Path, min_score: float
) -> list[str]:
    """Draws the predicted boxes or classes of an image into a PNG.

    Args:
        serve: serving function of the SavedModel.
        description: contents of its model.json.
        path: a JPEG, PNG, GIF or BMP file.
        output: path of the PNG.
        min_score: boxes with a lower score are omitted.

    Returns:
        One line of text per drawn box, or per class in the mask.

    Raises:
        RunError: If the file can't be read as an image.
    """
    image, names = read_image(path), description["class_names"]
    labels = [one_line(name) for name in names]
    if description["task"] == "segmentation":
        mask = serve(image[None])[0].numpy()
        picture = draw_mask(image.numpy(), mask, names)
        parts = np.bincount(mask.reshape(-1), minlength=len(names)) / mask.size
        lines = [f"{parts[index]:7.2%}  {labels[index]}" for index in np.argsort(-parts) if parts[index]]
    else:
        found = {name: value[0].numpy() for name, value in serve(image[None]).items()}
        shown = (found["classes"] >= 0) & (found["scores"] >= min_score)
        boxes, scores, classes = (found[name][shown] for name in ("boxes", "scores", "classes"))
        picture = draw_boxes(image.numpy(), boxes, classes, names, scores)
        corners = [" ".join(f"{side:.0f}" for side in box) for box in boxes]
        lines = [
            f"{score:7.2%}  {labels[index]}  {box}" for score, index, box in zip(scores, classes, corners, strict=True)
        ]
    output.parent.mkdir(parents=True, exist_ok=True)
    picture_grid([picture], output, columns=1)
    return lines
