"""Decoding of image and mask pairs, and error reports for invalid masks.

Decoding an invalid mask doesn't raise, because the pair would then count as a file that can't be decoded. Instead it
returns a problem, int32 (5,): the kind (0 for none), then an id or two sizes.
"""

import io

import numpy as np
import tensorflow as tf
from PIL import Image

from keras_bot.data.corrupt import call_for_rows
from keras_bot.data.decode import decode
from keras_bot.data.python_ops import numpy_function
from keras_bot.errors import RunError, first_few
from keras_bot.tasks.detection.data.annotation_checks import ROTATE
from keras_bot.tasks.segmentation.data.source import SegmentationSource
from keras_bot.tasks.segmentation.labels import UNKNOWN

_SHAPES, _IDS, _SIZE = range(1, 4)
_GREY_SCALES = {b"\x02\x00": 85, b"\x04\x00": 17}  # bit depth and colour type -> Pillow's factor on grey values


def decode_mask(encoded: tf.Tensor) -> tf.Tensor:
    """Decodes a PNG's bytes to ids int32 (H, W): grey values or palette indices; 256 for values that can't be ids.

    Raises in the graph for other files. TensorFlow decodes 8-bit grey, Pillow everything else, because TensorFlow
    returns a palette's colours instead of its indices. Pillow scales 2-bit and 4-bit grey to 0..255; this is undone.
    """

    def by_pillow(data: bytes | np.ndarray) -> np.ndarray:
        data = data if isinstance(data, bytes) else data.item()  # TensorFlow passes an array when eager
        ids = np.asarray(Image.open(io.BytesIO(data), formats=["PNG"])).astype(np.int32)
        ids = ids if ids.ndim == 2 else np.full(ids.shape[:2], UNKNOWN, np.int32)
        return np.clip(ids // _GREY_SCALES.get(data[24:26], 1), 0, UNKNOWN)

    grey = tf.strings.substr(encoded, 24, 2) == b"\x08\x00"  # bit depth and colour type
    mask = tf.cond(
        grey,
        lambda: tf.cast(tf.io.decode_png(encoded, channels=1)[..., 0], tf.int32),
        lambda: numpy_function(by_pillow, [encoded], tf.int32, stateful=False),
    )
    return tf.ensure_shape(mask, [None, None])


def decode_pair(
    record: dict[str, tf.Tensor], table: np.ndarray, size: tuple[int, int] | None = None
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Decodes a record to an image uint8 (H, W, 3), classes int32 (H, W) and a problem int32 (5,).

    Args:
        record: the encoded "image" and "mask".
        table: `class_table` of the source.
        size: maximum height and width, or None.
    """
    image, ids = decode(record["image"]), decode_mask(record["mask"])
    classes = tf.gather(table, ids)
    unknown = tf.reduce_max(tf.where(classes < 0, ids, -1))
    shapes = tf.concat([tf.shape(image)[:2], tf.shape(ids)], 0)
    problem = tf.where(unknown >= 0, [_IDS, unknown, 0, 0, 0], tf.zeros([5], tf.int32))
    if size:
        larger = tf.reduce_any(shapes[:2] > size)
        problem = tf.where(larger, tf.concat([[_SIZE], shapes[:2], size], 0), problem)
    differ = tf.reduce_any(shapes[:2] != shapes[2:])
    problem = tf.where(differ, tf.concat([[_SHAPES], shapes], 0), problem)
    least = tf.minimum(shapes[:2], shapes[2:])
    return image[: least[0], : least[1]], classes[: least[0], : least[1]], problem


def check_masks(
    source: SegmentationSource, keys: tuple, places: tf.Tensor, parts: tuple
) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns images and masks of a batch. Raises RunError in the graph, naming the file, for an invalid mask.

    Args:
        source: source of the pairs, for names and ids.
        keys: keys of the batch.
        places: int (B,), the row of `keys` for each pair.
        parts: images, masks and problems, see `decode_pair`.
    """

    def raise_error(names: np.ndarray, problems: np.ndarray) -> None:
        name = names[0].decode(errors="replace")
        kind, *figures = problems[0]
        if kind == _IDS:
            ids, ignored = (first_few(list(map(str, ids))) for ids in (source.class_ids, source.ignored))
            value = f"the id {figures[0]}" if figures[0] < UNKNOWN else "colours, or an id above 255"
            raise RunError(
                f"{name}: the mask contains {value}. Valid ids are {ids} (classes) and {ignored} (unlabelled). Correct "
                "the mask, or add the id to classes.csv or to the ignored ids."
            )
        sizes = [f"{width}x{height}" for height, width in (figures[:2], figures[2:])]
        if kind == _SHAPES and figures[:2] == figures[2:][::-1]:
            raise RunError(
                f"{name}: the image is {sizes[0]} and the mask {sizes[1]}: width and height are swapped. The labelling "
                f"tool probably applied the image's EXIF orientation, which keras-bot ignores. {ROTATE}, or rotate the "
                "mask."
            )
        if kind == _SHAPES:
            raise RunError(f"{name}: the image is {sizes[0]}, but the mask is {sizes[1]}. Their sizes must match.")
        raise RunError(f"{name}: the image is {sizes[0]}, larger than the evaluation's size {sizes[1]}. Increase it.")

    images, masks, problems = parts
    wrong = problems[:, 0] > 0
    checked = call_for_rows(raise_error, source, keys, tf.boolean_mask(places, wrong), tf.boolean_mask(problems, wrong))
    with tf.control_dependencies([checked]):
        return images, tf.identity(masks)
