"""Regions: RoIAlign against plain loops, proposals and samples."""

import numpy as np
import pytest
import tensorflow as tf

from keras_bot.tasks.detection import box_coding as coding
from keras_bot.tasks.detection import roi


def plain_align(features, region, stride, size, samples=2):
    """RoIAlign of one region from (h, w, C), by its definition."""
    limit = np.array(features.shape[:2]) - 1
    corner, extent = region[:2] / stride - 0.5, (region[2:] - region[:2]) / stride
    out = np.zeros((size, size, features.shape[-1]))
    for place in np.ndindex(size, size, samples, samples):
        cell, part = np.array(place[:2]), np.array(place[2:])
        y, x = np.clip(corner + (cell + (part + 0.5) / samples) * extent / size, 0, limit)
        top, left = min(int(y), limit[0] - 1), min(int(x), limit[1] - 1)
        for i, j in np.ndindex(2, 2):
            share = abs(1 - i - (y - top)) * abs(1 - j - (x - left))
            out[place[:2]] += share * features[top + i, left + j] / samples**2
    return out


def test_align_reads_each_region_from_its_level():
    draw = np.random.default_rng(0)
    maps = {level: draw.normal(size=(2, 512 >> level, 448 >> level, 3)).astype("f") for level in range(2, 6)}
    corner = draw.uniform(0, 300, (2, 8, 2))
    regions = np.concatenate([corner, corner + draw.uniform(2, 148, (2, 8, 2))], -1).astype("f")
    regions[0, :3] = [[0, 0, 512, 448], [0, 440, 3, 448], [10, 10, 300, 300]]
    levels = roi.level_of(regions, 2, 5).numpy()
    assert levels[0, 0] == 5 and levels[0, 1] == 2 and levels[0, 2] == 4
    reads = roi.align(maps, regions, 3).numpy().reshape(2, 8, 3, 3, 3)
    for i, j in np.ndindex(2, 8):
        level = levels[i, j]
        expected = plain_align(maps[level][i], regions[i, j], 2.0**level, 3)
        np.testing.assert_allclose(reads[i, j], expected, atol=1e-4)


def test_align_has_gradients_and_takes_no_regions():
    features = tf.Variable(tf.random.stateless_normal([1, 8, 8, 2], [0, 0]))
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(roi.align({4: features}, tf.constant([[[0.0, 0, 128, 128]]]), 2) ** 2)
    assert np.abs(tf.convert_to_tensor(tape.gradient(total, features)).numpy()).min() > 0
    assert roi.align({4: features}, tf.zeros([1, 0, 4]), 7).shape == (0, 7, 7, 2)


def test_proposals_are_clipped_suppressed_sorted():
    anchors = [tf.constant([[-5.0, 0, 10, 10], [-5, 0, 10, 10.5], [40, 40, 60, 60]]), tf.constant([[0.0, 0, 30, 30]])]
    objectness = tf.constant([[3.0, 2, 1, 5], [0, 1, 2, 3]])
    deltas = tf.concat([tf.zeros([2, 3, 4]), tf.fill([2, 1, 4], -50.0)], axis=1)  # the last shrinks to nothing
    regions, scores = roi.propose(objectness, deltas, anchors, (50, 50), candidates=3, limit=4)
    np.testing.assert_allclose(scores, [[3, 1, -np.inf, -np.inf], [2, 1, -np.inf, -np.inf]])
    np.testing.assert_allclose(regions[0, :2], [[0, 0, 10, 10], [40, 40, 50, 50]])


@pytest.mark.parametrize("positives, expected", [(50, (8, 24)), (3, (3, 29)), (0, (0, 32))])
def test_samples(positives, expected):
    matched = np.full((2, 200), coding.NEGATIVE, "int32")
    matched[:, :positives] = 1
    matched[:, 190:] = coding.IGNORED
    positive, negative = roi.sample(matched, 32, 0.25, tf.constant([1, 2]))
    for i in range(2):
        assert (positive[i].numpy().sum(), negative[i].numpy().sum()) == expected
    assert not positive.numpy()[:, positives:].any() and not negative.numpy()[:, 190:].any()
    again, _ = roi.sample(matched, 32, 0.25, tf.constant([1, 3]))
    assert positives < 50 or (again.numpy() != positive.numpy()).any()


def test_sampled_regions():
    boxes = tf.constant([[[0.0, 0, 20, 20], [-1, -1, -1, -1]], [[-1.0] * 4] * 2])
    classes = tf.constant([[4, -1], [-1, -1]])
    regions = tf.constant([[[0.0, 0, 20, 18], [50, 50, 70, 70], [0, 0, 20, 19]]] * 2)
    scores = tf.constant([[2.0, 1, -np.inf]] * 2)
    found, matched, drawn = roi.sample_regions(
        regions, scores, boxes, classes, count=4, seed=tf.constant([0, 0]), fraction=0.5
    )
    np.testing.assert_array_equal(drawn, [[True, True, True, False], [True, True, False, False]])
    np.testing.assert_array_equal(np.where(drawn, matched, -9), [[0, 0, -1, -9], [-1, -1, -9, -9]])
    assert {tuple(row) for row in found[0, :2].numpy()} == {(0, 0, 20, 20), (0, 0, 20, 18)}
