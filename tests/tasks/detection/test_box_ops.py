import numpy as np
import pytest
import tensorflow as tf

from keras_bot.tasks.detection import box_ops


def _random(count, height=60, width=80, seed=0):
    draw = np.random.default_rng(seed)
    corners = np.sort(draw.uniform(0, 1, (count, 2, 2)), axis=1) * [height, width]
    return corners.reshape(count, 4).astype(np.float32)


def _iou(a, b):
    height = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    width = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    areas = [(x[2] - x[0]) * (x[3] - x[1]) for x in (a, b)]
    return height * width / (sum(areas) - height * width)


def _everywhere(function, *args):
    """The result, which eager mode and tf.data must agree about."""
    eager = function(*args)
    piped = next(iter(tf.data.Dataset.from_tensors(args).map(function)))
    for one, other in zip(tf.nest.flatten(eager), tf.nest.flatten(piped), strict=True):
        np.testing.assert_array_equal(one, other)
    return tf.nest.map_structure(lambda part: part.numpy(), eager)


def test_iou_is_what_a_loop_gives():
    one, other = _random(7), _random(5, seed=1)
    expected = [[_iou(a, b) for b in other] for a in one]
    np.testing.assert_allclose(_everywhere(box_ops.iou_matrix, one, other), expected, atol=1e-6)
    batched = box_ops.iou_matrix(np.stack([one, one]), np.stack([other, other]))
    np.testing.assert_allclose(batched, [expected, expected], atol=1e-6)


def test_padding_overlaps_with_nothing():
    padded = box_ops.pad(tf.constant(_random(2)), 4)
    assert padded.shape == (4, 4)
    iou = box_ops.iou_matrix(padded, padded).numpy()
    np.testing.assert_allclose(np.diag(iou), [1, 1, 0, 0])
    assert not iou[2:].any() and not iou[:, 2:].any()
    np.testing.assert_array_equal(box_ops.area(padded)[2:], [0, 0])


def test_pad_cuts_and_fills():
    rows = tf.constant([[1, 2], [3, 4], [5, 6]])
    np.testing.assert_array_equal(box_ops.pad(rows, 2), [[1, 2], [3, 4]])
    np.testing.assert_array_equal(box_ops.pad(rows, 4), [[1, 2], [3, 4], [5, 6], [-1, -1]])
    np.testing.assert_array_equal(box_ops.pad(tf.zeros([0], tf.int32), 2), [-1, -1])


def test_clip_visible_and_centre():
    some = np.array([[-2, -4, 2, 4], [1, 1, 3, 3], [20, 20, 30, 30], [4, 4, 4, 9]], np.float32)
    window = np.array([0, 0, 10, 10], np.float32)
    clipped = _everywhere(box_ops.clip, some, window)
    np.testing.assert_array_equal(clipped, [[0, 0, 2, 4], [1, 1, 3, 3], [10, 10, 10, 10], [4, 4, 4, 9]])
    np.testing.assert_allclose(_everywhere(box_ops.visible, some, window), [0.25, 1, 0, 0])
    np.testing.assert_array_equal(_everywhere(box_ops.centred_in, some, window), [True, True, False, True])
    batched = box_ops.clip(np.stack([some, some]), np.stack([window, window])[:, None])
    np.testing.assert_array_equal(batched, [clipped, clipped])


def test_boxes_follow_flipped_pixels():
    """A box drawn as pixels, then mirrored, is the mirrored box."""
    picture = np.zeros((6, 9), int)
    picture[1:4, 2:7] = 1
    y0, x0, y1, x1 = box_ops.flip(tf.constant([[1.0, 2.0, 4.0, 7.0]]), 9).numpy()[0].astype(int)
    assert picture[:, ::-1][y0:y1, x0:x1].all() and picture.sum() == (y1 - y0) * (x1 - x0)
    twice = box_ops.flip(box_ops.flip(_random(5), 80), 80)
    np.testing.assert_allclose(twice, _random(5), atol=1e-5)


def test_scale_and_move():
    some = tf.constant([[1.0, 2.0, 3.0, 4.0]])
    np.testing.assert_array_equal(box_ops.scale(some, tf.constant([2.0, 0.5])), [[2, 1, 6, 2]])
    np.testing.assert_array_equal(box_ops.move(some, tf.constant([10, -1])), [[11, 1, 13, 3]])
    factors = tf.constant([[2.0, 0.5], [1.0, 1.0]])
    np.testing.assert_array_equal(box_ops.scale(tf.stack([some, some]), factors[:, None])[0], [[2, 1, 6, 2]])


