"""From encoded bytes to pixels: whole, a window of a JPEG, or smaller. Runs in tf.data's graphs; errors raise there.

Of a JPEG's window that is at least 2, 4 or 8 times as large as the result, libjpeg decodes 1/2, 1/4 or 1/8 of the
frequencies only: that is quicker, averages where plain bilinear resizing would skip pixels, and never has to be
enlarged again.
"""

import functools

import tensorflow as tf

_RATIOS = (1, 2, 4, 8)
_MAX_PIXELS = 2**29 // 3  # what TensorFlow decodes as a whole at most: a header that claims more is damaged


def decode(image: tf.Tensor) -> tf.Tensor:
    """Encoded bytes or an array -> uint8 (H, W, 3): greyscale is spread over RGB, alpha is dropped."""
    if image.dtype == tf.string:
        with tf.control_dependencies([_refuse_bmp_palette(image)]):
            return tf.ensure_shape(tf.io.decode_image(image, channels=3, expand_animations=False), [None, None, 3])
    return tf.image.grayscale_to_rgb(image) if image.shape[-1] == 1 else image


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
