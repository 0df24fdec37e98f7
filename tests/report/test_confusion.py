"""Confusion compared with simple counting."""

import collections

import numpy as np
import pytest

from keras_bot.report import confusion

DRAW = np.random.default_rng(0)
LABELS = DRAW.integers(0, 5, 200).astype(np.int32)  # class 5 has no images
PREDICTED = np.where(DRAW.uniform(size=200) < 0.6, LABELS, DRAW.integers(0, 6, 200)).astype(np.int32)


def test_matrix_has_true_classes_as_rows():
    counts = collections.Counter(zip(LABELS.tolist(), PREDICTED.tolist(), strict=True))
    matrix = confusion.matrix(LABELS, PREDICTED, 6)
    assert matrix.sum() == 200
    assert all(matrix[k, j] == counts[k, j] for k in range(6) for j in range(6))


def test_pairs_are_sorted_by_count():
    matrix = confusion.matrix(LABELS, PREDICTED, 6)
    pairs = confusion.confused_pairs(LABELS, PREDICTED)
    assert sum(pair.count for pair in pairs) == (LABELS != PREDICTED).sum()
    assert [pair.count for pair in pairs] == sorted((pair.count for pair in pairs), reverse=True)
    for pair in pairs:
        assert pair.true != pair.predicted and pair.count == matrix[pair.true, pair.predicted]
        assert pair.share == pytest.approx(pair.count / (pair.true == LABELS).sum())


def test_classes_are_sorted_by_accuracy_with_empty_ones_last():
    results = confusion.class_results(LABELS, PREDICTED, 6)
    assert results[-1].label == 5 and results[-1].images == 0 and results[-1].worst is None
    accuracies = [one.accuracy for one in results[:-1]]
    assert accuracies == sorted(accuracies)
    for one in results[:-1]:
        of_class = PREDICTED[one.label == LABELS]
        assert one.accuracy == pytest.approx((of_class == one.label).mean())
        wrong = collections.Counter(of_class[of_class != one.label].tolist())
        assert one.worst.count == max(wrong.values())


def test_blocks_are_shares_of_the_rows():
    matrix = confusion.matrix(LABELS, PREDICTED, 6)
    np.testing.assert_allclose(confusion.blocks(LABELS, PREDICTED, 6)[:5], matrix[:5] / matrix[:5].sum(1)[:, None])
    halves = confusion.blocks(LABELS, PREDICTED, 6, max_size=2)
    assert halves[0, 1] == pytest.approx(matrix[:3, 3:].sum() / matrix[:3].sum())
    assert confusion.blocks(np.arange(1000), np.arange(1000), 1000).shape == (200, 200)


def test_correct_predictions_give_no_pairs():
    assert confusion.confused_pairs(LABELS, LABELS) == []
