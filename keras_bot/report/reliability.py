"""Calibration: confidence compared with accuracy. Pure functions of NumPy arrays.

Sources: Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, for the reliability diagram and the expected
calibration error (ECE) with 15 bins; section 5.2 and Figure 4 of the paper for the gap between logits.
"""

import dataclasses
import math

import numpy as np

BINS = 15


@dataclasses.dataclass(frozen=True)
class Reliability:
    """A reliability diagram of M confidence bins, each open below and closed above.

    Attributes:
        edges: float (M + 1,), from 0 to 1.
        counts: integer (M,), number of images per bin.
        confidence, accuracy: float (M,), means per bin; NaN for empty bins.
    """

    edges: np.ndarray
    counts: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray

    def ece(self) -> float:
        """Returns the expected calibration error: sum over the bins of n_m / N * |accuracy_m - confidence_m|, 0 … 1."""
        filled = self.counts > 0
        gaps = np.abs(self.accuracy[filled] - self.confidence[filled])
        return float((self.counts[filled] * gaps).sum() / self.counts.sum())


def reliability(confidence: np.ndarray, correct: np.ndarray, bins: int = BINS) -> Reliability:
    """Bins images by the confidence of their prediction.

    Args:
        confidence: float (N,), the largest probability of each image, 0 … 1.
        correct: bool (N,), whether that class is the true one.
        bins: M, all of equal width.
    """
    edges = np.linspace(0, 1, bins + 1)
    place = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, bins - 1)
    counts = np.bincount(place, minlength=bins)
    sums = (np.bincount(place, np.asarray(of, np.float64), minlength=bins) for of in (confidence, correct))
    means = (np.divide(of, counts, out=np.full(bins, np.nan), where=counts > 0) for of in sums)
    return Reliability(edges, counts, *means)


def log_probabilities(logits: np.ndarray) -> np.ndarray:
    """Returns log softmax(z) over the last axis, float64 (N, K): z - max z - log sum exp(z - max z)."""
    shifted = np.asarray(logits, np.float64)
    shifted = shifted - shifted.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def logit_gap(logits: np.ndarray) -> np.ndarray:
    """Returns the largest logit minus the mean of the others, float64 (N,), as in the paper's Figure 4.

    Args:
        logits: (N, K), K at least 2.
    """
    logits = np.asarray(logits, np.float64)
    largest = logits.max(axis=-1)
    return largest - (logits.sum(axis=-1) - largest) / (logits.shape[-1] - 1)


def optimal_gap(num_classes: int, epsilon: float) -> float:
    """Returns log((K - 1) (1 - epsilon) / epsilon), the gap that minimises the label-smoothing loss (section 5.2).

    Args:
        num_classes: K, at least 2.
        epsilon: label smoothing, 0 … 1. At 0 the optimal gap is infinite.
    """
    return math.log((num_classes - 1) * (1 - epsilon) / epsilon) if epsilon else math.inf


def shared_edges(samples: list[np.ndarray], most: int = 60) -> np.ndarray:
    """Returns shared histogram edges for several samples: 3 N^(1/3) bins (10 … `most`), N being the smallest size."""
    low, high = min(float(s.min()) for s in samples), max(float(s.max()) for s in samples)
    count = int(np.clip(3 * min(map(len, samples)) ** (1 / 3), 10, most))
    return np.linspace(low, high if high > low else low + 1, count + 1)
