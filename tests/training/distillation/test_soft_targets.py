"""The top-k targets and their loss equal NumPy's, and the distillation model follows the recipe."""

import keras
import numpy as np
import pytest

from keras_bot import tricks
from keras_bot.recipe import Recipe
from keras_bot.training.distillation.soft_targets import (
    TopKCrossentropy,
    build_distillation_model,
    keep_teacher_targets,
    top_k_targets,
)

BATCH, CLASSES = 4, 6
rng = np.random.default_rng(0)
TEACHER_LOGITS = (5 * rng.standard_normal((BATCH, CLASSES))).astype("float32")
LOGITS = (5 * rng.standard_normal((BATCH, CLASSES))).astype("float32")


def softmax(logits, temperature):
    exponentials = np.exp(logits.astype("float64") / temperature)
    return exponentials / exponentials.sum(1, keepdims=True)


@pytest.mark.parametrize("k", [1, 2, CLASSES])
@pytest.mark.parametrize("temperature", [1.0, 20.0])
def test_the_targets_are_the_greatest_probabilities_and_their_classes(k, temperature):
    targets = top_k_targets(TEACHER_LOGITS, k, temperature)
    assert targets.shape == (BATCH, 2 * k) and targets.dtype == np.float32
    q = softmax(TEACHER_LOGITS, temperature)
    for row, probabilities in zip(targets, q, strict=True):
        order = sorted(range(CLASSES), key=lambda i: -probabilities[i])[:k]
        assert row[:k].tolist() == order
        np.testing.assert_allclose(row[k:], probabilities[order], rtol=1e-6)


def test_known_targets():
    logits = np.log(np.array([[1.0, 4.0, 3.0], [0.5, 0.25, 0.25]], "float32"))
    expected = [[1, 2, 0.5, 0.375], [0, 1, 0.5, 0.25]]  # of equal logits, the first class
    np.testing.assert_allclose(top_k_targets(logits, 2, 1.0), expected, rtol=1e-6)


def test_large_logits_and_half_precision_do_not_overflow():
    logits = np.array([[60000, 59999, 0]], "float16")
    expected = 1 / (1 + np.exp(float(logits[0, 1]) - float(logits[0, 0])))
    np.testing.assert_allclose(top_k_targets(logits, 2, 1.0)[0], [0, 1, expected, 1 - expected], rtol=1e-5)


def restored(targets):
    """Returns the distribution that the targets stand for: the remaining probability is shared equally."""
    k = targets.shape[1] // 2
    rows = []
    for row in targets.astype("float64"):
        rest = (1 - row[k:].sum()) / max(CLASSES - k, 1)
        probabilities = np.full(CLASSES, rest)
        probabilities[row[:k].astype(int)] = row[k:]
        rows.append(probabilities)
    return np.array(rows)


@pytest.mark.parametrize("k", [1, 3, CLASSES - 1, CLASSES])
@pytest.mark.parametrize("temperature", [1.0, 2.0, 20.0])
def test_the_loss_is_the_cross_entropy_with_the_restored_distribution(k, temperature):
    targets = top_k_targets(TEACHER_LOGITS, k, temperature)
    log_p = np.log(softmax(LOGITS, temperature))
    expected = -(temperature**2) * (restored(targets) * log_p).sum(1)
    loss = TopKCrossentropy(temperature)
    np.testing.assert_allclose(loss.call(targets, LOGITS), expected, rtol=1e-5)
    assert float(loss(targets, LOGITS)) == pytest.approx(expected.mean(), rel=1e-5)
    weights = np.array([1, 0, 2, 1], "float32")
    assert float(loss(targets, LOGITS, weights)) == pytest.approx((expected * weights).mean(), rel=1e-5)


@pytest.mark.parametrize("temperature", [1.0, 20.0])
def test_all_classes_lose_nothing(temperature):
    targets = top_k_targets(TEACHER_LOGITS, CLASSES, temperature)
    expected = tricks.SoftCrossentropy(temperature)(TEACHER_LOGITS, LOGITS)
    assert float(TopKCrossentropy(temperature)(targets, LOGITS)) == pytest.approx(float(expected), rel=1e-5)


def test_the_loss_computes_in_float32():
    targets = top_k_targets(TEACHER_LOGITS, 2, 2.0)
    half = LOGITS.astype("float16")
    loss = TopKCrossentropy(2.0)
    assert float(loss(targets, half)) == pytest.approx(float(loss(targets, half.astype("float32"))), rel=1e-6)
    assert loss.name == "soft_crossentropy" and loss.dtype == "float32"


def test_the_targets_pass_through_a_batch_transform():
    def transform(images, labels, seed, epoch):
        return images + seed, labels * epoch

    wrapped = keep_teacher_targets(transform)
    assert wrapped(1, (2, "targets"), 10, 5) == (11, (10, "targets"))


@pytest.fixture(scope="module")
def models():
    return [keras.Sequential([keras.Input((3,)), keras.layers.Dense(CLASSES)], name=name) for name in "st"]


@pytest.mark.parametrize(
    ("changes", "has_teacher", "soft_loss", "temperature", "hard_weight"),
    [
        ({}, True, tricks.SoftCrossentropy, 20.0, None),
        ({"distill_temperature": 4.0}, True, tricks.SoftCrossentropy, 4.0, None),
        ({"distill_hard_weight": 0.25}, True, tricks.SoftCrossentropy, 20.0, 0.25),
        ({"distill_hard_weight": 0.0}, True, tricks.SoftCrossentropy, 20.0, 0.0),
        ({"teacher_cache": "cache"}, False, tricks.SoftCrossentropy, 20.0, None),
        (
            {"teacher_cache": "cache", "teacher_top_k": 2, "distill_temperature": 4.0},
            False,
            TopKCrossentropy,
            4.0,
            None,
        ),
    ],
    ids=str,
)
def test_the_distillation_model_follows_the_recipe(changes, has_teacher, soft_loss, temperature, hard_weight, models):
    student, teacher = models
    model = build_distillation_model(Recipe(teacher="teacher", **changes), student, teacher)
    assert isinstance(model, tricks.DistillationModel) and model.student is student
    assert (model.teacher is not None) is has_teacher
    if has_teacher:
        assert model.teacher.name == "t" and not model.teacher.trainable
    assert (model.temperature, model.hard_weight) == (temperature, hard_weight)
    assert type(model.soft_loss) is soft_loss and model.soft_loss.temperature == temperature