@pytest.mark.parametrize("stretch", [False, True])
@pytest.mark.parametrize("shape", [(60, 80), pytest.param((80, 60), marks=pytest.mark.thorough), (7, 300)])
def test_a_drawn_window_is_of_the_zoom_and_holds_a_middle(shape, stretch):
    some, full = _random(6, *shape), np.array(shape)
    zooms = []
    for number in range(200):
        uniform = tf.random.stateless_uniform([4], [0, number])
        options = {"stretch": stretch, "zooms": (0.5, 2.0)}
        window = box_ops.draw_window(tf.constant(shape), some, uniform, **options).numpy()
        span = window[2:] - window[:2]
        zooms.append((full if stretch else max(shape)) / span)
        within = (window[:2] >= -1e-3) & (window[2:] <= full + 1e-3)
        around = (window[:2] <= 1e-3) & (window[2:] >= full - 1e-3)
        assert (within | around).all()
        middles = (some[:, :2] + some[:, 2:]) / 2
        assert ((middles >= window[:2] - 1e-3) & (middles <= window[2:] + 1e-3)).all(axis=1).any()
    zooms = np.log2(np.array(zooms))
    assert zooms.min() >= -1.001 and zooms.max() <= 1.001
    assert abs(zooms.mean()) < 0.15 and zooms.std() == pytest.approx(2 / np.sqrt(12), abs=0.08)


def test_a_window_without_boxes_lies_anywhere():
    nothing, corners = tf.zeros([0, 4]), []
    for number in range(300):
        uniform = tf.random.stateless_uniform([4], [1, number])
        corners.append(
            box_ops.draw_window(tf.constant([40, 40]), nothing, uniform, stretch=False, zooms=(2.0, 2.0))[:2]
        )
    corners = np.array(corners)
    assert corners.min() >= 0 and corners.max() <= 20
    np.testing.assert_allclose(corners.mean(axis=0), [10, 10], atol=1.2)


def test_cut_of_the_whole_image():
    for shape, stretch, place in (
        ((480, 640), False, [0, 0, 240, 320]),
        ((640, 480), False, [0, 0, 320, 240]),
        ((480, 640), True, [0, 0, 320, 320]),
        ((1, 5000), False, [0, 0, 1, 320]),
    ):
        window = box_ops.whole_window(tf.constant(shape), stretch)
        part, placed = box_ops.cut(window, tf.constant(shape), 320)
        np.testing.assert_array_equal(part, [0, 0, *shape])
        np.testing.assert_array_equal(placed, place)


def test_boxes_move_as_the_cut_pixels_do():
    part, place = tf.constant([10, 20, 30, 60]), tf.constant([0, 5, 40, 45])
    moved = box_ops.to_place(tf.constant([[10.0, 20.0, 30.0, 60.0], [20.0, 40.0, 25.0, 50.0]]), part, place)
    np.testing.assert_allclose(moved, [[0, 5, 40, 45], [20, 25, 30, 35]])


def test_cut_stays_within_image_and_square():
    draw = np.random.default_rng(3)
    for _ in range(300):
        shape = draw.integers(1, 50, 2)
        span = draw.uniform(0.5, 90, 2)
        corner = np.where(
            span <= shape, draw.uniform(0, 1, 2) * (shape - span), -draw.uniform(0, 1, 2) * (span - shape)
        )
        window = tf.constant(np.concatenate([corner, corner + span]), tf.float32)
        part, place = (x.numpy() for x in box_ops.cut(window, tf.constant(shape, tf.int32), 16))
        assert (part[:2] >= 0).all() and (part[2:] <= shape).all() and (part[2:] > part[:2]).all()
        assert (place[:2] >= 0).all() and (place[2:] <= 16).all() and (place[2:] > place[:2]).all()
        factors = 16 / span
        exact = (part.reshape(2, 2) - corner) * factors
        slack = 0.51 + np.maximum(factors, 1)  # rounding, of the image's pixels and of the square's
        assert (np.abs(exact - place.reshape(2, 2)) <= slack).all()
