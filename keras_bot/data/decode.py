"""Image decoding: whole images, windows of JPEGs, and scaled decoding. Runs in tf.data graphs; errors raise there.

TensorFlow decodes JPEG, PNG, GIF and BMP. Pillow decodes the other formats, including WebP: TensorFlow 2.21 corrupts
its memory on animated WebP. The format is detected from the content, not from the file name. The first image of an
animation or a multi-page file is used.

If a JPEG's window is at least 2, 4 or 8 times as large as the result, libjpeg decodes only 1/2, 1/4 or 1/8 of the
frequencies. This is faster, averages pixels that plain bilinear resizing would skip, and never requires upscaling
afterwards.
"""

import functools
import io
from collections.abc import Callable

import numpy as np
import tensorflow as tf
from PIL import Image, features

from keras_bot.data.python_ops import numpy_function

_HAS_AVIF = features.check("avif")
SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".png", ".gif", ".bmp", ".webp"),
    *(".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm"),
    *((".avif",) if _HAS_AVIF else ()),
)

_BY_TENSORFLOW = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"BM")  # the first bytes of JPEG, PNG, GIF and BMP
# Excludes formats that start another program, such as EPS.
_BY_PILLOW = ["WEBP", "TIFF", "PPM", *(["AVIF"] if _HAS_AVIF else [])]
_RATIOS = (1, 2, 4, 8)
_MAX_PIXELS = 2**29 // 3  # TensorFlow's limit for whole images: a header with more pixels is damaged


def decode(image: tf.Tensor) -> tf.Tensor:
    """Decodes bytes or converts an array to uint8 (H, W, 3): greyscale becomes RGB, alpha is dropped."""
    if image.dtype != tf.string:
        return tf.image.grayscale_to_rgb(image) if image.shape[-1] == 1 else image

    def by_tensorflow() -> tf.Tensor:
        with tf.control_dependencies([_reject_bmp_palette(image)]):
            return tf.io.decode_image(image, channels=3, expand_animations=False)

    def by_pillow() -> tf.Tensor:
        pixels = numpy_function(_by_pillow, [image], tf.uint8, stateful=False)
        # An error raised in Python instead would print a traceback for each damaged image.
        with tf.control_dependencies([tf.debugging.Assert(tf.size(pixels) > 0, ["not an image that can be decoded"])]):
            return tf.identity(pixels)

    known = tf.reduce_any([tf.strings.substr(image, 0, len(first)) == first for first in _BY_TENSORFLOW])
    return tf.ensure_shape(tf.cond(known, by_tensorflow, by_pillow), [None, None, 3])


def _by_pillow(encoded: bytes | np.ndarray) -> np.ndarray:
    """Decodes with Pillow to uint8 (H, W, 3); returns (0, 0, 3) if it is not a valid image of `_BY_PILLOW`."""
    encoded = encoded if isinstance(encoded, bytes) else encoded.item()  # in eager mode TensorFlow passes an array
    try:
        picture = Image.open(io.BytesIO(encoded), formats=_BY_PILLOW)
        if picture.mode.startswith("I;16"):  # Pillow would clip the values at 255
            return np.repeat((np.asarray(picture) >> 8).astype(np.uint8)[..., None], 3, axis=-1)
        if picture.mode not in ("I", "F"):  # their values have no known range
            return np.asarray(picture.convert("RGB"))
    except Exception:  # Pillow raises arbitrary types for damaged files
        pass
    return np.zeros((0, 0, 3), np.uint8)


def decode_window(image: tf.Tensor, shape: tf.Tensor, window: tf.Tensor, size: int) -> tf.Tensor:
    """Decodes a window of a JPEG at the smallest scale of 1, 1/2, 1/4, 1/8 that leaves its edges >= `size` pixels.

    Args:
        image: encoded JPEG.
        shape: int32 (2,): height and width from its header. If they are impossibly large, this raises in the graph.
        window: int32 (4,): top, left, height, width, in pixels of the whole image.
        size: edge length that the window will be resized to.

    Returns:
        uint8 (h, w, 3). Scaled decoding shifts the window by less than one of its own pixels.
    """

    def at(ratio: int) -> tf.Tensor:
        scaled = window if ratio == 1 else window // ratio
        return tf.image.decode_and_crop_jpeg(image, scaled, channels=3, ratio=ratio)

    # Index of the ratio for each value of (shorter edge // size).
    steps = [sum(times >= ratio for ratio in _RATIOS[1:]) for times in range(_RATIOS[-1] + 1)]
    step = tf.gather(steps, tf.minimum(tf.reduce_min(window[2:]) // size, _RATIOS[-1]))
    is_impossible = tf.reduce_prod(tf.cast(shape, tf.float32)) > _MAX_PIXELS
    branches: list[Callable[[], tf.Tensor]] = [functools.partial(at, ratio) for ratio in _RATIOS]
    branches.append(lambda: tf.io.decode_jpeg(image, channels=3))  # fails for that size
    return tf.switch_case(tf.where(is_impossible, len(_RATIOS), step), branches)


def decode_scaled(image: tf.Tensor, edge: int) -> tf.Tensor:
    """Decodes like `decode`, but large JPEGs at 1/2, 1/4 or 1/8 scale (not exact), keeping their edges >= `edge`."""

    def from_jpeg() -> tf.Tensor:
        shape = jpeg_shape(image)
        return decode_window(image, shape, tf.concat([[0, 0], shape], 0), edge)

    if image.dtype != tf.string:
        return decode(image)
    return tf.ensure_shape(tf.cond(tf.io.is_jpeg(image), from_jpeg, lambda: decode(image)), [None, None, 3])


def jpeg_shape(image: tf.Tensor) -> tf.Tensor:
    """Returns height and width from a JPEG's header, int32 (2,)."""
    return tf.image.extract_jpeg_shape(image)[:2]


def _reject_bmp_palette(image: tf.Tensor) -> tf.Tensor:
    """Raises in the graph for an 8-bit BMP with a colour palette: TensorFlow would read the indices as grey levels."""

    def check() -> tf.Tensor:
        header = tf.io.decode_raw(tf.strings.substr(image, 14, 4), tf.int32)[0]
        depth = tf.io.decode_raw(tf.strings.substr(image, 28, 2), tf.int16)[0]
        palette = tf.io.decode_raw(tf.strings.substr(image, 14 + header, 1024), tf.uint8)
        palette = tf.reshape(palette[: tf.size(palette) // 4 * 4], [-1, 4])
        grey = tf.cast(tf.range(tf.shape(palette)[0]), tf.uint8)[:, None] == palette[:, :3]
        is_grey = tf.logical_or(depth != 8, tf.reduce_all(grey))
        with tf.control_dependencies([tf.debugging.Assert(is_grey, ["BMP with a colour palette"])]):
            return tf.constant(True)

    is_bmp = tf.logical_and(tf.strings.substr(image, 0, 2) == b"BM", tf.strings.length(image) > 54)
    return tf.cond(is_bmp, check, lambda: tf.constant(True))
