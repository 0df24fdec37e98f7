"""Statistics compared with printed tables and a sample computed by hand."""

import pytest

from keras_bot.ablation.intervals import mean_interval, paired_difference, t_quantile

TWO_SIDED_95 = """12.706 4.303 3.182 2.776 2.571 2.447 2.365 2.306 2.262 2.228 2.201 2.179 2.160 2.145 2.131
2.120 2.110 2.101 2.093 2.086 2.080 2.074 2.069 2.064 2.060 2.056 2.052 2.048 2.045 2.042"""


def test_t_quantiles_match_printed_tables():
    table = [float(value) for value in TWO_SIDED_95.split()]
    assert [round(t_quantile(degrees), 3) for degrees in range(1, 31)] == table
    assert round(t_quantile(5, 0.99), 3) == 4.032 and round(t_quantile(2, 0.9), 3) == 2.920
    assert round(t_quantile(10**7), 3) == 1.960


def test_mean_interval():
    mean, (low, high) = mean_interval([4.0, 7.0, 10.0])  # s = 3, 4.30265 * 3 / sqrt(3) = 7.45241
    assert mean == 7 and (low, high) == pytest.approx((-0.45241, 14.45241), abs=1e-5)
    assert mean_interval([0.25]) == (0.25, None)
    assert mean_interval([0.5, 0.5]) == (0.5, (0.5, 0.5))
    with pytest.raises(ValueError, match="at least one value"):
        mean_interval([])


def test_differences_are_paired_by_seed():
    """The rows differ less than the seeds do, so that only the pairs show a difference."""
    lower = {0: 0.70, 1: 0.80, 2: 0.90}
    upper = {0: 0.71, 1: 0.82, 2: 0.93, 7: 0.5}
    difference = paired_difference(upper, lower)  # differences 1, 2, 3 points: s = 1, 4.30265 / sqrt(3) = 2.48414
    assert difference["seeds"] == [0, 1, 2] and difference["mean"] == pytest.approx(0.02)
    assert difference["interval"] == pytest.approx([0.02 - 0.0248414, 0.02 + 0.0248414], abs=1e-7)
    assert difference["excludes_zero"] is False
    assert paired_difference({0: 0.71, 1: 0.81, 2: 0.911}, lower)["excludes_zero"] is True
    assert paired_difference({0: 0.69, 1: 0.79, 2: 0.889}, lower)["excludes_zero"] is True


def test_difference_over_few_common_seeds():
    assert paired_difference({1: 0.5}, {2: 0.5}) is None
    assert paired_difference({1: 0.75, 3: 0.1}, {1: 0.5}) == {
        "seeds": [1],
        "mean": 0.25,
        "interval": None,
        "excludes_zero": None,
    }
