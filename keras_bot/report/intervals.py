"""Means over few seeds and how far they can be trusted: Student's t, as seeds are few and their spread is unknown."""

import math
import statistics
from collections.abc import Sequence

from scipy.special import stdtrit

CONFIDENCE = 0.95


def t_quantile(degrees: int, confidence: float = CONFIDENCE) -> float:
    """The t that a Student variable of `degrees` degrees of freedom stays within, either side, with `confidence`."""
    return float(stdtrit(degrees, (1 + confidence) / 2))


def mean_interval(values: Sequence[float]) -> tuple[float, tuple[float, float] | None]:
    """The mean of a sample and its 95 % confidence interval (low, high), which one value alone doesn't have.

    Raises:
        ValueError: for no values.
    """
    if not values:
        raise ValueError("Expected at least one value, received none.")
    mean = math.fsum(values) / len(values)
    if len(values) == 1:
        return mean, None
    reach = t_quantile(len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))
    return mean, (mean - reach, mean + reach)


def paired_difference(values: dict[int, float], others: dict[int, float]) -> dict | None:
    """How much `values` are above `others`, seed by seed, over the seeds that both have; None if there are none.

    Returns:
        seeds, mean, interval ([low, high], None of one seed), excludes_zero (whether the interval does; None of one).
    """
    seeds = sorted(values.keys() & others.keys())
    if not seeds:
        return None
    mean, interval = mean_interval([values[seed] - others[seed] for seed in seeds])
    excludes_zero = None if interval is None else not interval[0] <= 0 <= interval[1]
    return {"seeds": seeds, "mean": mean, "interval": interval and list(interval), "excludes_zero": excludes_zero}
