"""Input pipelines for semantic segmentation. A training pass runs in this order:

    shuffle -> (read, decode, scale, crop, flip) per image -> colour and normalise per batch -> prefetch

Scaling and cropping are one resampling on one grid, bilinear for the image and nearest for the mask. Pixels outside the
image are 0 after normalisation, like a convolution's zero padding, and 255 in the mask. As in `data.stream`, order and
augmentation are a function of (seed, epoch, position), so that a pass can start at any step.

GluonCV trains its FCN with scales of 0.5 to 2, crops of 480, flips, blur on half of the images, and no colour jitter.
"""

import tensorflow as tf

from keras_bot.data.augment import color
from keras_bot.data.augment.geometry import to_uint8
from keras_bot.data.batches import RAM_BUDGET, check_form
from keras_bot.data.corrupt import CorruptLog
from keras_bot.data.sharding import eval_rows, training_rows
from keras_bot.data.sources.base import cpu_constant
from keras_bot.data.stream import TrainingStream, evaluation_batches
from keras_bot.errors import MisuseError
from keras_bot.tasks.segmentation.data.masks import check_masks, decode_pair
from keras_bot.tasks.segmentation.data.source import IGNORE, SegmentationSource

_OUTSIDE = IGNORE + 1  # mask value of pixels outside the image
_BLANK = (0, _OUTSIDE)


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
    shuffle_buffer: int = 1024,
    dtype: str = "float32",
    ram_budget: int = RAM_BUDGET,
    worker: int = 0,
    workers: int = 1,
) -> tf.data.Dataset:
    """Builds training batches: (normalised images (B, S, S, 3), masks int32 (B, S, S) of 0..K-1 and 255).

    Args:
        source: source of the pairs.
        batch_size: B; an epoch has `source.size // B` steps.
        crop_size: S.
        epochs: the stream ends after epoch `epochs - 1`.
        scale: range of the scale factor, sampled uniformly; height and width share the factor.
        base_size: shorter edge in pixels at scale 1; 0 keeps the image's own size.
        flip: whether to flip horizontally with probability 1/2.
        color_jitter, pca_noise: see `data.color`; 0 disables.
        seed, first_epoch, first_step, corrupt, shuffle_buffer, dtype, ram_budget, worker, workers: as in
            `data.train_pipeline`. A pair counts as corrupt if one of its files can't be decoded.

    Raises:
        MisuseError: If an argument is out of range or the batch is larger than the source.
        RunError: Inside the pipeline (`data.source.run_error` extracts it), if a mask has an unknown id or another size
            than its image, or too many files can't be decoded. The message names the file.
    """
    at_least_one = {"batch_size": batch_size, "crop_size": crop_size, "shuffle_buffer": shuffle_buffer}
    check_form(dtype, **at_least_one, ram_budget=ram_budget)
    if len(scale) != 2 or not 0 < scale[0] <= scale[1] < 100:
        raise MisuseError(f"Expected scale as 0 < low <= high < 100, received {scale}.")
    if not 0 <= base_size <= 2**15:
        raise MisuseError(f"Expected 0 <= base_size <= {2**15}, received {base_size}. 0 is off.")
    rows = training_rows(batch_size, worker, workers)
    stream = TrainingStream(source, rows, epochs, seed, first_epoch, first_step, color_jitter, pca_noise)
    table = cpu_constant(source.class_table())

    def make(record: dict, at: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        image, mask, problem = decode_pair(record, table)
        uniform = tf.random.stateless_uniform([4], at)
        return *_random_crop(image, mask, uniform, crop_size, scale, base_size, flip), problem

    def finish(parts: tuple, maps: tuple, _: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return _finished(*parts, *maps, dtype)

    options = {"blank": _BLANK, "check": check_masks, "shuffle_buffer": shuffle_buffer}
    return stream.batches(make, finish, **options, corrupt=corrupt, ram_budget=ram_budget)


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
    """Builds evaluation batches: (normalised images (B, H, W, 3), masks int32 (B, H, W), weights float32 (B,)).

    Images keep their size and are padded at the bottom and right with 0, masks with 255. Each image occurs once, in
    order. The last batch's padding and pairs that can't be decoded have weight 0 and masks of 255.

    Args:
        source, batch_size, corrupt, dtype, ram_budget, worker, workers: as in `data.eval_pipeline`.
        size: H and W; None uses the greatest height and width in the source, which reads the header of every mask.
        multiple: H and W are rounded up to multiples of it.

    Raises:
        MisuseError: If an argument is out of range.
        RunError: As in `segmentation_train_pipeline`, or if an image is larger than `size`.
    """
    check_form(dtype, batch_size=batch_size, multiple=multiple, ram_budget=ram_budget)
    if size is not None and (len(size) != 2 or min(size) < 1):
        raise MisuseError(f"Expected size as (height, width) from 1 on, received {size}.")
    rows = eval_rows(batch_size, worker, workers)
    height, width = (-(-edge // multiple) * multiple for edge in size or source.largest())
    table = cpu_constant(source.class_table())

    def make(record: dict) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        image, mask, problem = decode_pair(record, table, (height, width))
        image, mask = image[:height, :width], mask[:height, :width]
        below, right = height - tf.shape(mask)[0], width - tf.shape(mask)[1]
        image = tf.ensure_shape(tf.pad(image, [[0, below], [0, right], [0, 0]]), [height, width, 3])
        mask = tf.pad(mask, [[0, below], [0, right]], constant_values=_OUTSIDE)
        return image, tf.ensure_shape(mask, [height, width]), problem

    def finish(parts: tuple, weights: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        return *_finished(*parts, *color.draw_maps(1, 0.0, 0.0, None), dtype), weights

    options = {"blank": _BLANK, "check": check_masks, "corrupt": corrupt, "ram_budget": ram_budget}
    return evaluation_batches(source, rows, make, finish, **options)


def _random_crop(image, mask, uniform, size, scale, base_size, flip):
    """Scales, crops to (size, size) and perhaps flips; `uniform` (4,) sets the scale, y offset, x offset and flip."""
    full = tf.cast(tf.shape(mask), tf.float32)
    factor = scale[0] + uniform[0] * (scale[1] - scale[0])
    factor *= base_size / tf.reduce_min(full) if base_size else 1.0
    scaled = tf.maximum(tf.round(full * factor), 1.0)
    # The crop lies anywhere in the image; if the image is smaller, the image lies anywhere in the crop.
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
    """Applies colour and normalisation to a batch, with 0 outside the images and 255 there in the masks."""
    images = tf.where(masks[..., None] == _OUTSIDE, 0.0, color.apply_map(images, matrix, shift))
    return tf.cast(images, dtype), tf.minimum(masks, IGNORE)
