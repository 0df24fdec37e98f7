"""Detection losses against NumPy and keras-cv, and the forms a batch may have."""

import numpy as np
import pytest
import tensorflow as tf

from keras_bot.errors import MisuseError
from keras_bot.tasks.detection import losses


def test_focal_loss():
    draw = np.random.default_rng(0)
    logits, targets = draw.normal(size=(4, 6)) * 4, draw.integers(0, 2, (4, 6))
    p = np.where(targets == 1, 1 / (1 + np.exp(-logits)), 1 / (1 + np.exp(logits)))
    alpha = np.where(targets == 1, 0.25, 0.75)
    np.testing.assert_allclose(losses.focal(logits, targets), -alpha * (1 - p) ** 2 * np.log(p), rtol=2e-4, atol=1e-7)
    keras_cv = pytest.importorskip("keras_cv")
    theirs = keras_cv.losses.FocalLoss(from_logits=True, reduction="sum")(
        targets.astype("float32"), logits.astype("float32")
    )
    np.testing.assert_allclose(tf.reduce_sum(losses.focal(logits, targets)), theirs, rtol=1e-4)


def test_focal_loss_is_finite_with_its_gradient():
    logits = tf.constant([-1e4, -90.0, 0.0, 90.0, 1e4])
    for target in (0.0, 1.0):
        with tf.GradientTape() as tape:
            tape.watch(logits)
            terms = losses.focal(logits, tf.fill([5], target))
        assert np.isfinite(terms.numpy()).all() and np.isfinite(tape.gradient(terms, logits).numpy()).all()


def test_smooth_l1_meets_at_beta():
    np.testing.assert_allclose(losses.smooth_l1(tf.constant([0.0, 0.5, -2.0]), 1.0), [0, 0.125, 1.5])
    np.testing.assert_allclose(losses.smooth_l1(tf.constant([0.1, 0.2]), 0.2), [0.025, 0.1])


def test_box_loss_leaves_out_weight_0_even_of_nan():
    deltas = tf.constant([[1.0, 1, 1, 1], [np.nan] * 4])
    assert losses.box_loss(deltas, tf.zeros([2, 4]), tf.constant([2.0, 0.0])).numpy() == 4.0


def test_forms_of_a_batch():
    images, boxes, classes = np.zeros((2, 8, 8, 3)), np.zeros((2, 1, 4)), np.zeros((2, 1))
    one = losses.unpack_batch({"images": images, "boxes": boxes, "classes": classes, "weights": np.array([1, 0])})
    two = losses.unpack_batch(images, {"boxes": boxes, "classes": classes})
    three = losses.unpack_batch(images, {"boxes": boxes, "classes": classes}, np.array([0.5, 1]))
    assert one[2].dtype == tf.int32 and one[1].dtype == tf.float32
    np.testing.assert_array_equal([one[3], two[3], three[3]], [[1, 0], [1, 1], [0.5, 1]])
    with pytest.raises(MisuseError, match="no classes"):
        losses.unpack_batch({"images": images, "boxes": boxes})
