"""Box maths of detectors against plain NumPy loops and TensorFlow's own suppression."""

import numpy as np
import pytest
import tensorflow as tf

from keras_bot.tasks.detection import box_coding as coding
from keras_bot.tasks.detection.box_ops import iou_matrix


def random_boxes(draw, *shape, size=100.0):
    corner = draw.uniform(0, size, (*shape, 2))
    return np.concatenate([corner, corner + draw.uniform(1, size / 2, (*shape, 2))], -1).astype(np.float32)


def plain_iou(a, b):
    height, width = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    shared = max(height, 0) * max(width, 0)
    return shared / (np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - shared)


def test_overlaps():
    draw = np.random.default_rng(0)
    a, b = random_boxes(draw, 2, 5), random_boxes(draw, 2, 7)
    expected = [[[plain_iou(x, y) for y in b[i]] for x in a[i]] for i in range(2)]
    np.testing.assert_allclose(iou_matrix(a, b), expected, atol=1e-6)
    assert iou_matrix(np.zeros((1, 4), "f"), np.zeros((1, 4), "f")).numpy() == 0


def test_decode_undoes_encode():
    draw = np.random.default_rng(1)
    boxes, anchors = random_boxes(draw, 3, 50), random_boxes(draw, 50)
    np.testing.assert_allclose(coding.decode(coding.encode(boxes, anchors), anchors), boxes, atol=1e-3)


def test_deltas_are_keras_cvs():
    converters = pytest.importorskip("keras_cv.src.bounding_box.converters")
    draw = np.random.default_rng(2)
    boxes, anchors = random_boxes(draw, 1, 20), random_boxes(draw, 20)
    deltas = converters._encode_box_to_deltas(
        anchors=tf.constant(anchors),
        boxes=tf.constant(boxes),
        anchor_format="yxyx",
        box_format="yxyx",
        variance=[0.1, 0.1, 0.2, 0.2],
    )
    np.testing.assert_allclose(coding.encode(boxes, anchors), np.asarray(deltas), atol=1e-4)


def test_wild_deltas_and_empty_boxes_stay_finite():
    assert np.isfinite(coding.decode(tf.fill([1, 4], 1e6), tf.constant([[0.0, 0, 8, 8]])).numpy()).all()
    assert np.isfinite(coding.encode(tf.zeros([1, 4]), tf.zeros([1, 4])).numpy()).all()


def test_match_thresholds_absent_boxes_and_force():
    anchors = np.array([[0, 0, 10, 10], [0, 0, 10, 5], [0, 0, 10, 4], [50, 50, 60, 60], [80, 80, 81, 81]], "f")
    boxes = np.array([[[0, 0, 10, 10], [52, 52, 90, 90], [80, 80, 81, 81]], [[-1] * 4] * 3], "f")
    classes = np.array([[1, 0, -1], [-1] * 3])
    options = {"positive": 0.7, "negative": 0.45}
    free = coding.match(anchors, boxes, classes, force=False, **options).numpy()
    no, off = coding.NEGATIVE, coding.IGNORED
    np.testing.assert_array_equal(free, [[0, off, no, no, no], [no] * 5])
    forced = coding.match(anchors, boxes, classes, force=True, **options).numpy()
    np.testing.assert_array_equal(forced, [[0, off, no, 1, no], [no] * 5])


def test_match_gives_every_box_an_anchor():
    draw = np.random.default_rng(3)
    anchors, boxes = random_boxes(draw, 200), random_boxes(draw, 4, 6)
    matched = coding.match(anchors, boxes, np.zeros((4, 6), int), positive=0.9, negative=0.3, force=True).numpy()
    overlap = iou_matrix(anchors, boxes).numpy()
    for i, box in np.ndindex(4, 6):
        best = overlap[i, :, box].argmax()
        taken = matched[i, best]
        assert taken == box or overlap[i, best, taken] > overlap[i, best, box]


@pytest.mark.parametrize("compiled", [False, True])
def test_keep_best_is_greedy_suppression(compiled):
    draw = np.random.default_rng(4)
    boxes = random_boxes(draw, 3, 120, size=60.0)
    scores = -np.sort(-draw.uniform(size=(3, 120))).astype(np.float32)
    scores[:, 110:] = -np.inf
    groups = draw.integers(0, 2, (3, 120)).astype(np.int32)
    keep = tf.function(coding.keep_best, jit_compile=compiled)(boxes, scores, groups, 0.4).numpy()
    for i in range(3):
        expected = set()
        for group in range(2):
            own = np.flatnonzero((groups[i] == group) & np.isfinite(scores[i]))
            kept = tf.image.non_max_suppression(boxes[i][own], scores[i][own], 120, 0.4).numpy()
            expected |= set(own[kept])
        assert set(np.flatnonzero(keep[i])) == expected


def test_best_detections_pad_and_sort():
    boxes = np.array([[[0, 0, 10, 10], [0, 0, 10, 9], [0, 0, 10, 10], [30, 30, 40, 40]]], "f")
    scores = np.array([[0.9, 0.8, 0.7, -np.inf]], "f")
    found = coding.best_detections(boxes, scores, np.array([[0, 0, 1, 0]]), iou=0.5, limit=6)
    assert found["count"].numpy() == 2 and found["boxes"].shape == (1, 6, 4)
    np.testing.assert_array_equal(found["classes"].numpy(), [[0, 1, -1, -1, -1, -1]])
    np.testing.assert_allclose(found["scores"].numpy(), [[0.9, 0.7, 0, 0, 0, 0]])
    assert (found["boxes"].numpy()[0, 2:] == -1).all()
    assert found["classes"].dtype == tf.int32


def test_best_candidates():
    probabilities = np.array([[[0.1, 0.9], [0.6, 0.2]]], "f")
    scores, place, classes = (x.numpy() for x in coding.best_candidates(probabilities, 3, 0.5))
    np.testing.assert_allclose(scores, [[0.9, 0.6, -np.inf]])
    np.testing.assert_array_equal(place[0, :2], [0, 1])
    np.testing.assert_array_equal(classes[0, :2], [1, 0])
