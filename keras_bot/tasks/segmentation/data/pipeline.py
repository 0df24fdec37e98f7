"""Input pipelines for semantic segmentation. A training batch is made in this order:

    shuffled source -> read, decode, scale, crop, flip (uint8) -> replace corrupt pairs -> colour and normalise
    -> prefetch

Scaling and cropping are one resampling on one grid, bilinear for the image and nearest for the mask. Pixels outside the
image are 0 after normalisation, like a convolution's zero padding, and 255 in the mask. As in `data.stream`, order and
augmentation are a function of (seed, epoch, position), so that training can start at any step.

GluonCV trains its FCN with scales of 0.5 to 2, crops of 480, flips, blur on half of the images, and no colour jitter.
"""

import dataclasses

import tensorflow as tf

from keras_bot.data.augment import color
from keras_bot.data.augment.geometry import to_uint8
from keras_bot.data.config import StreamConfig, TrainingStreamConfig, accept_keywords, check_whole
from keras_bot.data.sharding import WorkerRows, training_rows
from keras_bot.data.sources.base import cpu_constant
from keras_bot.data.stream import EvaluationStream, TrainingStream
from keras_bot.errors import MisuseError
from keras_bot.tasks.segmentation.data.masks import check_masks, decode_pair
from keras_bot.tasks.segmentation.data.source import SegmentationSource
from keras_bot.tasks.segmentation.labels import IGNORE

_OUTSIDE = IGNORE + 1  # mask value of pixels outside the image
_BLANK = (0, _OUTSIDE)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SegmentationTrainConfig(TrainingStreamConfig):
    """Options of `segmentation_train_pipeline`. A pair counts as corrupt if one of its files can't be decoded.

    Attributes:
        crop_size: S.
        scale: range of the scale factor, sampled uniformly; height and width share the factor.
        base_size: shorter edge in pixels at scale 1; 0 keeps the image's own size.
    """

    crop_size: int
    scale: tuple[float, float] = (0.5, 2.0)
    base_size: int = 0
    color_jitter: float = 0.0
    pca_noise: float = 0.0
    shuffle_buffer: int = 1024

    def __post_init__(self):
        super().__post_init__()
        check_whole(crop_size=self.crop_size)
        if len(self.scale) != 2 or not 0 < self.scale[0] <= self.scale[1] < 100:
            raise MisuseError(f"scale must be (low, high) with 0 < low <= high < 100, received {self.scale}.")
        if not 0 <= self.base_size <= 2**15:
            raise MisuseError(f"base_size must be from 0 to {2**15}, received {self.base_size}. 0 is off.")

    def worker_rows(self) -> WorkerRows:
        """Returns the rows of each batch that this worker makes, as in `TrainConfig`."""
        return training_rows(self.batch_size, self.worker, self.workers)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SegmentationEvalConfig(StreamConfig):
    """Options of `segmentation_eval_pipeline`.

    Attributes:
        size: H and W; None uses the greatest height and width in the source, which reads the header of every mask.
        multiple: H and W are rounded up to multiples of it.
    """

    size: tuple[int, int] | None = None
    multiple: int = 1

    def __post_init__(self):
        super().__post_init__()
        check_whole(multiple=self.multiple)
        if self.size is not None and (len(self.size) != 2 or min(self.size) < 1):
            raise MisuseError(f"size must be (height, width), each at least 1, received {self.size}.")


@accept_keywords(SegmentationTrainConfig)
def segmentation_train_pipeline(source: SegmentationSource, config: SegmentationTrainConfig) -> tf.data.Dataset:
    """Builds training batches: (normalised images (B, S, S, 3), masks int32 (B, S, S) of 0..K-1 and 255).

    Raises:
        MisuseError: the batch is larger than the source, or `first_step` is not a step of an epoch.
        RunError: inside the pipeline (`data.sources.base.run_error` extracts it), if a mask has an unknown id or its
            size differs from its image's, or too many files can't be decoded. The message names the file.
    """
    stream = TrainingStream(source, config)
    table = cpu_constant(source.class_table())

    def decode_and_augment(record: dict, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        image, mask, problem = decode_pair(record, table)
        uniform = tf.random.stateless_uniform([4], seed)
        image, mask = _random_crop(image, mask, uniform, config.crop_size, config.scale, config.base_size, config.flip)
        return image, mask, problem

    examples = stream.examples(decode_and_augment)

    def finish(keys: tuple, places: tf.Tensor, parts: tuple) -> tuple[tf.Tensor, tf.Tensor]:
        parts = stream.report_corrupt(keys, places, parts)
        parts = check_masks(source, keys, places, parts)
        images, masks = stream.fill_missing(parts, places, _BLANK)
        return _normalise(images, masks, *stream.color_maps(stream.batch_number(keys)), config.dtype)

    return stream.batches(examples, finish)


@accept_keywords(SegmentationEvalConfig)
def segmentation_eval_pipeline(source: SegmentationSource, config: SegmentationEvalConfig) -> tf.data.Dataset:
    """Builds evaluation batches: (normalised images (B, H, W, 3), masks int32 (B, H, W), weights float32 (B,)).

    Images keep their size and are padded at the bottom and right with 0, masks with 255. Each image occurs once, in
    order. The last batch's padding and pairs that can't be decoded have weight 0 and masks of 255.

    Raises:
        RunError: as in `segmentation_train_pipeline`, or if an image is larger than `size`.
    """
    stream = EvaluationStream(source, config)
    height, width = (-(-edge // config.multiple) * config.multiple for edge in config.size or source.largest())
    table = cpu_constant(source.class_table())

    def decode_and_pad(record: dict) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        image, mask, problem = decode_pair(record, table, (height, width))
        image, mask = image[:height, :width], mask[:height, :width]
        below, right = height - tf.shape(mask)[0], width - tf.shape(mask)[1]
        image = tf.ensure_shape(tf.pad(image, [[0, below], [0, right], [0, 0]]), [height, width, 3])
        mask = tf.pad(mask, [[0, below], [0, right]], constant_values=_OUTSIDE)
        return image, tf.ensure_shape(mask, [height, width]), problem

    examples = stream.examples(decode_and_pad)

    def finish(keys: tuple, places: tf.Tensor, parts: tuple) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        parts = stream.report_corrupt(keys, places, parts)
        parts = check_masks(source, keys, places, parts)
        images, masks, weights = stream.fill_missing(parts, places, _BLANK)
        return *_normalise(images, masks, *color.draw_maps(1, 0.0, 0.0, None), config.dtype), weights

    return stream.batches(examples, finish)


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
def _normalise(images, masks, matrix, shift, dtype):
    """Applies colour and normalisation to a batch, with 0 outside the images and 255 there in the masks."""
    images = tf.where(masks[..., None] == _OUTSIDE, 0.0, color.apply_map(images, matrix, shift))
    return tf.cast(images, dtype), tf.minimum(masks, IGNORE)
