"""Checks that annotations match their images: stated image sizes, boxes in pixels, and unsupported image types."""

import dataclasses
import pathlib
from collections.abc import Iterable, Sequence

import numpy as np
from PIL import Image

from keras_bot.data.decode import SUFFIXES
from keras_bot.errors import MisuseError, first_few

ROTATE = "Rotate the image file itself, for example with `mogrify -auto-orient` or `exiftran -ai`"

_ORIENTATION = 0x0112  # EXIF tag
_SWAPPING = (5, 6, 7, 8)  # orientations that swap width and height
_NORMALISED = 1.1  # largest coordinate of normalised boxes, with a margin for boxes that leave the image


@dataclasses.dataclass(frozen=True)
class SizeMismatch:
    """An image whose size differs from the size in its annotation.

    Attributes:
        where: the annotation file and the entry that states the size.
        image: path of the image.
        stated: width and height in the annotation.
        actual: width and height of the decoded image, ignoring its EXIF orientation.
    """

    where: str
    image: str
    stated: tuple[int, int]
    actual: tuple[int, int]


def image_size(path: str | pathlib.Path) -> tuple[int, int] | None:
    """Returns the width and height in an image's header, or None if it cannot be read.

    It ignores the EXIF orientation, as TensorFlow's decoders do.
    """
    try:
        with Image.open(path) as picture:
            return picture.size
    except (OSError, ValueError, Image.DecompressionBombError):
        return None


def refuse_mismatches(mismatches: Sequence[SizeMismatch]) -> None:
    """Raises MisuseError if `mismatches` is not empty, since the boxes of those images do not fit."""
    if not mismatches:
        return
    first = mismatches[0]
    stated, actual = ("x".join(map(str, size)) for size in (first.stated, first.actual))
    message = f"{first.where} is {stated} pixels, but {first.image} is {actual}"
    if first.stated == first.actual[::-1]:
        message += f": width and height are swapped. {_rotation_advice(first.image)}"
    else:
        message += (
            ", so its boxes do not fit. Use the images that were annotated, or scale the boxes to these images. "
            "If the boxes already fit, correct the stated size."
        )
    others = [mismatch.image for mismatch in mismatches[1:]]
    raise MisuseError(message + (f" {len(others)} more with another size: {first_few(others)}." if others else ""))


def _rotation_advice(image: str) -> str:
    """Returns the advice for a swapped width and height, naming the image's EXIF orientation if that swaps them."""
    try:
        with Image.open(image) as picture:
            orientation = picture.getexif().get(_ORIENTATION)
    except Exception:  # Pillow raises errors of many types for broken EXIF data
        orientation = None
    if orientation in _SWAPPING:
        return (
            f"The image has EXIF orientation {orientation}, which the labelling tool applied and keras-bot ignores. "
            f"{ROTATE}, or rotate the boxes."
        )
    return (
        "The labelling tool probably rotated the image by an EXIF orientation that the file no longer has. Rotate the "
        "image or the boxes. If the boxes already fit, correct the stated size."
    )


def refuse_normalised(where: str, coordinates: np.ndarray, sizes: Iterable[tuple[int, int]]) -> None:
    """Raises MisuseError if all boxes are in [0, 1] instead of pixels.

    Args:
        where: the file or folder of the boxes.
        coordinates: float (n, k), the coordinates to check, for all boxes with a size.
        sizes: image sizes; boxes in [0, 1] are valid if every image is a single pixel.
    """
    if not len(coordinates) or np.abs(coordinates).max() > _NORMALISED or max(map(max, sizes)) <= 1:
        return
    raise MisuseError(
        f"{where}: the largest box coordinate is {coordinates.max():g} ({len(coordinates)} box"
        f"{'es' * (len(coordinates) > 1)}), so the boxes seem to be normalised to [0, 1]. Boxes must be in pixels: "
        "multiply x and width by the image's width, y and height by its height."
    )


def files_of_other_types(folder: pathlib.Path, names: Iterable[str], suffixes: Sequence[str] = SUFFIXES) -> str:
    """Returns a sentence that lists files with one of the names but an unsupported suffix, or "" if there are none."""
    names = set(names)
    entries = sorted(folder.iterdir()) if folder.is_dir() else []
    others = [path for path in entries if path.suffix.lower() not in suffixes and names & {path.stem, path.name}]
    if not others:
        return ""
    listed = first_few([f"{folder.name}/{path.name}" for path in others])
    verb = "is not a" if len(others) == 1 else "are not of a"
    return f" {listed} {verb} readable image type ({', '.join(suffixes)})."
