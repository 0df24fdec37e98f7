"""The paper's training recipe as a good tutorial writes it: `tf.image`, one step after the other. It is what `data` is
measured against, in speed and in the accuracy that it trains to, and shares no code with it.

Two things are `tf.image`'s own way. `sample_distorted_bounding_box` draws the window's height uniformly where the paper
draws its area, so that windows are smaller (0.37 of a 500x375 photo in the mean, the paper's 0.43), quicker to decode.
Hue and saturation change in HSV, where MXNet, which the authors used, rotates and blends RGB.
"""

from collections.abc import Callable, Sequence

import tensorflow as tf

MEAN = (123.68, 116.779, 103.939)
STD = (58.393, 57.12, 57.375)
EIGENVALUES = (55.46, 4.794, 1.148)
EIGENVECTORS = ((-0.5675, 0.7192, 0.4009), (-0.5808, -0.0045, -0.8140), (-0.5836, -0.6948, 0.4203))


def plain_pipeline(
    images: Sequence[bytes],
    labels: Sequence[int],
    num_classes: int,
    *,
    batch_size: int,
    image_size: int,
    epochs: int,
    flip: bool = True,
    color_jitter: float = 0.4,
    pca_noise: float = 0.1,
    min_area: float = 0.08,
    seed: int = 0,
    batch_transform: Callable | None = None,
) -> tf.data.Dataset:
    """Batches for training: (images float32 (B, S, S, 3) normalised, labels float32 (B, K) one-hot).

    Args:
        images: whole JPEGs, N of them.
        labels: their classes, 0..num_classes - 1.
        num_classes: K.
        batch_size: B, at most N; an epoch has N // B steps.
        image_size: S.
        epochs: how often the images are gone through.
        flip, color_jitter, pca_noise, min_area: as in `data.train_pipeline`.
        seed: of the order and every draw, together with `tf.random.set_seed`'s.
        batch_transform: (images, labels, seed int32 (2,), epoch int64) -> (images, labels); as ours takes.
    """
    steps = len(images) // batch_size

    def prepare(record: tuple, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        encoded, label = record
        crop, mirror, jitter, noise = tf.unstack(tf.random.split(seed, 4))
        image = random_resized_crop(encoded, image_size, min_area, crop)
        if flip:
            image = tf.image.stateless_random_flip_left_right(image, mirror)
        image = image / 255.0
        if color_jitter:
            image = jitter_color(image, color_jitter, jitter)
        if pca_noise:
            image = add_pca_noise(image, pca_noise, noise)
        return normalise(image), tf.one_hot(label, num_classes)

    def transform(step: tf.Tensor, batch: tuple, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return batch_transform(*batch, tf.cast(seed, tf.int32), step // steps)

    records = tf.data.Dataset.from_tensor_slices((list(images), list(labels)))
    records = records.shuffle(len(images), seed=seed).take(steps * batch_size).repeat(epochs)
    records = tf.data.Dataset.zip(records, _seeds(2 * seed))
    batches = records.map(prepare, num_parallel_calls=tf.data.AUTOTUNE).batch(batch_size, drop_remainder=True)
    if batch_transform is not None:
        batches = tf.data.Dataset.zip(tf.data.Dataset.counter(), batches, _seeds(2 * seed + 1))
        batches = batches.map(transform, num_parallel_calls=tf.data.AUTOTUNE)
    return batches.prefetch(tf.data.AUTOTUNE)


def random_window(shape: tf.Tensor, min_area: float, seed: tf.Tensor) -> tf.Tensor:
    """A window of area min_area..1 and aspect 3/4..4/3 in an image of `shape` (3,): top, left, height, width."""
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
    """Hue, saturation and brightness of an image in 0..1, each by a coefficient ~ U(1 - jitter, 1 + jitter).

    The hue's coefficient c turns by (c - 1) * 180 degrees, as in MXNet: by up to jitter / 2 of the circle.
    """
    hue, saturation, brightness = tf.unstack(tf.random.split(seed, 3))
    image = tf.image.stateless_random_hue(image, jitter / 2.0, hue)
    image = tf.image.stateless_random_saturation(image, 1.0 - jitter, 1.0 + jitter, saturation)
    return image * tf.random.stateless_uniform([], brightness, 1.0 - jitter, 1.0 + jitter)


def add_pca_noise(image: tf.Tensor, noise: float, seed: tf.Tensor) -> tf.Tensor:
    """Adds the eigenvectors of ImageNet's colours, each by its eigenvalue and a draw ~ N(0, noise), to 0..1."""
    draws = tf.random.stateless_normal([3], seed, stddev=noise)
    return image + tf.linalg.matvec(EIGENVECTORS, draws * EIGENVALUES) / 255.0


def normalise(image: tf.Tensor) -> tf.Tensor:
    """From 0..1 to mean 0 and standard deviation 1 of ImageNet's pixels."""
    return (image - tf.constant(MEAN) / 255.0) / (tf.constant(STD) / 255.0)


def _seeds(seed: int) -> tf.data.Dataset:
    """A stateless seed, int64 (2,), after the other."""
    return tf.data.Dataset.random(seed=seed).batch(2)
