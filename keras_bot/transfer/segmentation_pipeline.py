"""From images and masks to batches. The order of a training pass:

    shuffle -> (read, decode, scale, crop, flip) one by one -> colour and normalise a batch -> prefetch

Scale and crop are one resampling: bilinear for the image, nearest for the mask, on the same grid. What lies outside the
image is 0 after normalisation, as a convolution's own padding is, and 255 in the mask. As in `data.training`, order and
draws are a function of (seed, epoch, position), so that a pass can begin at any step.

GluonCV trains its FCN with scales of 0.5 to 2, crops of 480, flips, a blur of half of the images, and no colour jitter.
"""

import io

import numpy as np
import tensorflow as tf
from PIL import Image

from keras_bot.data import color
from keras_bot.data.batches import RAM_BUDGET, check_form, seed_at, with_options
from keras_bot.data.corrupt import CorruptLog, fill_missing, guarded_batches, pad_missing
from keras_bot.data.decode import decode
from keras_bot.data.image import to_uint8
from keras_bot.data.source import cpu_constant
from keras_bot.data.worker_rows import eval_rows, training_rows
from keras_bot.errors import MisuseError, RunError, first_few
from keras_bot.transfer.segmentation_source import IGNORE, UNKNOWN, SegmentationSource

_ORDER, _GEOMETRY, _JITTER, _PCA = range(4)
_OUTSIDE = IGNORE + 1  # in a mask, of pixels beyond the image
_SHAPES, _IDS, _SIZE = range(1, 4)  # what can be wrong with a mask


