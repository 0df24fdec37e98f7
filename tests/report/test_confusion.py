"""Confusion against counting by hand."""

import collections

import numpy as np
import pytest

from keras_bot.report import confusion

DRAW = np.random.default_rng(0)
LABELS = DRAW.integers(0, 5, 200).astype(np.int32)  # class 5 has no images
PREDICTED = np.where(DRAW.uniform(size=200) < 0.6, LABELS, DRAW.integers(0, 6, 200)).astype(np.int32)


def test_the_matrix_counts_true_classes_down_and_answers_across():
    counts = collections.Counter(zip(LABELS.tolist(), PREDICTED.tolist(), strict=True))
    matrix = confusion.matrix(LABELS, PREDICTED, 6)
    assert matrix.sum() == 200
    assert all(matrix[k, j] == counts[k, j] for k in range(6) for j in range(6))


def test_pairs_come_by_their_number_with_their_share_of_the_class():
    matrix = confusion.matrix(LABELS, PREDICTED, 6)
    pairs = confusion.confused_pairs(LABELS, PREDICTED)
    assert sum(pair.count for pair in pairs) == (LABELS != PREDICTED).sum()
    assert [pair.count for pair in pairs] == sorted((pair.count for pair in pairs), reverse=True)
    for pair in pairs:
        assert pair.true != pair.predicted and pair.count == matrix[pair.true, pair.predicted]
        assert pair.share == pytest.approx(pair.count / (pair.true == LABELS).sum())


def test_classes_come_by_their_accuracy_those_without_images_last():
    figures = confusion.class_figures(LABELS, PREDICTED, 6)
    assert figures[-1].label == 5 and figures[-1].images == 0 and figures[-1].worst is None
    accuracies = [one.accuracy for one in figures[:-1]]
    assert accuracies == sorted(accuracies)
    for one in figures[:-1]:
        of_class = PREDICTED[one.label == LABELS]
        assert one.accuracy == pytest.approx((of_class == one.label).mean())
        wrong = collections.Counter(of_class[of_class != one.label].tolist())
        assert one.worst.count == max(wrong.values())


def test_blocks_are_shares_of_the_rows_and_the_matrix_itself_where_it_is_small():
    matrix = confusion.matrix(LABELS, PREDICTED, 6)
    np.testing.assert_allclose(confusion.blocks(LABELS, PREDICTED, 6)[:5], matrix[:5] / matrix[:5].sum(1)[:, None])
    halves = confusion.blocks(LABELS, PREDICTED, 6, most=2)
    assert halves[0, 1] == pytest.approx(matrix[:3, 3:].sum() / matrix[:3].sum())
    assert confusion.blocks(np.arange(1000), np.arange(1000), 1000).shape == (200, 200)


def test_nothing_confused_gives_no_pairs():
    assert confusion.confused_pairs(LABELS, LABELS) == []
