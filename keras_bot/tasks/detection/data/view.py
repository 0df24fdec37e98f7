"""Per-image detection preprocessing: crops and resizes a window of the image and transforms its boxes."""

from collections.abc import Callable

import tensorflow as tf

from keras_bot.data import decode
from keras_bot.data.augment import color, geometry
from keras_bot.data.config import check_whole
from keras_bot.errors import unknown
from keras_bot.tasks.detection import box_ops
from keras_bot.tasks.detection.data.source import DetectionSource

RESIZES = ("letterbox", "stretch")
_RATIOS = (1, 2, 4, 8)
_MIN_SIDE = 1.0  # minimum height and width of a clipped box, in pixels of the network's input


def check_resize(resize: str) -> None:
    """Raises MisuseError for an unknown resize mode."""
    if resize not in RESIZES:
        raise unknown("resize", resize, RESIZES)


def preprocess_detection(images: tf.Tensor, image_size: int, resize: str = "letterbox") -> tuple[tf.Tensor, tf.Tensor]:
    """Preprocesses decoded images like `detection_eval_pipeline`, in a graph that can be exported with a model.

    Args:
        images: uint8 or float (B, H, W, 3), 0..255, of any size.
        image_size: S.
        resize: "letterbox" or "stretch".

    Returns:
        Normalised images float32 (B, S, S, 3), and the scale factors (2,) to divide predicted boxes by.
    """
    check_whole(image_size=image_size)
    check_resize(resize)
    shape = tf.shape(images)[1:3]
    _, place = box_ops.cut(box_ops.whole_window(shape, resize == "stretch"), shape, image_size)
    pictures = color.normalise(geometry.resize(images, place[2], place[3]))
    pictures = tf.image.pad_to_bounding_box(pictures, 0, 0, image_size, image_size)
    scale = tf.cast(place[2:], tf.float32) / tf.cast(shape, tf.float32)
    return tf.ensure_shape(pictures, [None, image_size, image_size, 3]), scale


@tf.function(jit_compile=True)
def fused_window_map(
    images: tf.Tensor, windows: tf.Tensor, matrix: tf.Tensor, shift: tf.Tensor, dtype: str = "float32"
) -> tf.Tensor:
    """Applies `color.apply_map` inside each image's window, float32 (B, 4), and sets 0 outside, in one fused loop."""
    mapped = color.apply_map(images, matrix, shift)
    inside = True
    for axis, edge in ((0, images.shape[1]), (1, images.shape[2])):
        middles = tf.range(edge, dtype=tf.float32) + 0.5
        covered = (middles >= windows[:, axis, None]) & (middles < windows[:, axis + 2, None])
        inside &= covered[:, :, None, None] if axis == 0 else covered[:, None, :, None]
    return tf.cast(tf.where(inside, mapped, 0.0), dtype)


