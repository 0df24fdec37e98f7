"""Arithmetic of boxes, in TensorFlow: float32 (…, 4), each y0, x0, y1, x1 in pixels, on continuous coordinates.

A pixel in row r covers r to r + 1, so a box that is exactly the image is 0, 0, H, W, and areas need no "+ 1". All
functions work eagerly, inside tf.data and in an exported graph. Moving and clipping don't know padding: pad last.
"""

import math

import tensorflow as tf

PADDING = -1


def sides(boxes: tf.Tensor) -> tf.Tensor:
    """Height and width (…, 2); 0 where a box is turned inside out."""
    return tf.maximum(boxes[..., 2:] - boxes[..., :2], 0.0)


def area(boxes: tf.Tensor) -> tf.Tensor:
    """Areas (…); those of padding and of boxes turned inside out are 0."""
    return tf.reduce_prod(sides(boxes), axis=-1)


def centres(boxes: tf.Tensor) -> tf.Tensor:
    """The middle of each: y, x (…, 2)."""
    return (boxes[..., :2] + boxes[..., 2:]) / 2.0


def clip(boxes: tf.Tensor, window: tf.Tensor) -> tf.Tensor:
    """What of each box lies in a window; a box outside it becomes a line or a point on its edge.

    Args:
        boxes: (…, 4).
        window: y0, x0, y1, x1, broadcast against the boxes: of (B, N, 4) boxes (B, 1, 4) or (4,).
    """
    low, high = tf.split(tf.cast(window, boxes.dtype), 2, axis=-1)
    return tf.concat([tf.clip_by_value(part, low, high) for part in tf.split(boxes, 2, axis=-1)], axis=-1)


def intersections(one: tf.Tensor, other: tf.Tensor) -> tf.Tensor:
    """The area that each of (…, N, 4) boxes shares with each of (…, M, 4): (…, N, M)."""
    one, other = one[..., :, None, :], other[..., None, :, :]
    low, high = tf.maximum(one[..., :2], other[..., :2]), tf.minimum(one[..., 2:], other[..., 2:])
    return tf.reduce_prod(tf.maximum(high - low, 0.0), axis=-1)


def iou_matrix(one: tf.Tensor, other: tf.Tensor) -> tf.Tensor:
    """Intersection over union of each of (…, N, 4) boxes with each of (…, M, 4): (…, N, M).

    0 where both have no area, so a row of padding overlaps with nothing, not even with other padding.
    """
    shared = intersections(one, other)
    union = area(one)[..., :, None] + area(other)[..., None, :] - shared
    return tf.math.divide_no_nan(shared, union)


def flip(boxes: tf.Tensor, width: int | float | tf.Tensor) -> tf.Tensor:
    """The boxes once their image, so many pixels wide, is mirrored left-right."""
    y0, x0, y1, x1 = tf.unstack(boxes, axis=-1)
    width = tf.cast(width, boxes.dtype)
    return tf.stack([y0, width - x1, y1, width - x0], axis=-1)


def scale(boxes: tf.Tensor, factors: tf.Tensor) -> tf.Tensor:
    """The boxes once their image is resized by factors (…, 2) down and across, broadcast against the boxes' corners."""
    factors = tf.cast(factors, boxes.dtype)
    return boxes * tf.concat([factors, factors], axis=-1)


def move(boxes: tf.Tensor, by: tf.Tensor) -> tf.Tensor:
    """The boxes so many pixels (…, 2) further down and to the right."""
    by = tf.cast(by, boxes.dtype)
    return boxes + tf.concat([by, by], axis=-1)


def visible(boxes: tf.Tensor, window: tf.Tensor) -> tf.Tensor:
    """The part of each box's area that lies in a window, 0..1 (…); 0 of a box without area. As for `clip`."""
    return tf.math.divide_no_nan(area(clip(boxes, window)), area(boxes))


