"""Anchors: the boxes of fixed sizes and shapes, one set around every place of a feature map, that a detector corrects.

Boxes are y0, x0, y1, x1 in pixels of the image. The place (i, j) of a level with stride s has its centre at
((i + 0.5) s, (j + 0.5) s). Anchors are not clipped to the image. Their order is that of a convolution's output reshaped
to (height * width * shapes, …): level by level, row by row, then sizes, then ratios.

Sources: Ren et al. 2015 (Faster R-CNN), section 3.1.1; Lin et al. 2017 (RetinaNet), section 4.
"""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from keras_bot.errors import MisuseError

RATIOS = (0.5, 1.0, 2.0)


def octave_sizes(strides: Sequence[int], scale: float, octaves: int = 1) -> tuple[tuple[float, ...], ...]:
    """For each stride s the sizes scale * s * 2 ** (i / octaves), i < octaves.

    RetinaNet has scale 4 and 3 sizes a level (32, 40.3, 50.8 at stride 8), an RPN over a pyramid scale 8 and one.

    Raises:
        MisuseError: the scale isn't positive or there is no size.
    """
    if scale <= 0 or octaves < 1:
        raise MisuseError(f"Expected an anchor scale > 0 and octaves >= 1, received {scale} and {octaves}.")
    return tuple(tuple(scale * stride * 2 ** (i / octaves) for i in range(octaves)) for stride in strides)


def anchor_shapes(sizes: Sequence[float], ratios: Sequence[float] = RATIOS) -> np.ndarray:
    """Boxes around the origin, float32 (len(sizes) * len(ratios), 4), sizes in the outer loop.

    Args:
        sizes: square roots of the areas, in pixels.
        ratios: height / width.

    Raises:
        MisuseError: no sizes, no ratios, or one that isn't positive.
    """
    if not sizes or not ratios or min(*sizes, *ratios) <= 0:
        raise MisuseError(f"Expected anchor sizes and ratios above 0, received {tuple(sizes)} and {tuple(ratios)}.")
    half = [(size * ratio**0.5 / 2, size / ratio**0.5 / 2) for size in sizes for ratio in ratios]
    return np.array([(-height, -width, height, width) for height, width in half], np.float32)


def level_shape(
    height: tf.Tensor | int, width: tf.Tensor | int, stride: int
) -> tuple[tf.Tensor | int, tf.Tensor | int]:
    """Height and width of the feature map of an image at a stride: rounded up, as padded convolutions give it."""
    return -(-height // stride), -(-width // stride)


def pyramid_anchors(
    height: tf.Tensor | int,
    width: tf.Tensor | int,
    strides: Sequence[int],
    sizes: Sequence[Sequence[float]],
    ratios: Sequence[float] = RATIOS,
) -> list[tf.Tensor]:
    """The anchors of every level: float32 (h_l * w_l * len(sizes_l) * len(ratios), 4) each.

    Args:
        height, width: of the image, numbers or int32 scalars.
        strides: of the levels, powers of 2.
        sizes: for each level, see `anchor_shapes`.
        ratios: height / width, for all levels.
    """
    levels = []
    for stride, level_sizes in zip(strides, sizes, strict=True):
        rows, columns = level_shape(height, width, stride)
        y = (tf.cast(tf.range(rows), tf.float32) + 0.5) * stride
        x = (tf.cast(tf.range(columns), tf.float32) + 0.5) * stride
        y, x = tf.meshgrid(y, x, indexing="ij")
        centres = tf.stack([y, x, y, x], axis=-1)[:, :, None]
        levels.append(tf.reshape(centres + anchor_shapes(level_sizes, ratios), [-1, 4]))
    return levels
