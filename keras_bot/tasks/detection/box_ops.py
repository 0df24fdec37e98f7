"""Box arithmetic in TensorFlow: float32 (…, 4), y0, x0, y1, x1 in pixels, in continuous coordinates.

The pixel row r covers r to r + 1, so the box of a whole image is 0, 0, H, W, and areas need no "+ 1". All functions
work eagerly, inside tf.data and in an exported graph. Moving and clipping also change padding rows, so pad last.
"""

import math

import tensorflow as tf

PADDING = -1


def sides(boxes: tf.Tensor) -> tf.Tensor:
    """Returns heights and widths (…, 2); 0 for inverted boxes."""
    return tf.maximum(boxes[..., 2:] - boxes[..., :2], 0.0)


def area(boxes: tf.Tensor) -> tf.Tensor:
    """Returns areas (…); padding and inverted boxes have area 0."""
    return tf.reduce_prod(sides(boxes), axis=-1)


def centres(boxes: tf.Tensor) -> tf.Tensor:
    """Returns the box centres y, x (…, 2)."""
    return (boxes[..., :2] + boxes[..., 2:]) / 2.0


def clip(boxes: tf.Tensor, window: tf.Tensor) -> tf.Tensor:
    """Clips boxes to a window; a box outside it becomes a line or a point on the window's edge.

    Args:
        boxes: (…, 4).
        window: y0, x0, y1, x1, broadcast against the boxes: (B, 1, 4) or (4,) for boxes (B, N, 4).
    """
    low, high = tf.split(tf.cast(window, boxes.dtype), 2, axis=-1)
    return tf.concat([tf.clip_by_value(part, low, high) for part in tf.split(boxes, 2, axis=-1)], axis=-1)


def intersections(one: tf.Tensor, other: tf.Tensor) -> tf.Tensor:
    """Returns pairwise intersection areas (…, N, M) of boxes (…, N, 4) and (…, M, 4)."""
    one, other = one[..., :, None, :], other[..., None, :, :]
    low, high = tf.maximum(one[..., :2], other[..., :2]), tf.minimum(one[..., 2:], other[..., 2:])
    return tf.reduce_prod(tf.maximum(high - low, 0.0), axis=-1)


def iou_matrix(one: tf.Tensor, other: tf.Tensor) -> tf.Tensor:
    """Returns the pairwise IoU (…, N, M) of boxes (…, N, 4) and (…, M, 4).

    The IoU of two boxes without area is 0, so padding overlaps nothing, not even other padding.
    """
    shared = intersections(one, other)
    union = area(one)[..., :, None] + area(other)[..., None, :] - shared
    return tf.math.divide_no_nan(shared, union)


def flip(boxes: tf.Tensor, width: int | float | tf.Tensor) -> tf.Tensor:
    """Flips boxes left-right in an image that is `width` pixels wide."""
    y0, x0, y1, x1 = tf.unstack(boxes, axis=-1)
    width = tf.cast(width, boxes.dtype)
    return tf.stack([y0, width - x1, y1, width - x0], axis=-1)


def scale(boxes: tf.Tensor, factors: tf.Tensor) -> tf.Tensor:
    """Scales boxes by (y, x) `factors` (…, 2), broadcast against the boxes' corners."""
    factors = tf.cast(factors, boxes.dtype)
    return boxes * tf.concat([factors, factors], axis=-1)


def move(boxes: tf.Tensor, by: tf.Tensor) -> tf.Tensor:
    """Translates boxes by (y, x) pixels (…, 2), down and to the right."""
    by = tf.cast(by, boxes.dtype)
    return boxes + tf.concat([by, by], axis=-1)


def visible(boxes: tf.Tensor, window: tf.Tensor) -> tf.Tensor:
    """Returns the fraction of each box's area inside a window (see `clip`), 0..1 (…); 0 for a box without area."""
    return tf.math.divide_no_nan(area(clip(boxes, window)), area(boxes))


def centred_in(boxes: tf.Tensor, window: tf.Tensor) -> tf.Tensor:
    """Returns whether each box's centre is in a window (see `clip`), bool (…)."""
    middle = centres(boxes)
    low, high = tf.split(tf.cast(window, boxes.dtype), 2, axis=-1)
    return tf.reduce_all((middle >= low) & (middle < high), axis=-1)


