"""Means over seeds with confidence intervals: Student's t, as seeds are few and their variance is unknown."""

import math
import statistics
from collections.abc import Sequence

from scipy.special import stdtrit

CONFIDENCE = 0.95


def t_quantile(degrees: int, confidence: float = CONFIDENCE) -> float:
    """Returns the two-sided Student t quantile for `degrees` degrees of freedom at `confidence`."""
    return float(stdtrit(degrees, (1 + confidence) / 2))


def mean_interval(values: Sequence[float]) -> tuple[float, tuple[float, float] | None]:
    """Returns the mean of a sample and its 95 % confidence interval (low, high), None for a single value.

    Raises:
        ValueError: for no values.
    """
    if not values:
        raise ValueError("A mean needs at least one value.")
    mean = math.fsum(values) / len(values)
    if len(values) == 1:
        return mean, None
    half_width = t_quantile(len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))
    return mean, (mean - half_width, mean + half_width)


def paired_difference(values: dict[int, float], others: dict[int, float]) -> dict | None:
    """Compares `values` with `others`, paired by seed, over the seeds that both have; None if there are none.

    Returns:
        seeds, mean of `values` minus `others`, interval ([low, high]) and excludes_zero (whether the interval does);
        the last two are None for one seed.
    """
    seeds = sorted(values.keys() & others.keys())
    if not seeds:
        return None
    mean, interval = mean_interval([values[seed] - others[seed] for seed in seeds])
    excludes_zero = None if interval is None else not interval[0] <= 0 <= interval[1]
    return {"seeds": seeds, "mean": mean, "interval": interval and list(interval), "excludes_zero": excludes_zero}
