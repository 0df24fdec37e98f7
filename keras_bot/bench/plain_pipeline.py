"""The paper's input pipeline as a good tutorial would write it, step by step with `tf.image`.

It is the reference for the speed and accuracy of `keras_bot.data`, with which it shares no code.

`tf.image` differs from the paper in two ways. `sample_distorted_bounding_box` samples the window's height uniformly
where the paper samples its area. Its windows are therefore smaller (on average 0.37 of a 500x375 photo, 0.43 in the
paper) and faster to decode. Hue and saturation change in HSV; MXNet, which the authors used, rotates and blends RGB.
"""

import dataclasses
from collections.abc import Callable, Sequence

import tensorflow as tf

MEAN = (123.68, 116.779, 103.939)
STD = (58.393, 57.12, 57.375)
EIGENVALUES = (55.46, 4.794, 1.148)
EIGENVECTORS = ((-0.5675, 0.7192, 0.4009), (-0.5808, -0.0045, -0.8140), (-0.5836, -0.6948, 0.4203))


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlainConfig:
    """Options of the plain pipeline.

    Attributes:
        batch_size: B, at most the number of images; an incomplete last batch is dropped.
        image_size: S, height and width of the output images.
        epochs: number of passes over the images.
        flip, color_jitter, pca_noise, min_area: as in `data.TrainConfig`.
        seed: seeds the order and all sampling, together with `tf.random.set_seed`.
    """

    batch_size: int
    image_size: int
    epochs: int
    flip: bool = True
    color_jitter: float = 0.4
    pca_noise: float = 0.1
    min_area: float = 0.08
    seed: int = 0


def plain_pipeline(
    images: Sequence[bytes],
    labels: Sequence[int],
    num_classes: int,
    config: PlainConfig,
    batch_transform: Callable | None = None,
) -> tf.data.Dataset:
    """Builds training batches: (normalised images float32 (B, S, S, 3), one-hot labels float32 (B, K)).

    Args:
        images: N encoded JPEGs.
        labels: their classes, 0..num_classes - 1.
        num_classes: K.
        config: the options.
        batch_transform: (images, labels, seed int32 (2,), epoch int64) -> (images, labels), as in
            `data.train_pipeline`.
    """
    steps = len(images) // config.batch_size

    def prepare(record: tuple, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        encoded, label = record
        return augment(encoded, config, seed), tf.one_hot(label, num_classes)

    records = tf.data.Dataset.from_tensor_slices((list(images), list(labels)))
    records = records.shuffle(len(images), seed=config.seed).take(steps * config.batch_size).repeat(config.epochs)
    records = tf.data.Dataset.zip(records, _seeds(2 * config.seed))
    examples = records.map(prepare, num_parallel_calls=tf.data.AUTOTUNE)
    batches = examples.batch(config.batch_size, drop_remainder=True)
    if batch_transform is not None:

        def transform(step: tf.Tensor, batch: tuple, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            return batch_transform(*batch, tf.cast(seed, tf.int32), step // steps)

        batches = tf.data.Dataset.zip(tf.data.Dataset.counter(), batches, _seeds(2 * config.seed + 1))
        batches = batches.map(transform, num_parallel_calls=tf.data.AUTOTUNE)
    return batches.prefetch(tf.data.AUTOTUNE)


def augment(encoded: tf.Tensor, config: PlainConfig, seed: tf.Tensor) -> tf.Tensor:
    """Decodes, augments and normalises a JPEG: float32 (S, S, 3)."""
    crop, mirror, jitter, noise = tf.unstack(tf.random.split(seed, 4))
    image = random_resized_crop(encoded, config.image_size, config.min_area, crop)
    if config.flip:
        image = tf.image.stateless_random_flip_left_right(image, mirror)
    image = image / 255.0
    if config.color_jitter:
        image = jitter_color(image, config.color_jitter, jitter)
    if config.pca_noise:
        image = add_pca_noise(image, config.pca_noise, noise)
    return normalise(image)


def random_window(shape: tf.Tensor, min_area: float, seed: tf.Tensor) -> tf.Tensor:
    """Samples (top, left, height, width) of area min_area..1 and aspect 3/4..4/3 in an image of `shape` (3,)."""
    begin, size, _ = tf.image.stateless_sample_distorted_bounding_box(
        shape,
        bounding_boxes=tf.zeros([1, 0, 4]),
        seed=seed,
        min_object_covered=0.0,
        aspect_ratio_range=(3 / 4, 4 / 3),
        area_range=(min_area, 1.0),
        max_attempts=10,
        use_image_if_no_bounding_boxes=True,
    )
    return tf.concat([begin[:2], size[:2]], axis=0)


def random_resized_crop(encoded: tf.Tensor, image_size: int, min_area: float, seed: tf.Tensor) -> tf.Tensor:
    """Decodes a random window of a JPEG and resizes it: float32 (S, S, 3) in 0..255."""
    window = random_window(tf.image.extract_jpeg_shape(encoded), min_area, seed)
    image = tf.image.decode_and_crop_jpeg(encoded, window, channels=3)
    return tf.image.resize(image, [image_size, image_size])


def jitter_color(image: tf.Tensor, jitter: float, seed: tf.Tensor) -> tf.Tensor:
    """Jitters hue, saturation and brightness of an image in 0..1, each by a coefficient ~ U(1 - jitter, 1 + jitter).

    As in MXNet, a coefficient c rotates the hue by (c - 1) * 180 degrees: by up to jitter / 2 of the circle.
    """
    hue, saturation, brightness = tf.unstack(tf.random.split(seed, 3))
    image = tf.image.stateless_random_hue(image, jitter / 2.0, hue)
    image = tf.image.stateless_random_saturation(image, 1.0 - jitter, 1.0 + jitter, saturation)
    return image * tf.random.stateless_uniform([], brightness, 1.0 - jitter, 1.0 + jitter)


def add_pca_noise(image: tf.Tensor, noise: float, seed: tf.Tensor) -> tf.Tensor:
    """Adds ImageNet's RGB eigenvectors, each times its eigenvalue and a sample ~ N(0, noise), to an image in 0..1."""
    draws = tf.random.stateless_normal([3], seed, stddev=noise)
    return image + tf.linalg.matvec(EIGENVECTORS, draws * EIGENVALUES) / 255.0


def normalise(image: tf.Tensor) -> tf.Tensor:
    """Normalises an image in 0..1 by the mean and standard deviation of ImageNet's pixels."""
    return (image - tf.constant(MEAN) / 255.0) / (tf.constant(STD) / 255.0)


def _seeds(seed: int) -> tf.data.Dataset:
    """Returns an endless dataset of stateless seeds, int64 (2,)."""
    return tf.data.Dataset.random(seed=seed).batch(2)
