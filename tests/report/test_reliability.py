"""Calibration compared with simple loops, known values and the paper."""

import math

import numpy as np
import pytest

from keras_bot.report.reliability import log_probabilities, logit_gap, optimal_gap, reliability, shared_edges


def ece_by_hand(confidence, correct, bins):
    """Guo et al.'s formula, one image at a time."""
    members = [[] for _ in range(bins)]
    for sure, right in zip(confidence, correct, strict=True):
        place = next(m for m in range(bins) if sure <= (m + 1) / bins or m == bins - 1)
        members[place].append((sure, right))
    gaps = [abs(sum(r for _, r in m) / len(m) - sum(s for s, _ in m) / len(m)) * len(m) for m in members if m]
    return sum(gaps) / len(confidence), [len(m) for m in members]


@pytest.mark.parametrize("bins", [1, 10, 15])
def test_ece_equals_a_simple_loop(bins):
    draw = np.random.default_rng(0)
    confidence = np.concatenate([draw.uniform(0, 1, 500), [0.0, 1.0, 0.2, 0.4, 0.6]])  # at edges too
    correct = draw.uniform(0, 1, len(confidence)) < confidence**2
    diagram = reliability(confidence, correct, bins)
    expected, counts = ece_by_hand(confidence.tolist(), correct.tolist(), bins)
    assert diagram.ece() == pytest.approx(expected, abs=1e-12)
    assert diagram.counts.tolist() == counts and diagram.counts.sum() == len(confidence)
    assert (np.diff(diagram.edges) > 0).all()


def test_ece_of_known_networks():
    sure = np.full(10, 0.8)
    assert reliability(sure, np.arange(10) < 6).ece() == pytest.approx(0.2)
    assert reliability(sure, np.arange(10) < 8).ece() == pytest.approx(0)
    empty = reliability(sure, np.arange(10) < 8)
    assert np.isnan(empty.accuracy[0]) and empty.counts[0] == 0


def test_log_probabilities_do_not_overflow():
    logits = np.random.default_rng(1).normal(0, 3, (20, 7)).astype(np.float32)
    plain = [[math.exp(z) / sum(math.exp(other) for other in row) for z in row] for row in logits.tolist()]
    np.testing.assert_allclose(np.exp(log_probabilities(logits)), plain, rtol=1e-12)
    np.testing.assert_allclose(log_probabilities(np.array([[1e4, 0.0]])), [[0, -1e4]])


def test_gap_is_the_largest_logit_minus_the_mean_of_the_others():
    assert logit_gap(np.array([[1.0, 5.0, 3.0], [2.0, 2.0, 2.0]])).tolist() == [3.0, 0.0]
    logits = np.random.default_rng(2).normal(0, 2, (50, 9))
    for row, gap in zip(logits, logit_gap(logits), strict=True):
        others = sorted(row)[:-1]
        assert gap == pytest.approx(max(row) - sum(others) / 8)


@pytest.mark.parametrize(("classes", "epsilon"), [(1000, 0.1), (10, 0.1), (10, 0.3), (2, 0.05)])
def test_the_optimal_gap_minimises_the_smoothed_loss(classes, epsilon):
    grid = np.linspace(0.01, 12, 24_000)
    log_sum = np.log(np.exp(grid) + classes - 1)
    loss = -(1 - epsilon) * (grid - log_sum) + epsilon * log_sum  # of logits (gap, 0, …, 0)
    assert optimal_gap(classes, epsilon) == pytest.approx(grid[loss.argmin()], abs=1e-3)


def test_the_optimal_gap_equals_the_papers():
    assert optimal_gap(1000, 0.1) == pytest.approx(9.1, abs=0.01)
    assert optimal_gap(10, 0.0) == math.inf


def test_shared_histogram_edges_cover_all_samples():
    samples = [np.random.default_rng(3).normal(4, 1, 300), np.array([9.0, 9.0])]
    edges = shared_edges(samples)
    assert edges[0] == samples[0].min() and edges[-1] == 9
    for sample in samples:
        density, _ = np.histogram(sample, edges, density=True)
        assert (density * np.diff(edges)).sum() == pytest.approx(1)
    assert len(shared_edges([np.ones(5)])) == 11
