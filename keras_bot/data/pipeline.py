"""From records to batches. The order of a pass, for training:

    shuffle -> batch of (read, decode, crop, flip) -> one-hot -> fill broken images' places
    -> colour, normalise -> batch_transform (smoothing, mixup) -> prefetch

One stream covers all epochs; no batch straddles two. Order and draws are a function of (seed, epoch,
position) alone: each use has its own stream number, and within it the place counted over all epochs is the
second half of a stateless seed. So a run resumed at epoch k sees exactly what an unbroken run sees from
there, on any number of cores.
"""

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from keras_bot.data import color, image
from keras_bot.data.corrupt import CorruptLog, fill_missing
from keras_bot.data.source import Source
from keras_bot.errors import MisuseError, unknown

_ORDER, _GEOMETRY, _JITTER, _PCA, _BATCH = range(5)

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
    corrupt: CorruptLog | None = None,
    batch_transform: BatchTransform | None = None,
    shuffle_buffer: int = 16384,
    cache: bool = False,
) -> tf.data.Dataset:
    """Batches for training: (images float32 (B, S, S, 3) normalised, labels float32 (B, K)).

    Args:
        source: where the records come from.
        batch_size: B; an epoch has `source.size // B` steps and leaves out other images each time.
        image_size: S.
        epochs: the stream ends after epoch `epochs - 1`.
        transform: "imagenet", "cifar" or "plain"; see `image.train_image`. "plain" has no augmentation of any
            kind: `flip`, `color_jitter` and `pca_noise` don't count then.
        flip, min_area, crop_padding: see `image.train_image`.
        color_jitter, pca_noise: see the `color` module; 0 is off.
        seed: any integer.
        first_epoch: where to start, counted from 0.
        corrupt: keeps the names of images that can't be decoded and raises when there are too many; None
            allows none. In such an image's place stands another one of the same batch with its label. Should
            a batch hold no whole image at all, it is black and of no class.
        batch_transform: (images, one-hot labels, seed int32 (2,), epoch int64) -> (images, labels), after
            normalisation.
        shuffle_buffer: records a TFDS set is shuffled within, beside the order of its files; other sources
            are shuffled whole.
        cache: hold all records in memory, still encoded, and so read a source once only.

    Raises:
        MisuseError: an argument is out of its range, or the batch is larger than the source.
    """
    _check(transform, batch_size=batch_size, image_size=image_size, shuffle_buffer=shuffle_buffer)
    _check_training(source, batch_size, first_epoch, epochs)
    _check_augmentation(min_area, color_jitter, pca_noise, crop_padding)
    source = source.cached() if cache else source
    steps = source.size // batch_size
    log = corrupt or CorruptLog(0)
    if transform == "plain":
        flip, color_jitter, pca_noise = False, 0.0, 0.0

    def make(position: tf.Tensor, key: tuple) -> tuple[tf.Tensor, tf.Tensor]:
        record = source.read(*key)
        options = {"flip": flip, "min_area": min_area, "crop_padding": crop_padding}
        at = _seed(seed, _GEOMETRY, position)
        return image.train_image(record["image"], image_size, transform, at, **options), record["label"]

    def finish(keys: tuple, places: tf.Tensor, made: tuple) -> tuple[tf.Tensor, tf.Tensor]:
        images, labels = made
        batch = keys[0][0] // batch_size
        targets = _one_hot(labels, source)
        if not source.in_memory:
            with tf.control_dependencies([log.report_missing(source.record_name, keys, places)]):
                images, targets = fill_missing(images, targets, places, batch_size)
        seeds = tf.stack([_seed(seed, _JITTER, batch), _seed(seed, _PCA, batch)])
        images = color.augment_and_normalise(images, color_jitter, pca_noise, seeds)
        if batch_transform is not None:
            at = tf.cast(_seed(seed, _BATCH, batch), tf.int32)
            images, targets = batch_transform(images, targets, at, batch // steps)
        return images, targets

    keys = tf.data.Dataset.range(first_epoch, epochs).flat_map(
        lambda epoch: source.keys(_seed(seed, _ORDER, epoch), shuffle_buffer).take(steps * batch_size)
    )
    keys = keys.enumerate(first_epoch * steps * batch_size)
    batches = source.batches(keys, make, batch_size, drop_remainder=True)
    batches = batches.map(finish, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    batches = batches.apply(tf.data.experimental.assert_cardinality((epochs - first_epoch) * steps))
    return batches.prefetch(tf.data.AUTOTUNE)


def eval_pipeline(
    source: Source,
    *,
    batch_size: int,
    image_size: int,
    transform: str = "imagenet",
    eval_crop: float = 0.875,
    corrupt: CorruptLog | None = None,
    cache: bool = False,
) -> tf.data.Dataset:
    """Batches for evaluation: each image once, unaugmented; the last may be smaller. Else as `train_pipeline`.

    Args:
        source, batch_size, image_size, cache: as in `train_pipeline`.
        transform, eval_crop: see `image.eval_image`.
        corrupt: as in `train_pipeline`, but an image that can't be decoded is left out. The number of batches is
            therefore unknown: give Keras' `evaluate` steps=ceil(size / batch_size), or it warns at the end.

    Raises:
        MisuseError: an argument is out of its range.
    """
    _check(transform, batch_size=batch_size, image_size=image_size)
    _check_eval_crop(eval_crop)
    source = source.cached() if cache else source
    log = corrupt or CorruptLog(0)

    def make(position: tf.Tensor, key: tuple) -> tuple[tf.Tensor, tf.Tensor]:
        record = source.read(*key)
        picture = image.decode(record["image"])
        return image.eval_image(picture, image_size, transform, eval_crop), record["label"]

    def finish(keys: tuple, places: tf.Tensor, made: tuple) -> tuple[tf.Tensor, tf.Tensor]:
        images, labels = made
        if not source.in_memory:
            with tf.control_dependencies([log.report_missing(source.record_name, keys, places)]):
                images = tf.identity(images)
        return color.normalise(images), _one_hot(labels, source)

    batches = source.batches(source.keys(None, 1).enumerate(), make, batch_size)
    batches = batches.map(finish, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    if not source.in_memory:
        batches = batches.filter(lambda images, targets: tf.shape(images)[0] > 0)
    return batches.prefetch(tf.data.AUTOTUNE)


def preprocess_eval(images: tf.Tensor, image_size: int, transform: str, eval_crop: float = 0.875) -> tf.Tensor:
    """What `eval_pipeline` does to decoded images, as a graph to export with a model.

    Args:
        images: uint8 or float (B, H, W, 3), 0..255, of any size.
        image_size: S.
        transform, eval_crop: see `image.eval_image`.

    Returns:
        float32 (B, S, S, 3), normalised.
    """
    _check(transform, image_size=image_size)
    _check_eval_crop(eval_crop)
    return color.normalise(image.eval_image(images, image_size, transform, eval_crop))


def stateless_beta(alpha: float, seed: tf.Tensor) -> tf.Tensor:
    """A float32 scalar ~ Beta(alpha, alpha), the same for the same seed, integer (2,).

    G1 / (G1 + G2) of two Gamma(alpha, 1) draws, but in logarithms, as log G(alpha) = log G(alpha + 1) +
    log(U) / alpha: for small alpha the draws themselves are so often 0 in float32 that the quotient would be
    wrong or 0 / 0.
    """
    first, second = tf.unstack(tf.random.experimental.stateless_split(seed, 2))
    gamma = tf.random.stateless_gamma([2], first, alpha + 1.0)
    uniform = tf.random.stateless_uniform([2], second, np.finfo(np.float32).tiny, 1.0)
    log_gamma = tf.math.log(gamma) + tf.math.log(uniform) / alpha
    return tf.sigmoid(log_gamma[0] - log_gamma[1])


def _one_hot(labels: tf.Tensor, source: Source) -> tf.Tensor:
    """float32 (B, K). Labels outside 0..K-1, such as the -1 of a split without labels, raise in the graph."""
    right = tf.reduce_all((labels >= 0) & (labels < source.num_classes))
    message = f"Expected labels 0..{source.num_classes - 1} in {source.name}, received"
    with tf.control_dependencies([tf.debugging.Assert(right, [message, labels])]):
        return tf.one_hot(labels, source.num_classes)


def _seed(seed: int, stream: int, place: tf.Tensor) -> tf.Tensor:
    """The stateless seed, int64 (2,), of one place in one stream of draws; both halves fit int32."""
    word = np.random.SeedSequence((seed % 2**64, stream)).generate_state(1)[0] >> 1
    return tf.stack([tf.constant(word, tf.int64), tf.cast(place, tf.int64)])


def _check(transform: str, **at_least_one: int) -> None:
    if transform not in image.TRANSFORMS:
        raise unknown("transform", transform, image.TRANSFORMS)
    for name, value in at_least_one.items():
        if value < 1:
            raise MisuseError(f"Expected {name} >= 1, received {value}.")


def _check_eval_crop(eval_crop: float) -> None:
    if not 0 < eval_crop <= 1:
        raise MisuseError(f"Expected 0 < eval_crop <= 1, received {eval_crop}.")


def _check_training(source: Source, batch_size: int, first_epoch: int, epochs: int) -> None:
    if batch_size > source.size:
        raise MisuseError(
            f"Expected a batch no larger than the data set: {source.name} has {source.size} images, received "
            f"batch_size {batch_size}. Use a smaller batch."
        )
    if not 0 <= first_epoch <= epochs:
        raise MisuseError(f"Expected 0 <= first_epoch <= epochs, received {first_epoch} and {epochs}.")


def _check_augmentation(min_area: float, color_jitter: float, pca_noise: float, crop_padding: int) -> None:
    if not 0 < min_area <= 1 or not 0 <= color_jitter <= 1 or pca_noise < 0 or crop_padding < 0:
        raise MisuseError(
            "Expected 0 < min_area <= 1, 0 <= color_jitter <= 1, pca_noise >= 0 and crop_padding >= 0, "
            f"received {min_area}, {color_jitter}, {pca_noise} and {crop_padding}."
        )
