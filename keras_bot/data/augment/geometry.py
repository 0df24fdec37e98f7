"""Geometric image transforms: random resized crop, flip and evaluation crop, all deterministic given the seed.

A record's image is either encoded bytes (a string scalar in any format of `decode`) or a uint8 array (H, W, C).
All functions work eagerly, inside tf.data and, on arrays, in an exported graph. Training images are returned as
uint8, rounded; evaluation images as float32 in 0..255, unrounded.

Resizing is bilinear without antialiasing, as in OpenCV, which MXNet and GluonCV use. PIL and torchvision apply an
antialiasing filter when they downscale, which gives slightly softer images.
"""

import math

import tensorflow as tf

from keras_bot.data.decode import decode, decode_window, jpeg_shape

TRANSFORMS = ("imagenet", "cifar", "plain")

_ASPECT = (3 / 4, 4 / 3)
_TRIES = 10


def sample_crop(shape: tf.Tensor, uniform: tf.Tensor, min_area: float) -> tf.Tensor:
    """Samples the window of a random resized crop (paper 2.1): area U(min_area, 1), aspect ratio 3/4..4/3.

    The aspect ratio (width / height) is log-uniform, as in MXNet since 1.5 and in torchvision, so wide and tall
    windows are equally likely; the paper does not specify it. The first of ten draws that fits is used. If none
    fits, the window is the largest centred one with an aspect ratio in the range. It runs for every image and so
    uses few operations: each costs 1-2 microseconds.

    Args:
        shape: height and width of the image, int32 (2,).
        uniform: float32 (22,) in [0, 1): ten areas, ten aspect ratios, vertical and horizontal position.
        min_area: smallest fraction of the image's area, 0..1.

    Returns:
        int32 (4,): top, left, height, width.
    """
    full = tf.cast(shape, tf.float32)
    low, high = math.log(_ASPECT[0]) / 2, math.log(_ASPECT[1]) / 2
    edges = tf.sqrt((min_area + (1.0 - min_area) * uniform[:_TRIES]) * tf.reduce_prod(full))
    roots = tf.exp(low + (high - low) * uniform[_TRIES : 2 * _TRIES])  # square roots of the aspect ratios
    sizes = tf.maximum(tf.round(tf.stack([edges / roots, edges * roots], axis=1)), 1.0)
    fits = tf.reduce_all(sizes <= full, axis=1)
    first = tf.argmax(fits)

    def placed() -> tf.Tensor:
        spare = full - sizes[first]
        return tf.concat([tf.minimum(tf.floor(uniform[2 * _TRIES :] * (spare + 1.0)), spare), sizes[first]], 0)

    def centred() -> tf.Tensor:
        height, width = tf.unstack(full)
        largest = tf.stack([tf.minimum(height, width / _ASPECT[0]), tf.minimum(width, height * _ASPECT[1])])
        largest = tf.clip_by_value(tf.round(largest), 1.0, full)
        return tf.concat([tf.floor((full - largest) / 2.0), largest], 0)

    return tf.cast(tf.cond(fits[first], placed, centred), tf.int32)


def random_resized_crop(image: tf.Tensor, size: int, uniform: tf.Tensor, min_area: float) -> tf.Tensor:
    """Crops to `sample_crop` and resizes: uint8 (size, size, 3). Only the window of a JPEG is decoded."""

    def from_whole() -> tf.Tensor:
        whole = decode(image)
        top, left, height, width = tf.unstack(sample_crop(tf.shape(whole)[:2], uniform, min_area))
        return whole[top : top + height, left : left + width]

    def from_jpeg() -> tf.Tensor:
        shape = jpeg_shape(image)
        return decode_window(image, shape, sample_crop(shape, uniform, min_area), size)

    encoded = image.dtype == tf.string
    window = tf.cond(tf.io.is_jpeg(image), from_jpeg, from_whole) if encoded else from_whole()
    return to_uint8(resize(tf.ensure_shape(window, [None, None, 3]), size, size))


def random_crop(image: tf.Tensor, size: int, uniform: tf.Tensor, padding: int) -> tf.Tensor:
    """Applies the CIFAR crop: pads with black pixels, then cuts out a random (size, size) window.

    Args:
        image: (size, size, 3).
        size: edge length of the window.
        uniform: float32 (2,) in [0, 1): vertical and horizontal position.
        padding: pixels added to each side, zeros before normalisation, as in the CIFAR recipes of GluonCV and
            He et al.
    """
    padded = tf.pad(image, [[padding, padding], [padding, padding], [0, 0]])
    place = tf.cast(tf.floor(uniform * (2.0 * padding + 1.0)), tf.int32)
    place = tf.minimum(place, 2 * padding)
    return tf.slice(padded, tf.concat([place, [0]], 0), [size, size, 3])


