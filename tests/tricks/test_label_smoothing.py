import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_bot.tricks import SmoothedCrossentropy, mixup, smooth

EPSILON, CLASSES = 0.1, 5


def one_hot(numbers):
    return np.eye(CLASSES, dtype="float32")[np.asarray(numbers)]


def paper(numbers):
    """Equation 4 of the paper, entry by entry."""
    q = np.empty((len(numbers), CLASSES))
    for row, true in enumerate(numbers):
        for i in range(CLASSES):
            q[row, i] = 1 - EPSILON if i == true else EPSILON / (CLASSES - 1)
    return q


def log_softmax(z):
    z = z.astype("float64") - z.max(axis=-1, keepdims=True)
    return z - np.log(np.exp(z).sum(axis=-1, keepdims=True))


@pytest.mark.parametrize("make", [np.asarray, tf.constant, keras.ops.convert_to_tensor])
def test_one_hot_labels_become_the_papers_distribution(make):
    smoothed = np.asarray(smooth(make(one_hot([0, 3, 4])), EPSILON))
    np.testing.assert_allclose(smoothed, paper([0, 3, 4]), rtol=1e-6)
    np.testing.assert_allclose(smoothed.sum(axis=-1), 1, rtol=1e-6)


def test_soft_labels_of_any_rank_still_sum_to_1_and_0_changes_nothing():
    labels = np.random.default_rng(0).dirichlet(np.ones(CLASSES), size=(2, 3))
    np.testing.assert_allclose(smooth(labels, 0.3).sum(axis=-1), 1)
    np.testing.assert_array_equal(smooth(labels, 0.0), labels)


def test_works_inside_tf_data():
    dataset = tf.data.Dataset.from_tensor_slices(one_hot([1, 2])).map(lambda y: smooth(y, EPSILON))
    np.testing.assert_allclose(list(dataset.as_numpy_iterator()), paper([1, 2]), rtol=1e-6)


def test_smoothing_mixed_labels_is_mixing_smoothed_labels():
    a, b = one_hot([0, 1]), one_hot([2, 1])
    mixed_first = smooth(mixup(a, b, 0.3), EPSILON)
    np.testing.assert_allclose(mixed_first, mixup(smooth(a, EPSILON), smooth(b, EPSILON), 0.3), rtol=1e-6)


def test_the_loss_from_logits_and_from_probabilities():
    numbers, rng = [0, 3, 4, 1], np.random.default_rng(1)
    logits = rng.normal(size=(4, CLASSES)).astype("float32") * 3
    expected = -(paper(numbers) * log_softmax(logits)).sum(axis=-1)
    from_logits = SmoothedCrossentropy(EPSILON, from_logits=True, reduction=None)
    np.testing.assert_allclose(from_logits(one_hot(numbers), logits), expected, rtol=1e-5)
    from_probabilities = SmoothedCrossentropy(EPSILON, reduction=None)
    probabilities = np.exp(log_softmax(logits)).astype("float32")
    np.testing.assert_allclose(from_probabilities(one_hot(numbers), probabilities), expected, rtol=1e-5)
    assert float(SmoothedCrossentropy(EPSILON)(one_hot(numbers), probabilities)) == pytest.approx(expected.mean())


@pytest.mark.parametrize("shape", [(4,), (4, 1)])
@pytest.mark.parametrize("dtype", ["int64", "uint8", "float32"])
def test_class_numbers_give_the_loss_of_one_hot_labels(shape, dtype):
    numbers = np.array([0, 3, 4, 1])
    logits = np.random.default_rng(2).normal(size=(4, CLASSES)).astype("float32")
    loss = SmoothedCrossentropy(EPSILON, from_logits=True, reduction=None)
    np.testing.assert_array_equal(loss(numbers.reshape(shape).astype(dtype), logits), loss(one_hot(numbers), logits))


@pytest.mark.parametrize("epsilon", [-0.1, 1.0, 1.5, float("nan")])
def test_epsilon_out_of_range_is_refused(epsilon):
    with pytest.raises(ValueError, match="epsilon"):
        smooth(one_hot([0]), epsilon)


def test_a_single_class_is_refused():
    with pytest.raises(ValueError, match="at least 2"):
        smooth(np.ones((3, 1)), EPSILON)
