"""Anchors against keras-cv's, and their order against a convolution's."""

import numpy as np
import pytest

from keras_bot.errors import MisuseError
from keras_bot.tasks.detection import anchors


def test_place_size_and_ratio():
    (level,) = anchors.pyramid_anchors(20, 33, [16], [(10.0, 20.0)], (0.5, 1.0))
    level = level.numpy().reshape(2, 3, 4, 4)
    centre = (level[..., :2] + level[..., 2:]) / 2
    np.testing.assert_allclose(centre[1, 2], [[24, 40]] * 4)
    size = level[..., 2:] - level[..., :2]
    np.testing.assert_allclose(size.prod(-1)[0, 0], [100, 100, 400, 400], rtol=1e-5)
    np.testing.assert_allclose((size[..., 0] / size[..., 1])[0, 0], [0.5, 1, 0.5, 1], rtol=1e-5)


def test_equal_to_keras_cv():
    keras_cv = pytest.importorskip("keras_cv")
    strides = (8, 16, 32)
    theirs = keras_cv.layers.AnchorGenerator(
        bounding_box_format="yxyx",
        sizes=[4.0 * stride for stride in strides],
        aspect_ratios=[0.5, 1.0, 2.0],
        scales=[2 ** (i / 3) for i in range(3)],
        strides=list(strides),
        clip_boxes=False,
    )(image_shape=(64, 96, 3))
    ours = anchors.pyramid_anchors(64, 96, strides, anchors.octave_sizes(strides, 4.0, 3))
    for their_level, level in zip(theirs.values(), ours, strict=True):
        their_level, level = np.asarray(their_level), level.numpy()
        assert their_level.shape == level.shape
        for cell in range(0, len(level), 9):  # the order within a cell is theirs
            mine, other = (sorted(np.round(x[cell : cell + 9], 2).tolist()) for x in (level, their_level))
            np.testing.assert_allclose(mine, other, atol=0.02)


@pytest.mark.parametrize("sizes, ratios", [((), (1.0,)), ((8.0,), ()), ((0.0,), (1.0,)), ((8.0,), (-1.0,))])
def test_impossible_shapes(sizes, ratios):
    with pytest.raises(MisuseError, match="must be positive"):
        anchors.anchor_shapes(sizes, ratios)


def test_impossible_scale():
    with pytest.raises(MisuseError, match="scale"):
        anchors.octave_sizes((8,), 0.0)
