"""Which classes a network takes for which others. Pure functions of labels (N,) and predictions (N,), K classes."""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Pair:
    """So many images of the class `true` were taken for `predicted`; `share` is theirs of the class's images."""

    true: int
    predicted: int
    count: int
    share: float


@dataclasses.dataclass(frozen=True)
class ClassFigures:
    """One class: its images, the fraction of them that was recognised (NaN without images), the likeliest error."""

    label: int
    images: int
    accuracy: float
    worst: Pair | None


def matrix(labels: np.ndarray, predicted: np.ndarray, num_classes: int) -> np.ndarray:
    """The confusion matrix, integer (K, K): true classes down, predicted ones across."""
    cells = labels.astype(np.int64) * num_classes + predicted
    return np.bincount(cells, minlength=num_classes**2).reshape(num_classes, num_classes)


def confused_pairs(labels: np.ndarray, predicted: np.ndarray) -> list[Pair]:
    """Every pair of classes that was confused, the most frequent first; needs no (K, K) memory."""
    wrong = labels != predicted
    pairs, counts = np.unique(np.stack([labels[wrong], predicted[wrong]], axis=1), axis=0, return_counts=True)
    totals = np.bincount(labels)
    found = [Pair(int(t), int(p), int(n), float(n / totals[t])) for (t, p), n in zip(pairs, counts, strict=True)]
    return sorted(found, key=lambda pair: (-pair.count, -pair.share, pair.true, pair.predicted))


def class_figures(labels: np.ndarray, predicted: np.ndarray, num_classes: int) -> list[ClassFigures]:
    """Each of the K classes, the worst recognised first, those without images last."""
    images = np.bincount(labels, minlength=num_classes)
    right = np.bincount(labels[labels == predicted], minlength=num_classes)
    worst: dict[int, Pair] = {}
    for pair in confused_pairs(labels, predicted):
        worst.setdefault(pair.true, pair)
    figures = [
        ClassFigures(k, int(images[k]), float(right[k] / images[k]) if images[k] else float("nan"), worst.get(k))
        for k in range(num_classes)
    ]
    return sorted(figures, key=lambda one: (one.images == 0, one.accuracy if one.images else 0, one.label))


def blocks(labels: np.ndarray, predicted: np.ndarray, num_classes: int, most: int = 200) -> np.ndarray:
    """The confusion matrix of at most `most` groups of neighbouring classes: rows as shares that sum to 1, or 0.

    Returns:
        float (m, m), m = min(K, most); group k // (K / m) holds class k.
    """
    size = min(num_classes, most)
    group = np.arange(num_classes) * size // num_classes
    counts = matrix(group[labels], group[predicted], size)
    return counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