def pad(rows: tf.Tensor, count: int) -> tf.Tensor:
    """Truncates or pads rows (n, …) to (count, …), filling with -1."""
    rows = rows[:count]
    missing = count - tf.shape(rows)[0]
    padded = tf.pad(rows, [[0, missing]] + [[0, 0]] * (rows.shape.rank - 1), constant_values=PADDING)
    return tf.ensure_shape(padded, [count, *rows.shape[1:]])


def draw_window(
    shape: tf.Tensor, boxes: tf.Tensor, uniform: tf.Tensor, *, stretch: bool, zooms: tuple[float, float]
) -> tf.Tensor:
    """Samples a random window relative to an image; see `data.pipeline`.

    Args:
        shape: image height and width, int32 (2,).
        boxes: float32 (n, 4), within the image.
        uniform: float32 (4,) in [0, 1), for the zoom, the vertical and horizontal position, and the box to keep.
        stretch: if True, the window has the image's aspect ratio; otherwise it is a square.
        zooms: smallest and largest zoom, sampled log-uniformly.

    Returns:
        float32 (4,): along each axis the window lies within the image or contains it.
    """
    full = tf.cast(shape, tf.float32)
    low, high = (math.log(zoom) for zoom in zooms)
    span = whole_window(shape, stretch)[2:] / tf.exp(low + (high - low) * uniform[0])
    count = tf.shape(boxes)[0]
    chosen = tf.minimum(tf.cast(uniform[3] * tf.cast(count, tf.float32), tf.int32), count - 1)
    first, last = tf.minimum(full - span, 0.0), tf.maximum(full - span, 0.0)

    def seeing() -> tuple[tf.Tensor, tf.Tensor]:
        middle = centres(boxes[chosen])
        return tf.maximum(first, middle - span), tf.minimum(last, middle)

    first, last = tf.cond(count > 0, seeing, lambda: (first, last))
    corner = first + (last - first) * uniform[1:3]
    return tf.concat([corner, corner + span], 0)


def whole_window(shape: tf.Tensor, stretch: bool) -> tf.Tensor:
    """Returns the window of a whole image (height, width), float32 (4,), starting at its top-left corner.

    With `stretch` it is the image itself. Otherwise it is a square with the image's longer edge, which puts padding at
    the bottom or right.
    """
    full = tf.cast(shape, tf.float32)
    span = full if stretch else tf.fill([2], tf.reduce_max(full))
    return tf.concat([tf.zeros([2]), span], 0)


def cut(window: tf.Tensor, shape: tf.Tensor, size: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the part of an image that a window shows, and its place in the square that the window is resized to.

    Both are whole pixels, so that the part can be cropped and resized to its place, and `to_place` transforms boxes
    identically. Rounding may move the window by up to one pixel of the image or of the square.

    Args:
        window: float32 (4,); it must contain some of the image.
        shape: image height and width, int32 (2,).
        size: edge of the square.

    Returns:
        The part in image pixels and the place in pixels of the square, each int32 (4,): y0, x0, y1, x1.
    """
    corner, end, full = window[:2], window[2:], tf.cast(shape, tf.float32)
    factors = size / (end - corner)
    first = tf.clip_by_value(tf.floor(corner), 0.0, full - 1.0)
    last = tf.clip_by_value(tf.math.ceil(end), first + 1.0, full)
    begin = tf.clip_by_value(tf.round((first - corner) * factors), 0.0, size - 1.0)
    stop = tf.clip_by_value(tf.round((last - corner) * factors), begin + 1.0, float(size))
    return tf.cast(tf.concat([first, last], 0), tf.int32), tf.cast(tf.concat([begin, stop], 0), tf.int32)


def to_place(boxes: tf.Tensor, part: tf.Tensor, place: tf.Tensor) -> tf.Tensor:
    """Transforms boxes (n, 4) from image pixels to pixels of the square of `cut`, without clipping."""
    part, place = tf.cast(part, boxes.dtype), tf.cast(place, boxes.dtype)
    factors = (place[2:] - place[:2]) / (part[2:] - part[:2])
    return move(scale(move(boxes, -part[:2]), factors), place[:2])