def train_image(
    image: tf.Tensor,
    size: int,
    transform: str,
    seed: tf.Tensor,
    *,
    flip: bool,
    min_area: float,
    crop_padding: int,
) -> tf.Tensor:
    """Returns one augmented training image; all randomness comes from `seed`.

    Args:
        image: encoded bytes, or uint8 (H, W, 1 or 3).
        size: edge length of the result.
        transform: "imagenet" (random resized crop, flip), "cifar" (resize if necessary, pad, random crop,
            flip) or "plain" (resize, nothing random).
        seed: stateless seed, integer (2,).
        flip: whether to flip horizontally with probability 1/2.
        min_area: for "imagenet"; see `sample_crop`.
        crop_padding: for "cifar"; see `random_crop`.

    Returns:
        uint8 (size, size, 3).
    """
    if transform == "plain":
        return to_uint8(resize(decode(image), size, size))
    uniform = tf.random.stateless_uniform([2 * _TRIES + 3], seed)
    if transform == "imagenet":
        image = random_resized_crop(image, size, uniform[1:], min_area)
    else:
        image = random_crop(to_uint8(resize(decode(image), size, size)), size, uniform[1:3], crop_padding)
    if not flip:
        return image
    return tf.cond(uniform[0] < 0.5, lambda: tf.reverse(image, [1]), lambda: image)


def eval_image(images: tf.Tensor, size: int, transform: str, eval_crop: float) -> tf.Tensor:
    """Applies the deterministic evaluation transform to one image (H, W, 3) or a batch (B, H, W, 3) of any size.

    "imagenet": resizes the shorter edge to round(size / eval_crop), keeping the aspect ratio, and takes the centre
    crop. "cifar", "plain": resizes only.

    Returns:
        float32 ([B,] size, size, 3) in 0..255.
    """
    if transform != "imagenet":
        return resize(images, size, size)
    new = _scaled_shape(tf.shape(images)[-3:-1], eval_edge(size, eval_crop))
    images = resize(images, new[0], new[1])
    top, left = tf.unstack((new - size) // 2)
    images = images[..., top : top + size, left : left + size, :]
    return tf.ensure_shape(images, [*images.shape[:-3], size, size, 3])


def eval_one(image: tf.Tensor, size: int, transform: str, eval_crop: float) -> tf.Tensor:
    """Applies `eval_image` to one image (H, W, 3) with bounded memory, even for extreme aspect ratios.

    `eval_image` resizes a 20000x10 image to 512,000x256 pixels to crop 224x224 of them. Here only the crop is
    computed, by an operation that is slower for ordinary images.
    """

    def cut_out() -> tf.Tensor:
        old = tf.shape(image)[:2]
        new = _scaled_shape(old, eval_edge(size, eval_crop))
        return tf.raw_ops.ScaleAndTranslate(
            images=image[None],
            size=[size, size],
            scale=tf.cast(new, tf.float32) / tf.cast(old, tf.float32),
            translation=-tf.cast((new - size) // 2, tf.float32),
            kernel_type="triangle",
            antialias=False,
        )[0]

    if transform != "imagenet":
        return eval_image(image, size, transform, eval_crop)
    long = tf.reduce_max(tf.shape(image)[:2]) > 4 * tf.reduce_min(tf.shape(image)[:2])
    return tf.cond(long, cut_out, lambda: eval_image(image, size, transform, eval_crop))


def eval_edge(size: int, eval_crop: float) -> int:
    """Returns the shorter edge, in pixels, before the evaluation centre crop: 256 for 224 (paper 2.1)."""
    return round(size / eval_crop)


def _scaled_shape(shape: tf.Tensor, edge: int) -> tf.Tensor:
    """Returns height and width, int32 (2,), after resizing the shorter edge to `edge`."""
    shorter = tf.reduce_min(shape)
    return (shape * edge + shorter // 2) // shorter


def resize(images: tf.Tensor, height: int | tf.Tensor, width: int | tf.Tensor) -> tf.Tensor:
    """Resizes bilinearly to float32; images that statically have this size are only cast."""
    images = tf.cast(images, tf.float32)  # resizing uint8 is slower
    known = isinstance(height, int) and isinstance(width, int)
    if known and tuple(images.shape[-3:-1]) == (height, width):
        return images
    return tf.image.resize(images, [height, width], method="bilinear")


def to_uint8(images: tf.Tensor) -> tf.Tensor:
    """Rounds float images in 0..255 to uint8."""
    return tf.cast(images + 0.5, tf.uint8)