def drop_difficult(source: DetectionSource, record: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """Returns the record without difficult boxes, unless the source trains on them."""
    if source.train_on_difficult:
        return record
    plain = tf.logical_not(record["difficult"])
    return {**record, **{name: tf.boolean_mask(record[name], plain) for name in ("boxes", "classes")}}


def train_example(
    record: dict[str, tf.Tensor],
    size: int,
    max_boxes: int,
    uniform: tf.Tensor,
    *,
    resize: str,
    flip: bool,
    zooms: tuple[float, float],
    min_visible: float,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Returns an image uint8 (S, S, 3), its window without padding float32 (4,), boxes and classes float32 (M, 5)."""

    def draw_part(shape: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        stretch = resize == "stretch"
        window = box_ops.draw_window(shape, record["boxes"], uniform[1:], stretch=stretch, zooms=zooms)
        return box_ops.cut(window, shape, size)

    pixels, part, place = _decode_part(record["image"], draw_part)
    picture = geometry.to_uint8(_placed(pixels, place, size))
    window = tf.cast(place, tf.float32)
    boxes = box_ops.to_place(record["boxes"], part, place)
    keep = box_ops.centred_in(boxes, window) | (box_ops.visible(boxes, window) >= min_visible)
    boxes = box_ops.clip(boxes, window)
    keep &= tf.reduce_all(box_ops.sides(boxes) >= _MIN_SIDE, axis=-1)
    if flip:
        mirrored = [tf.reverse(picture, [1]), box_ops.flip(window, size), box_ops.flip(boxes, size)]
        picture, window, boxes = tf.cond(uniform[0] < 0.5, lambda: mirrored, lambda: [picture, window, boxes])
    rows = tf.concat([boxes, tf.cast(record["classes"], tf.float32)[:, None]], axis=1)
    return picture, window, box_ops.pad(tf.boolean_mask(rows, keep), max_boxes)


def _decode_part(encoded: tf.Tensor, draw_part: Callable) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Decodes a part of an image, a JPEG at the smallest scale with enough pixels.

    Args:
        encoded: the image's bytes.
        draw_part: image height and width -> the part, and its place in the network's input; see `box_ops.cut`.

    Returns:
        The pixels (h, w, 3), the part that they cover in the original image, and its place.
    """

    def from_jpeg() -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        shape = decode.jpeg_shape(encoded)
        part, place = draw_part(shape)
        spans = part[2:] - part[:2]
        ratio = _jpeg_ratio(spans, place[2:] - place[:2])
        pixels = decode.decode_window(encoded, shape, tf.concat([part[:2], spans], 0), tf.reduce_min(spans) // ratio)
        # A decoded pixel covers ratio x ratio original pixels, so the decoded part is aligned to multiples of ratio.
        first = part[:2] // ratio
        return pixels, tf.concat([first, first + spans // ratio], 0) * ratio, place

    def from_whole() -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        whole = decode.decode(encoded)
        part, place = draw_part(tf.shape(whole)[:2])
        return whole[part[0] : part[2], part[1] : part[3]], part, place

    pixels, part, place = tf.cond(tf.io.is_jpeg(encoded), from_jpeg, from_whole)
    return tf.ensure_shape(pixels, [None, None, 3]), part, place


def _jpeg_ratio(spans: tf.Tensor, wanted: tf.Tensor) -> tf.Tensor:
    """Returns the largest JPEG downscaling ratio, int32, that leaves at least `wanted` pixels of `spans`, or 1."""
    times = tf.reduce_min(spans // wanted)
    return tf.reduce_max(tf.where(times >= _RATIOS, _RATIOS, 1))


def eval_example(record: dict[str, tf.Tensor], size: int, max_boxes: int, resize: str) -> tuple:
    """Returns the image float32 (S, S, 3) in 0..255, window, boxes, classes, difficult bool, index, shape and scale."""
    whole = decode.decode(record["image"])
    shape = tf.shape(whole)[:2]
    part, place = box_ops.cut(box_ops.whole_window(shape, resize == "stretch"), shape, size)
    boxes = box_ops.to_place(record["boxes"], part, place)
    scale = tf.cast(place[2:], tf.float32) / tf.cast(shape, tf.float32)
    return (
        _placed(whole, place, size),
        tf.cast(place, tf.float32),
        box_ops.pad(boxes, max_boxes),
        box_ops.pad(record["classes"], max_boxes),
        box_ops.pad(tf.cast(record["difficult"], tf.int32), max_boxes) > 0,
        record["index"],
        shape,
        scale,
    )


def _placed(pixels: tf.Tensor, place: tf.Tensor, size: int) -> tf.Tensor:
    """Resizes pixels to their place in a black square, float32 (size, size, 3)."""
    top, left, bottom, right = tf.unstack(place)
    resized = geometry.resize(pixels, bottom - top, right - left)
    padded = tf.pad(resized, [[top, size - bottom], [left, size - right], [0, 0]])
    return tf.ensure_shape(padded, [size, size, 3])
