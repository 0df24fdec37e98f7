"""Training input pipeline. The order of the steps:

    shuffle (encoded bytes) -> batch of (read, decode, crop, flip) in uint8 -> one-hot -> replace corrupt images
    -> colour and normalise in one map -> batch_transform (smoothing, mixup) -> prefetch

Order and random draws come from `data.stream`, so a run can start at any step.
"""

import dataclasses
from collections.abc import Callable

import tensorflow as tf

from keras_bot.data.augment import color
from keras_bot.data.augment import geometry as image
from keras_bot.data.batches import RAM_BUDGET, check_form, one_hot, seed_at
from keras_bot.data.corrupt import CorruptLog
from keras_bot.data.sharding import training_rows
from keras_bot.data.sources.base import Source
from keras_bot.data.stream import BATCH, TrainingStream
from keras_bot.errors import MisuseError, unknown

BatchTransform = Callable[[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor]]


def train_pipeline(
    source: Source,
    *,
    batch_size: int,
    image_size: int,
    epochs: int,
    transform: str = "imagenet",
    flip: bool = True,
    color_jitter: float = 0.4,
    pca_noise: float = 0.1,
    min_area: float = 0.08,
    crop_padding: int = 4,
    seed: int = 0,
    first_epoch: int = 0,
    first_step: int = 0,
    corrupt: CorruptLog | None = None,
    batch_transform: BatchTransform | None = None,
    shuffle_buffer: int = 8192,
    cache: bool = False,
    dtype: str = "float32",
    augment_on: str = "host",
    ram_budget: int = RAM_BUDGET,
    worker: int = 0,
    workers: int = 1,
    draws_of: int = 0,
) -> tf.data.Dataset:
    """Builds training batches: (images (B, S, S, 3) normalised, labels float32 (B, K)).

    Args:
        source: the source of the records.
        batch_size: B; an epoch has `source.size // B` steps and drops the remainder, other images each time.
        image_size: S.
        epochs: the stream ends after epoch `epochs - 1`.
        transform: "imagenet", "cifar" or "plain"; see `image.train_image`. "plain" has no
            augmentation and ignores `flip`, `color_jitter` and `pca_noise`.
        flip, min_area, crop_padding: see `image.train_image`.
        color_jitter, pca_noise: see the `color` module; 0 is off.
        seed: any integer.
        first_epoch, first_step: where to start, counted from 0; the step is relative to that epoch.
        corrupt: records the names of images that cannot be decoded and raises if there are too many; None
            allows none. Such an image is replaced by another one of the same batch, with its label. If no image
            of a batch can be decoded, its images are black and its labels zero.
        batch_transform: (images, one-hot labels, seed int32 (2,), epoch int64) -> (images, labels), after
            normalisation.
        shuffle_buffer: number of encoded records held in memory to shuffle a TFDS or TFRecord set; other sources
            are shuffled globally.
        cache: whether to keep all records in memory, still encoded, so that the source is read only once.
        dtype: dtype of the images: float32, float16 or bfloat16.
        augment_on: "device" leaves colour, normalisation and `batch_transform` to the training step; the elements
            are then the arguments of `finish_batch`.
        ram_budget: upper limit in MiB for the buffers that tf.data autotunes.
        worker, workers: index of this worker and number of workers. The pipeline returns only this worker's
            B // workers rows of each batch. Together the workers' batches equal those of one process bit for bit,
            including the random draws and the mixup partners (see `worker_rows`). Only the worker's own images are
            decoded; a corrupt image is replaced by another one of the worker's rows.
        draws_of: index of the share, if the source is one worker's share of a data set. Each share has its own order
            and augmentations. The seeds passed to `batch_transform` are the same for all.

    Raises:
        MisuseError: an argument is out of range, the batch is larger than the source, or there are several workers
            and B is not divisible by 2 * workers.
    """
    at_least_one = {"batch_size": batch_size, "image_size": image_size, "shuffle_buffer": shuffle_buffer}
    check_form(dtype, transform, **at_least_one, ram_budget=ram_budget)
    if augment_on not in ("host", "device"):
        raise unknown("place to augment on", augment_on, ("host", "device"))
    if not 0 < min_area <= 1 or crop_padding < 0:
        raise MisuseError(
            f"Expected 0 < min_area <= 1 and crop_padding >= 0, received {min_area} and {crop_padding}. Mend them."
        )
    if transform == "plain":
        flip, color_jitter, pca_noise = False, 0.0, 0.0
    rows = training_rows(batch_size, worker, workers)
    stream = TrainingStream(
        source, rows, epochs, seed, first_epoch, first_step, color_jitter, pca_noise, share=draws_of
    )
    if cache:
        source = source.cached()
        stream = dataclasses.replace(stream, source=source)

    def make(record: dict, at: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        options = {"flip": flip, "min_area": min_area, "crop_padding": crop_padding}
        return image.train_image(record["image"], image_size, transform, at, **options), record["label"]

    def finish(parts: tuple, maps: tuple, number: tf.Tensor) -> tuple:
        images, targets = parts
        at = tf.tile(tf.cast(seed_at(seed, BATCH, number), tf.int32)[None], [len(rows), 1])
        inputs = images, *maps, at, tf.fill([len(rows)], number // stream.steps)
        if augment_on == "device":
            return inputs, targets
        return finish_batch(inputs, targets, batch_transform, dtype, apply_map=color.fused_map)

    options = {"blank": (0, 0), "check": one_hot, "guarded": source.batches, "shuffle_buffer": shuffle_buffer}
    return stream.batches(make, finish, **options, corrupt=corrupt, ram_budget=ram_budget)


def finish_batch(
    inputs: tuple,
    labels: tf.Tensor,
    batch_transform: BatchTransform | None = None,
    dtype: str = "float32",
    apply_map: Callable = color.apply_map,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Applies colour, normalisation and `batch_transform` in the training step, for `augment_on="device"`.

    Args:
        inputs: images uint8 (B, S, S, 3); the colour map's matrix (B, 3, 3) and shift (B, 3); seed int32 (B, 2)
            and epoch int64 (B,) of the batch, repeated in every row so that the batch can be split over replicas.
        labels: float32 (B, K).
        batch_transform, dtype: as in `train_pipeline`.
        apply_map: function that applies the colour map.

    Returns:
        The elements of `train_pipeline` with `augment_on="host"`. Each replica's batch is transformed separately.
    """
    images, matrix, shift, seed, epoch = inputs
    images = apply_map(images, matrix, shift, dtype)
    if batch_transform is None:
        return images, labels
    return batch_transform(images, labels, seed[0], epoch[0])
