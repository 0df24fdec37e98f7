"""How sure a network is, beside how often it is right. Pure functions of NumPy arrays.

Sources: reliability diagram and ECE: Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, with 15 bins as
there; the gap: the paper's section 5.2 and Figure 4.
"""

import dataclasses
import math

import numpy as np

BINS = 15


@dataclasses.dataclass(frozen=True)
class Reliability:
    """A reliability diagram of M bins of confidence, each open below and closed above.

    Attributes:
        edges: float (M + 1,), from 0 to 1.
        counts: integer (M,), the images in each bin.
        confidence, accuracy: float (M,), the bin's means; NaN where it is empty.
    """

    edges: np.ndarray
    counts: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray

    def ece(self) -> float:
        """Expected calibration error: sum over the bins of n_m / N * |accuracy_m - confidence_m|, 0 … 1."""
        filled = self.counts > 0
        gaps = np.abs(self.accuracy[filled] - self.confidence[filled])
        return float((self.counts[filled] * gaps).sum() / self.counts.sum())


def reliability(confidence: np.ndarray, correct: np.ndarray, bins: int = BINS) -> Reliability:
    """The images by how sure the network is of its answer.

    Args:
        confidence: float (N,), the largest probability of each image, 0 … 1.
        correct: bool (N,), whether that class is the true one.
        bins: M, all of one width.
    """
    edges = np.linspace(0, 1, bins + 1)
    place = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, bins - 1)
    counts = np.bincount(place, minlength=bins)
    sums = (np.bincount(place, np.asarray(of, np.float64), minlength=bins) for of in (confidence, correct))
    means = (np.divide(of, counts, out=np.full(bins, np.nan), where=counts > 0) for of in sums)
    return Reliability(edges, counts, *means)


def log_probabilities(logits: np.ndarray) -> np.ndarray:
    """log softmax(z) over the last axis, float64 (N, K): z - max z - log sum exp(z - max z)."""
    shifted = np.asarray(logits, np.float64)
    shifted = shifted - shifted.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def logit_gap(logits: np.ndarray) -> np.ndarray:
    """The largest logit less the mean of the others, float64 (N,): what the paper's Figure 4 shows.

    Args:
        logits: (N, K), K at least 2.
    """
    logits = np.asarray(logits, np.float64)
    largest = logits.max(axis=-1)
    return largest - (logits.sum(axis=-1) - largest) / (logits.shape[-1] - 1)


def optimal_gap(num_classes: int, epsilon: float) -> float:
    """log((K - 1) (1 - epsilon) / epsilon): the gap at which the loss under label smoothing is least (5.2).

    Args:
        num_classes: K, at least 2.
        epsilon: of the smoothing, 0 … 1. Without smoothing the gap has no bound: infinite.
    """
    return math.log((num_classes - 1) * (1 - epsilon) / epsilon) if epsilon else math.inf


def shared_edges(samples: list[np.ndarray], most: int = 60) -> np.ndarray:
    """Edges of histograms that several samples share: of the smallest, N, they have 3 N^(1/3) bins (10 … `most`)."""
    low, high = min(float(s.min()) for s in samples), max(float(s.max()) for s in samples)
    count = int(np.clip(3 * min(map(len, samples)) ** (1 / 3), 10, most))
    return np.linspace(low, high if high > low else low + 1, count + 1)
