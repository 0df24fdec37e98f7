"""Confusion between K classes. Pure functions of labels (N,) and predictions (N,)."""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Pair:
    """`count` images of class `true` predicted as `predicted`; `share` is their fraction of the class's images."""

    true: int
    predicted: int
    count: int
    share: float


@dataclasses.dataclass(frozen=True)
class ClassResults:
    """Results of one class: number of images, accuracy (NaN without images) and most frequent confusion."""

    label: int
    images: int
    accuracy: float
    worst: Pair | None


def matrix(labels: np.ndarray, predicted: np.ndarray, num_classes: int) -> np.ndarray:
    """Returns the confusion matrix, integer (K, K): rows are true classes, columns predicted ones."""
    cells = labels.astype(np.int64) * num_classes + predicted
    return np.bincount(cells, minlength=num_classes**2).reshape(num_classes, num_classes)


def confused_pairs(labels: np.ndarray, predicted: np.ndarray) -> list[Pair]:
    """Returns all confused pairs of classes, the most frequent first, without a (K, K) matrix."""
    wrong = labels != predicted
    pairs, counts = np.unique(np.stack([labels[wrong], predicted[wrong]], axis=1), axis=0, return_counts=True)
    totals = np.bincount(labels)
    confused = [Pair(int(t), int(p), int(n), float(n / totals[t])) for (t, p), n in zip(pairs, counts, strict=True)]
    return sorted(confused, key=lambda pair: (-pair.count, -pair.share, pair.true, pair.predicted))


def class_results(labels: np.ndarray, predicted: np.ndarray, num_classes: int) -> list[ClassResults]:
    """Returns the results of the K classes, lowest accuracy first, classes without images last."""
    images = np.bincount(labels, minlength=num_classes)
    correct = np.bincount(labels[labels == predicted], minlength=num_classes)
    worst: dict[int, Pair] = {}
    for pair in confused_pairs(labels, predicted):
        worst.setdefault(pair.true, pair)
    results = [
        ClassResults(k, int(images[k]), float(correct[k] / images[k]) if images[k] else float("nan"), worst.get(k))
        for k in range(num_classes)
    ]
    return sorted(results, key=lambda one: (one.images == 0, one.accuracy if one.images else 0, one.label))


def blocks(labels: np.ndarray, predicted: np.ndarray, num_classes: int, max_size: int = 200) -> np.ndarray:
    """Returns the confusion matrix of at most `max_size` groups of neighbouring classes.

    Rows sum to 1, those without images to 0.

    Returns:
        float (m, m), m = min(K, max_size); class k is in group k // (K / m).
    """
    size = min(num_classes, max_size)
    group = np.arange(num_classes) * size // num_classes
    counts = matrix(group[labels], group[predicted], size)
    return counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