def centred_in(boxes: tf.Tensor, window: tf.Tensor) -> tf.Tensor:
    """Whether each box's middle lies in a window: bool (…). As for `clip`."""
    middle = centres(boxes)
    low, high = tf.split(tf.cast(window, boxes.dtype), 2, axis=-1)
    return tf.reduce_all((middle >= low) & (middle < high), axis=-1)


def pad(rows: tf.Tensor, count: int) -> tf.Tensor:
    """The first `count` of (n, …) rows, then rows of -1: (count, …)."""
    rows = rows[:count]
    missing = count - tf.shape(rows)[0]
    padded = tf.pad(rows, [[0, missing]] + [[0, 0]] * (rows.shape.rank - 1), constant_values=PADDING)
    return tf.ensure_shape(padded, [count, *rows.shape[1:]])


def draw_window(
    shape: tf.Tensor, boxes: tf.Tensor, uniform: tf.Tensor, *, stretch: bool, zooms: tuple[float, float]
) -> tf.Tensor:
    """A random window in the plane of an image; see the module `detection_pipeline`.

    Args:
        shape: of the image, int32 (2,): height, width.
        boxes: float32 (n, 4), within the image.
        uniform: float32 (4,) in [0, 1): the zoom, the place down and across, and which box to keep in sight.
        stretch: the window has the image's aspect ratio; otherwise it is a square.
        zooms: the smallest and the largest; log-uniform between.

    Returns:
        float32 (4,): it lies within the image, or the image within it, in either direction.
    """
    full = tf.cast(shape, tf.float32)
    low, high = (math.log(zoom) for zoom in zooms)
    span = whole_window(shape, stretch)[2:] / tf.exp(low + (high - low) * uniform[0])
    # Without a box any place of the window will do: the "box" is then as large as the image or the window.
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
    """The window that shows a whole image (height, width) from its first pixel on: float32 (4,).

    With `stretch` it is the image, otherwise the square on its longer edge, so that padding is below or to the right.
    """
    full = tf.cast(shape, tf.float32)
    span = full if stretch else tf.fill([2], tf.reduce_max(full))
    return tf.concat([tf.zeros([2]), span], 0)


def cut(window: tf.Tensor, shape: tf.Tensor, size: int) -> tuple[tf.Tensor, tf.Tensor]:
    """What part of an image a window shows, and where that lies once the window has become a square.

    Both are whole pixels, so the part can be cut out and resized to its place, and `to_place` moves boxes in exactly
    the same way. Rounding may move the window by up to a pixel, of the image or of the square.

    Args:
        window: float32 (4,); some of the image must be in it.
        shape: of the image, int32 (2,).
        size: edge of the square.

    Returns:
        The part in pixels of the image and the place in pixels of the square, int32 (4,) each: y0, x0, y1, x1.
    """
    corner, end, full = window[:2], window[2:], tf.cast(shape, tf.float32)
    factors = size / (end - corner)
    first = tf.clip_by_value(tf.floor(corner), 0.0, full - 1.0)
    last = tf.clip_by_value(tf.math.ceil(end), first + 1.0, full)
    begin = tf.clip_by_value(tf.round((first - corner) * factors), 0.0, size - 1.0)
    stop = tf.clip_by_value(tf.round((last - corner) * factors), begin + 1.0, float(size))
    return tf.cast(tf.concat([first, last], 0), tf.int32), tf.cast(tf.concat([begin, stop], 0), tf.int32)


def to_place(boxes: tf.Tensor, part: tf.Tensor, place: tf.Tensor) -> tf.Tensor:
    """Boxes (n, 4) of an image, in pixels of the square that `cut` is about; not clipped."""
    part, place = tf.cast(part, boxes.dtype), tf.cast(place, boxes.dtype)
    factors = (place[2:] - place[:2]) / (part[2:] - part[:2])
    return move(scale(move(boxes, -part[:2]), factors), place[:2])
