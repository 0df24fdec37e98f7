"""Drawings of predictions: boxes with class and score on an image, coloured masks over an image, and picture grids.

All functions take and return uint8 RGB arrays; `data.augment.color.denormalise` converts network inputs to these.
"""

import colorsys
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from keras_bot.atomic_files import replacing
from keras_bot.errors import MisuseError
from keras_bot.figures import label_text
from keras_bot.tasks.segmentation.labels import IGNORE

_WHITE, _BLACK = (255, 255, 255), (0, 0, 0)
_GAP = 4


def class_colors(count: int) -> np.ndarray:
    """Returns one colour per class, uint8 (count, 3), with distinct colours for neighbouring classes.

    Hues advance by the golden ratio. Lightness alternates, so that neighbours also differ in greyscale.
    """
    hues = (0.33 + np.arange(count) * 0.61803398875) % 1.0
    values = np.take([1.0, 0.7, 0.85], np.arange(count) % 3)
    saturations = np.take([0.85, 0.95, 0.6], np.arange(count) // 3 % 3)
    colors = [colorsys.hsv_to_rgb(*triple) for triple in zip(hues, saturations, values, strict=True)]
    return np.rint(np.array(colors).reshape(-1, 3) * 255).astype(np.uint8)


def draw_boxes(
    image: np.ndarray,
    boxes: np.ndarray,
    classes: np.ndarray,
    class_names: Sequence[str],
    scores: np.ndarray | None = None,
    *,
    min_score: float = 0.0,
    colors: np.ndarray | None = None,
) -> np.ndarray:
    """Draws a box around each object, labelled with the class name and the score if given.

    Args:
        image: uint8 (H, W, 3).
        boxes: float (n, 4), y0, x0, y1, x1 in pixels, clipped to the image.
        classes: integer (n,); rows of class -1 are padding.
        class_names: one name per class.
        scores: float (n,); the highest are drawn last, on top.
        min_score: boxes with a lower score are omitted.
        colors: uint8 (K, 3); None uses `class_colors`.

    Returns:
        uint8 (H, W, 3), a new array.

    Raises:
        MisuseError: If the image is not uint8 (H, W, 3), the numbers of boxes, classes and scores differ, or a class
            has no name.
    """
    picture = Image.fromarray(_rgb(image))
    boxes, classes = np.asarray(boxes, float).reshape(-1, 4), np.asarray(classes, int).reshape(-1)
    confidences = np.full(len(classes), np.inf) if scores is None else np.asarray(scores, float).reshape(-1)
    if not len(boxes) == len(classes) == len(confidences):
        counts = f"{len(boxes)} boxes, {len(classes)} classes and {len(confidences)} scores"
        raise MisuseError(f"An image needs one class and one score per box, received {counts}.")
    _check_classes(classes[classes != -1], class_names)
    colors = class_colors(len(class_names)) if colors is None else colors
    keep = (classes >= 0) & np.isfinite(boxes).all(axis=1) & (confidences >= min_score)
    order = np.argsort(confidences, kind="stable")
    pen = ImageDraw.Draw(picture)
    line = max(1, round(max(picture.size) / 250))
    font = _font(max(10, round(max(picture.size) / 40)))
    labels = []
    for index in order[keep[order]]:
        name, color = label_text(class_names[classes[index]]), tuple(map(int, colors[classes[index]]))
        label = name if scores is None else f"{name} {confidences[index]:.2f}"
        corner = _frame(pen, picture.size, boxes[index], color, line)
        if corner:
            labels.append((corner, label, color))
    for corner, label, color in labels:  # drawn last, so that boxes don't cover labels
        _label(pen, picture.size, corner, label, color, font)
    return np.asarray(picture)


def draw_mask(
    image: np.ndarray,
    mask: np.ndarray,
    class_names: Sequence[str],
    *,
    colors: np.ndarray | None = None,
    opacity: float = 0.6,
    legend: bool = True,
) -> np.ndarray:
    """Tints each pixel in its class colour and adds a legend of the occurring classes below the image.

    Args:
        image: uint8 (H, W, 3).
        mask: integer (H, W), class ids; pixels of 255 (ignore) keep their colour.
        class_names: one name per class.
        colors: uint8 (K, 3); None uses `class_colors`.
        opacity: opacity of the tint, 0 to 1.
        legend: whether to add the legend.

    Returns:
        uint8 (H + legend, W, 3), a new array.

    Raises:
        MisuseError: If the image or mask has another shape or dtype, or a class has no name.
    """
    image, mask = _rgb(image), np.asarray(mask).astype(int)
    if mask.shape != image.shape[:2]:
        raise MisuseError(f"The mask must have the image's shape {image.shape[:2]}, received {mask.shape}.")
    present = np.unique(mask[mask != IGNORE])
    _check_classes(present, class_names)
    colors = np.asarray(class_colors(len(class_names)) if colors is None else colors)
    tinted = image.astype(float)
    labelled = mask != IGNORE
    tinted[labelled] += opacity * (colors[mask[labelled]] - tinted[labelled])
    picture = np.rint(tinted).astype(np.uint8)
    if not legend or not len(present):
        return picture
    names = [class_names[index] for index in present]
    return np.concatenate([picture, draw_legend(names, colors[present], image.shape[1])])


def draw_legend(names: Sequence[str], colors: np.ndarray, width: int) -> np.ndarray:
    """Draws a coloured square and a name per class, wrapped to `width`: uint8 (height, width, 3)."""
    size = max(10, min(16, width // 24))
    font = _font(size)
    names = [label_text(name) for name in names]
    corners, x, y = [], _GAP, _GAP
    for name in names:
        wide = size + _GAP + round(font.getlength(name)) + 2 * _GAP
        if x > _GAP and x + wide > width:
            x, y = _GAP, y + size + _GAP
        corners.append((x, y))
        x += wide
    picture = Image.new("RGB", (width, y + size + _GAP), _WHITE)
    pen = ImageDraw.Draw(picture)
    for name, color, (left, top) in zip(names, colors, corners, strict=True):
        pen.rectangle([left, top, left + size - 1, top + size - 1], fill=tuple(map(int, color)), outline=_BLACK)
        pen.text((left + size + _GAP, top + size / 2), name, fill=_BLACK, font=font, anchor="lm")
    return np.asarray(picture)


def spread(data: Any, size: int, count: int) -> Any:
    """Selects up to `count` images, spread over an evaluation set, as one batch without padding or unreadable images.

    Args:
        data: a tf.data.Dataset of batches (images, targets, weights); images of weight 0 are excluded.
        size: number of images in the set.
        count: maximum number of images.

    Returns:
        A dataset of one batch, or an empty one if there is nothing to draw.
    """
    whole = data.unbatch().filter(lambda image, target, weight: weight > 0)
    return whole.shard(max(1, size // count), 0).batch(count).take(1)


def picture_grid(
    pictures: Sequence[np.ndarray],
    path: str | os.PathLike | None = None,
    *,
    columns: int = 4,
    titles: Sequence[str] | None = None,
) -> np.ndarray:
    """Arranges pictures in a grid, each below its title, and writes a PNG if `path` is given.

    Args:
        pictures: uint8 (H, W, 3) of any sizes; smaller ones get a white margin.
        path: path of the PNG; its folder must exist.
        columns: maximum number of columns.
        titles: one title per picture.

    Returns:
        uint8 (height, width, 3).

    Raises:
        MisuseError: If there are no pictures, a picture is not uint8 (H, W, 3), or the number of titles differs.
    """
    pictures = [_rgb(picture) for picture in pictures]
    if not pictures:
        raise MisuseError("A grid needs at least one picture.")
    if titles is not None and len(titles) != len(pictures):
        raise MisuseError(f"The grid needs one title per picture, received {len(titles)} for {len(pictures)} pictures.")
    columns = max(1, min(columns, len(pictures)))
    high, wide = (max(picture.shape[axis] for picture in pictures) for axis in (0, 1))
    font = _font(max(10, min(18, wide // 20)))
    head = 0 if titles is None else round(font.size * 1.5)
    rows = -(-len(pictures) // columns)
    sheet = Image.new("RGB", (_GAP + columns * (wide + _GAP), _GAP + rows * (head + high + _GAP)), _WHITE)
    pen = ImageDraw.Draw(sheet)
    for index, picture in enumerate(pictures):
        left, top = _GAP + index % columns * (wide + _GAP), _GAP + index // columns * (head + high + _GAP)
        if titles is not None:
            pen.text((left, top + head / 2), label_text(titles[index]), fill=_BLACK, font=font, anchor="lm")
        sheet.paste(Image.fromarray(picture), (left, top + head))
    if path is not None:
        with replacing(pathlib.Path(path)) as file:
            sheet.save(file, format="PNG")
    return np.asarray(sheet)


def _frame(pen, size, box, color, line):
    """Draws a box. Returns its top left corner (x, y), or None if the box is outside the image."""
    y0, x0, y1, x1 = (float(np.clip(value, -1e6, 1e6)) for value in box)
    left, top = max(0, round(x0)), max(0, round(y0))
    right, bottom = min(size[0], round(x1)) - 1, min(size[1], round(y1)) - 1
    if right < left or bottom < top:
        return None
    pen.rectangle([left, top, right, bottom], outline=color, width=line)
    return left, top


def _label(pen, size, corner, text, color, font):
    """Draws a label above its box, or inside the box if there is no room above."""
    wide, high = round(font.getlength(text)) + 4, round(font.size * 1.2)
    x = max(0, min(corner[0], size[0] - wide))
    y = corner[1] - high if corner[1] >= high else corner[1]
    pen.rectangle([x, y, x + wide - 1, y + high - 1], fill=color)
    light = color[0] * 0.299 + color[1] * 0.587 + color[2] * 0.114 > 140
    pen.text((x + 2, y + high / 2), text, fill=_BLACK if light else _WHITE, font=font, anchor="lm")


def _rgb(image):
    image = np.asarray(image)
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
        raise MisuseError(f"The image must be uint8 (H, W, 3), received {image.dtype} {image.shape}.")
    return image


def _check_classes(classes, class_names):
    wrong = [int(index) for index in classes if not 0 <= index < len(class_names)]
    if wrong:
        raise MisuseError(f"class_names has {len(class_names)} names, so class {wrong[0]} has none.")


def _font(size):
    return ImageFont.load_default(size)