def segmentation_train_pipeline(
    source: SegmentationSource,
    *,
    batch_size: int,
    crop_size: int,
    epochs: int,
    scale: tuple[float, float] = (0.5, 2.0),
    base_size: int = 0,
    flip: bool = True,
    color_jitter: float = 0.0,
    pca_noise: float = 0.0,
    seed: int = 0,
    first_epoch: int = 0,
    first_step: int = 0,
    corrupt: CorruptLog | None = None,
    dtype: str = "float32",
    ram_budget: int = RAM_BUDGET,
    worker: int = 0,
    workers: int = 1,
) -> tf.data.Dataset:
    """Batches for training: (images (B, S, S, 3) normalised, masks int32 (B, S, S) of 0..K-1 and 255).

    Args:
        source: of the pairs.
        batch_size: B; an epoch has `source.size // B` steps.
        crop_size: S.
        epochs: the stream ends after epoch `epochs - 1`.
        scale: the range of the factor on height and width, uniform.
        base_size: pixels of the shorter edge at the scale 1; 0 leaves images as large as they are.
        flip: mirror left-right with probability 1/2.
        color_jitter, pca_noise: see `data.color`; 0 is off.
        seed, first_epoch, first_step, corrupt, dtype, ram_budget, worker, workers: as in `data.train_pipeline`. A pair
            counts as corrupt if one of its files can't be decoded.

    Raises:
        MisuseError: an argument is out of its range, or the batch is larger than the source.
        RunError: inside the pipeline (`data.source.run_error` finds it): a mask has an unknown id or another size than
            its image, or too many files can't be decoded. It names the file.
    """
    check_form("plain", dtype, batch_size=batch_size, crop_size=crop_size, ram_budget=ram_budget)
    _check_training(source, batch_size, epochs, first_epoch, first_step)
    _check_augmentation(scale, base_size, color_jitter, pca_noise)
    rows = training_rows(batch_size, worker, workers)
    log = corrupt or CorruptLog(0)
    steps = source.size // batch_size
    read = _pair_reader(source)

    def make(position: tf.Tensor, key: tuple) -> tuple[tf.Tensor, ...]:
        image, mask, problem = read(*key)
        uniform = tf.random.stateless_uniform([4], seed_at(seed, _GEOMETRY, position))
        return *_random_crop(image, mask, uniform, crop_size, scale, base_size, flip), problem

    def finish(keys: tuple, places: tf.Tensor, made: tuple) -> tuple[tf.Tensor, tf.Tensor]:
        images, masks, problems = made
        batch = keys[0][0] // batch_size
        with tf.control_dependencies(_told(source, log, keys, places, problems)):
            images, masks = fill_missing(images, masks, places, len(rows))
        masks = tf.where(tf.size(places) > 0, masks, _OUTSIDE)
        seeds = tf.stack([seed_at(seed, stream, batch) for stream in (_JITTER, _PCA)])
        matrix, shift = rows.draws(color.draw_maps(batch_size, color_jitter, pca_noise, seeds))
        return _finished(images, masks, matrix, shift, dtype)

    def positions(epoch: tf.Tensor) -> tf.data.Dataset:
        first = tf.where(epoch == first_epoch, tf.constant(first_step * batch_size, tf.int64), 0)
        return source.keys(seed_at(seed, _ORDER, epoch), 1, first).take(steps * batch_size - first)

    first_batch = first_epoch * steps + first_step
    keys = tf.data.Dataset.range(first_epoch, epochs).flat_map(positions).enumerate(first_batch * batch_size)
    batches = guarded_batches(rows.keys(keys), make, len(rows), drop_remainder=True)
    batches = batches.map(finish, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    batches = batches.apply(tf.data.experimental.assert_cardinality(epochs * steps - first_batch))
    return with_options(batches.prefetch(tf.data.AUTOTUNE), ram_budget)


def segmentation_eval_pipeline(
    source: SegmentationSource,
    *,
    batch_size: int,
    size: tuple[int, int] | None = None,
    multiple: int = 1,
    corrupt: CorruptLog | None = None,
    dtype: str = "float32",
    ram_budget: int = RAM_BUDGET,
    worker: int = 0,
    workers: int = 1,
) -> tf.data.Dataset:
    """Batches for evaluation: (images (B, H, W, 3) normalised, masks int32 (B, H, W), weights float32 (B,)).

    Images keep their size; below and to the right of them is 0, and 255 in the mask. Every image comes once, in order.
    The weight is 0, and the mask 255 all over, for the last batch's padding and for what can't be decoded.

    Args:
        source, batch_size, corrupt, dtype, ram_budget, worker, workers: as in `data.eval_pipeline`.
        size: H and W; None is the greatest height and width in the source, which reads the header of every mask.
        multiple: H and W are rounded up to multiples of it.

    Raises:
        MisuseError: an argument is out of its range.
        RunError: as in `segmentation_train_pipeline`, or an image is larger than `size`.
    """
    check_form("plain", dtype, batch_size=batch_size, multiple=multiple, ram_budget=ram_budget)
    if size is not None and (len(size) != 2 or min(size) < 1):
        raise MisuseError(f"Expected size as (height, width) from 1 on, received {size}.")
    rows = eval_rows(batch_size, worker, workers)
    log = corrupt or CorruptLog(0)
    height, width = (-(-edge // multiple) * multiple for edge in size or source.largest())
    read = _pair_reader(source, (height, width))

    def make(_, key: tuple) -> tuple[tf.Tensor, ...]:
        image, mask, problem = read(*key)
        image, mask = image[:height, :width], mask[:height, :width]
        below, right = height - tf.shape(mask)[0], width - tf.shape(mask)[1]
        image = tf.ensure_shape(tf.pad(image, [[0, below], [0, right], [0, 0]]), [height, width, 3])
        mask = tf.pad(mask, [[0, below], [0, right]], constant_values=_OUTSIDE)
        return image, tf.ensure_shape(mask, [height, width]), problem

    def fill(keys: tuple, places: tf.Tensor, made: tuple) -> tuple[tf.Tensor, ...]:
        images, masks, problems = made
        with tf.control_dependencies(_told(source, log, keys, places, problems)):
            return pad_missing((images, masks, tf.ones_like(places, tf.float32)), places, len(rows))

    def finish(images: tf.Tensor, masks: tf.Tensor, weights: tf.Tensor) -> tuple[tf.Tensor, ...]:
        masks = tf.where(weights[:, None, None] > 0, masks, _OUTSIDE)
        return *_finished(images, masks, *color.draw_maps(1, 0.0, 0.0, None), dtype), weights

    batches = guarded_batches(rows.keys(source.keys(None, 1).enumerate()), make, len(rows))
    batches = rows.with_last(batches.map(fill, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True), source.size)
    batches = batches.map(finish, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    batches = batches.apply(tf.data.experimental.assert_cardinality(-(-source.size // batch_size)))
    return with_options(batches.prefetch(tf.data.AUTOTUNE), ram_budget)


def decode_mask(encoded: tf.Tensor) -> tf.Tensor:
    """A PNG's bytes -> ids int32 (H, W): grey values or indices of a palette; 256 is what can be no id.

    Raises in the graph for other files. Eight bits of grey are decoded by TensorFlow, the others by Pillow: TensorFlow
    gives a palette's colours instead of its indices.
    """

    def by_pillow(data: bytes | np.ndarray) -> np.ndarray:
        data = data if isinstance(data, bytes) else data.item()  # called eagerly, TensorFlow hands over an array
        ids = np.asarray(Image.open(io.BytesIO(data), formats=["PNG"]))
        return np.clip(ids, 0, UNKNOWN).astype(np.int32) if ids.ndim == 2 else np.full(ids.shape[:2], UNKNOWN, np.int32)

    grey = tf.strings.substr(encoded, 24, 2) == b"\x08\x00"  # bit depth and colour type
    mask = tf.cond(
        grey,
        lambda: tf.cast(tf.io.decode_png(encoded, channels=1)[..., 0], tf.int32),
        lambda: tf.numpy_function(by_pillow, [encoded], tf.int32, stateful=False),
    )
    return tf.ensure_shape(mask, [None, None])


def _pair_reader(source, size=None):
    """`read(index)`, in a graph -> image uint8 (H, W, 3), classes int32 (H, W), problem int32 (5,)."""
    table = cpu_constant(source.class_table())

    def read(index: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        record = source.read(index)
        image, ids = decode(record["image"]), decode_mask(record["mask"])
        classes = tf.gather(table, ids)
        unknown = tf.reduce_max(tf.where(classes < 0, ids, -1))
        shapes = tf.concat([tf.shape(image)[:2], tf.shape(ids)], 0)
        problem = tf.where(unknown >= 0, [_IDS, unknown, 0, 0, 0], tf.zeros([5], tf.int32))
        differ = tf.reduce_any(shapes[:2] != shapes[2:])
        problem = tf.where(differ, tf.concat([[_SHAPES], shapes], 0), problem)
        if size:
            larger = tf.reduce_any(shapes[:2] > size)
            problem = tf.where(larger, tf.concat([[_SIZE], shapes[:2], size], 0), problem)
        least = tf.minimum(shapes[:2], shapes[2:])
        return image[: least[0], : least[1]], classes[: least[0], : least[1]], problem

    return read


def _told(source, log, keys, places, problems):
    """What a batch depends on, so that files that can't be decoded are logged and wrong masks raise RunError."""

    def complain(names: np.ndarray, wrong: np.ndarray) -> None:
        name = names[0].decode(errors="replace")
        kind, *figures = wrong[0]
        if kind == _IDS:
            ids, ignored = (first_few(list(map(str, ids))) for ids in (source.class_ids, source.ignored))
            what = f"an id {figures[0]}" if figures[0] < UNKNOWN else "colours, or an id above 255"
            raise RunError(
                f"{name}: expected a mask of the ids {ids}, or {ignored} for unlabelled, received {what}. "
                "Mend the mask, or add the id to classes.csv or to those ignored."
            )
        expected = "a mask of its size" if kind == _SHAPES else "an image no larger than the evaluation's size"
        sizes = [f"{width}x{height}" for height, width in (figures[:2], figures[2:])]
        raise RunError(f"{name}: expected {expected}, received {sizes[0]} and {sizes[1]}. Mend the file, or the size.")

    wrong = problems[:, 0] > 0

    def tell() -> tf.Tensor:
        names = source.record_name(*(tf.boolean_mask(tf.gather(part, places), wrong) for part in keys[1]))
        return tf.ensure_shape(tf.numpy_function(complain, [names, tf.boolean_mask(problems, wrong)], tf.bool), [])

    checked = tf.cond(tf.reduce_any(wrong), tell, lambda: tf.constant(True))
    return [log.report_missing(source, keys, places), checked]


def _random_crop(image, mask, uniform, size, scale, base_size, flip):
    """Scaled, cut to (size, size), perhaps flipped; `uniform` (4,): scale, place down and across, flip."""
    full = tf.cast(tf.shape(mask), tf.float32)
    factor = scale[0] + uniform[0] * (scale[1] - scale[0])
    factor *= base_size / tf.reduce_min(full) if base_size else 1.0
    scaled = tf.maximum(tf.round(full * factor), 1.0)
    # A window anywhere in the image; if the image is smaller, the image anywhere in the window.
    start = tf.round(uniform[1:3] * (scaled - size))
    zoom = scaled / full
    image = tf.raw_ops.ScaleAndTranslate(
        images=image[None], size=[size, size], scale=zoom, translation=-start, kernel_type="triangle", antialias=False
    )[0]
    centres = tf.range(size, dtype=tf.float32)[None] + 0.5 + start[:, None]
    nearest = tf.cast(tf.floor(centres / zoom[:, None]), tf.int32)
    inside = (centres > 0) & (centres < scaled[:, None])
    nearest = tf.clip_by_value(nearest, 0, tf.shape(mask)[:, None] - 1)
    mask = tf.gather(tf.gather(mask, nearest[0]), nearest[1], axis=1)
    mask = tf.where(inside[0][:, None] & inside[1][None], mask, _OUTSIDE)
    image = to_uint8(image)
    if flip:
        image, mask = tf.cond(uniform[3] < 0.5, lambda: (image[:, ::-1], mask[:, ::-1]), lambda: (image, mask))
    return tf.ensure_shape(image, [size, size, 3]), tf.ensure_shape(mask, [size, size])


@tf.function(jit_compile=True)
def _finished(images, masks, matrix, shift, dtype):
    """Colour and normalisation of a batch, 0 outside of the images; masks with 255 there."""
    images = tf.where(masks[..., None] == _OUTSIDE, 0.0, color.apply_map(images, matrix, shift))
    return tf.cast(images, dtype), tf.minimum(masks, IGNORE)


def _check_training(source, batch_size, epochs, first_epoch, first_step):
    steps = source.size // batch_size
    if not steps:
        raise MisuseError(
            f"Expected a batch no larger than the data set: {source.name} has {source.size} images, received "
            f"batch_size {batch_size}. Use a smaller batch."
        )
    if not 0 <= first_epoch <= epochs:
        raise MisuseError(f"Expected 0 <= first_epoch <= epochs, received {first_epoch} and {epochs}.")
    if not 0 <= first_step < steps or (first_step and first_epoch == epochs):
        raise MisuseError(f"Expected 0 <= first_step < {steps}, the steps of an epoch, received {first_step}.")


def _check_augmentation(scale, base_size, color_jitter, pca_noise):
    if len(scale) != 2 or not 0 < scale[0] <= scale[1] < 100:
        raise MisuseError(f"Expected scale as 0 < low <= high < 100, received {scale}.")
    for name, value, most in (
        ("base_size", base_size, 2**15),
        ("color_jitter", color_jitter, 1),
        ("pca_noise", pca_noise, 100),
    ):
        if not 0 <= value <= most:
            raise MisuseError(f"Expected 0 <= {name} <= {most}, received {value}. 0 is off.")
