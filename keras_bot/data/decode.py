"""From encoded bytes to pixels: whole, a window of a JPEG, or smaller. Runs in tf.data's graphs; errors raise there.

TensorFlow decodes JPEG, PNG, GIF and BMP. Pillow decodes the other formats, WebP among them: TensorFlow 2.21 corrupts
its memory on animated WebP. The content decides, not the name of the file. Of animations and files of several pages
the first image is taken.

Of a JPEG's window that is at least 2, 4 or 8 times as large as the result, libjpeg decodes 1/2, 1/4 or 1/8 of the
frequencies only: that is quicker, averages where plain bilinear resizing would skip pixels, and never has to be
enlarged again.
"""

import functools
import io

import numpy as np
import tensorflow as tf
from PIL import Image, features

from keras_bot.data.in_python import in_python

SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".png", ".gif", ".bmp", ".webp"),
    *(".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm"),
    *((".avif",) if features.check("avif") else ()),
)

_BY_TENSORFLOW = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"BM")  # the first bytes of JPEG, PNG, GIF and BMP
_BY_PILLOW = ["WEBP", "TIFF", "PPM", "AVIF"]  # no format that starts another program, as EPS does
_RATIOS = (1, 2, 4, 8)
_MAX_PIXELS = 2**29 // 3  # what TensorFlow decodes as a whole at most: a header that claims more is damaged


def decode(image: tf.Tensor) -> tf.Tensor:
    """Encoded bytes or an array -> uint8 (H, W, 3): greyscale is spread over RGB, alpha is dropped."""
    if image.dtype != tf.string:
        return tf.image.grayscale_to_rgb(image) if image.shape[-1] == 1 else image

    def by_tensorflow() -> tf.Tensor:
        with tf.control_dependencies([_refuse_bmp_palette(image)]):
            return tf.io.decode_image(image, channels=3, expand_animations=False)

    def by_pillow() -> tf.Tensor:
        pixels = in_python(_by_pillow, [image], tf.uint8, stateful=False)
        # An error raised in Python instead would print a traceback for each damaged image.
        with tf.control_dependencies([tf.debugging.Assert(tf.size(pixels) > 0, ["no image that can be decoded"])]):
            return tf.identity(pixels)

    known = tf.reduce_any([tf.strings.substr(image, 0, len(first)) == first for first in _BY_TENSORFLOW])
    return tf.ensure_shape(tf.cond(known, by_tensorflow, by_pillow), [None, None, 3])


def _by_pillow(encoded: bytes | np.ndarray) -> np.ndarray:
    """uint8 (H, W, 3); (0, 0, 3) for what is no image of `_BY_PILLOW`."""
    encoded = encoded if isinstance(encoded, bytes) else encoded.item()  # called eagerly, TensorFlow passes an array
    formats = [name for name in _BY_PILLOW if name != "AVIF" or features.check("avif")]
    try:
        picture = Image.open(io.BytesIO(encoded), formats=formats)
        if picture.mode.startswith("I;16"):  # Pillow would clip its values at 255
            return np.repeat((np.asarray(picture) >> 8).astype(np.uint8)[..., None], 3, axis=-1)
        if picture.mode not in ("I", "F"):  # whose values have no known range
            return np.asarray(picture.convert("RGB"))
    except Exception:  # Pillow raises whatever it stumbles over in damaged files
        pass
    return np.zeros((0, 0, 3), np.uint8)


def decode_window(image: tf.Tensor, shape: tf.Tensor, window: tf.Tensor, size: int) -> tf.Tensor:
    """A window of a JPEG, decoded at 1/1, 1/2, 1/4 or 1/8: the smallest whose edges have `size` pixels or more.

    Args:
        image: encoded JPEG.
        shape: int32 (2,): height and width by its header. If they can't be, this raises in the graph.
        window: int32 (4,): top, left, height, width, in pixels of the whole image.
        size: of the edges that the window will be resized to.

    Returns:
        uint8 (h, w, 3). Scaled decoding moves the window by less than one pixel of its own.
    """

    def at(ratio: int) -> tf.Tensor:
        scaled = window if ratio == 1 else window // ratio
        return tf.image.decode_and_crop_jpeg(image, scaled, channels=3, ratio=ratio)

    # The index of the ratio for each number of times that `size` goes into the shorter edge.
    steps = [sum(times >= ratio for ratio in _RATIOS[1:]) for times in range(_RATIOS[-1] + 1)]
    step = tf.gather(steps, tf.minimum(tf.reduce_min(window[2:]) // size, _RATIOS[-1]))
    lies = tf.reduce_prod(tf.cast(shape, tf.float32)) > _MAX_PIXELS
    branches = [functools.partial(at, ratio) for ratio in _RATIOS]
    branches.append(lambda: tf.io.decode_jpeg(image, channels=3))  # which fails for that size
    return tf.switch_case(tf.where(lies, len(_RATIOS), step), branches)


def decode_scaled(image: tf.Tensor, edge: int) -> tf.Tensor:
    """`decode`, but a JPEG whose edges are at least 2, 4 or 8 times `edge` comes out smaller by that: not exact."""

    def from_jpeg() -> tf.Tensor:
        shape = jpeg_shape(image)
        return decode_window(image, shape, tf.concat([[0, 0], shape], 0), edge)

    if image.dtype != tf.string:
        return decode(image)
    return tf.ensure_shape(tf.cond(tf.io.is_jpeg(image), from_jpeg, lambda: decode(image)), [None, None, 3])


def jpeg_shape(image: tf.Tensor) -> tf.Tensor:
    """Height and width by a JPEG's header, int32 (2,)."""
    return tf.image.extract_jpeg_shape(image)[:2]


def _refuse_bmp_palette(image: tf.Tensor) -> tf.Tensor:
    """Raises in the graph for an 8-bit BMP whose palette isn't grey: TensorFlow would take its indices for grey."""

    def check() -> tf.Tensor:
        header = tf.io.decode_raw(tf.strings.substr(image, 14, 4), tf.int32)[0]
        depth = tf.io.decode_raw(tf.strings.substr(image, 28, 2), tf.int16)[0]
        palette = tf.io.decode_raw(tf.strings.substr(image, 14 + header, 1024), tf.uint8)
        palette = tf.reshape(palette[: tf.size(palette) // 4 * 4], [-1, 4])
        grey = tf.cast(tf.range(tf.shape(palette)[0]), tf.uint8)[:, None] == palette[:, :3]
        is_right = tf.logical_or(depth != 8, tf.reduce_all(grey))
        with tf.control_dependencies([tf.debugging.Assert(is_right, ["a BMP with a palette of colours"])]):
            return tf.constant(True)

    is_bmp = tf.logical_and(tf.strings.substr(image, 0, 2) == b"BM", tf.strings.length(image) > 54)
    return tf.cond(is_bmp, check, lambda: tf.constant(True))
