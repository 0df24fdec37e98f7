"""Anchor generation: boxes of fixed sizes and aspect ratios at every location of a feature map.

Boxes are y0, x0, y1, x1 in image pixels. Location (i, j) of a level with stride s has its centre at
((i + 0.5) s, (j + 0.5) s). Anchors are not clipped to the image. They are ordered like a convolution's output reshaped
to (height * width * shapes, …): by level, row, column, size and ratio.

Sources: Ren et al. 2015 (Faster R-CNN), section 3.1.1; Lin et al. 2017 (RetinaNet), section 4.
"""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from keras_bot.errors import MisuseError

RATIOS = (0.5, 1.0, 2.0)


def octave_sizes(strides: Sequence[int], scale: float, octaves: int = 1) -> tuple[tuple[float, ...], ...]:
    """Returns the anchor sizes scale * s * 2 ** (i / octaves), i < octaves, for each stride s.

    RetinaNet uses scale 4 and 3 sizes per level (32, 40.3, 50.8 at stride 8). An RPN on a feature pyramid uses scale 8
    and one size per level.

    Raises:
        MisuseError: `scale` is not positive or `octaves` is less than 1.
    """
    if scale <= 0 or octaves < 1:
        raise MisuseError(f"The anchor scale must be positive and octaves at least 1, received {scale} and {octaves}.")
    return tuple(tuple(scale * stride * 2 ** (i / octaves) for i in range(octaves)) for stride in strides)


def anchor_shapes(sizes: Sequence[float], ratios: Sequence[float] = RATIOS) -> np.ndarray:
    """Returns boxes centred at the origin, float32 (len(sizes) * len(ratios), 4), with sizes in the outer loop.

    Args:
        sizes: square roots of the areas, in pixels.
        ratios: height / width.

    Raises:
        MisuseError: `sizes` or `ratios` is empty or has a value that is not positive.
    """
    if not sizes or not ratios or min(*sizes, *ratios) <= 0:
        raise MisuseError(f"Anchor sizes and ratios must be positive, received {tuple(sizes)} and {tuple(ratios)}.")
    half = [(size * ratio**0.5 / 2, size / ratio**0.5 / 2) for size in sizes for ratio in ratios]
    return np.array([(-height, -width, height, width) for height, width in half], np.float32)


def level_shape(
    height: tf.Tensor | int, width: tf.Tensor | int, stride: int
) -> tuple[tf.Tensor | int, tf.Tensor | int]:
    """Returns the height and width of a feature map, rounded up as padded convolutions do."""
    return -(-height // stride), -(-width // stride)


def pyramid_anchors(
    height: tf.Tensor | int,
    width: tf.Tensor | int,
    strides: Sequence[int],
    sizes: Sequence[Sequence[float]],
    ratios: Sequence[float] = RATIOS,
) -> list[tf.Tensor]:
    """Returns the anchors of each level, float32 (h_l * w_l * len(sizes_l) * len(ratios), 4).

    Args:
        height, width: image size in pixels, as numbers or int32 scalars.
        strides: strides of the levels, powers of 2.
        sizes: anchor sizes of each level; see `anchor_shapes`.
        ratios: height / width, the same for all levels.
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
