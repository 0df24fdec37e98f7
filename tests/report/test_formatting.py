"""Numbers on the page have one format each, and unknown ones are a dash."""

import math

import pytest

from keras_bot.report.formatting import count, decimal, duration, flops, percent, plural, points


@pytest.mark.parametrize(
    ("function", "value", "text"),
    [
        (percent, 0.80199, "80.20 %"),
        (percent, 1, "100.00 %"),
        (percent, 0.0, "0.00 %"),
        (percent, None, "–"),
        (percent, math.nan, "–"),
        (percent, math.inf, "–"),
        (points, 0.01234, "+1.23"),
        (points, -0.005, "−0.50"),
        (points, 0.0, "+0.00"),
        (decimal, 1.23456, "1.235"),
        (decimal, 0, "0.000"),
        (decimal, None, "–"),
        (decimal, math.nan, "–"),
        (decimal, math.inf, "∞"),
        (count, 25576264, "25,576,264"),
        (count, 0, "0"),
        (count, None, "–"),
        (flops, 40.8e6, "40.8 M"),
        (flops, 4.331e9, "4.33 G"),
        (flops, 1e9, "1.00 G"),
        (flops, 999.9e6, "999.9 M"),
        (flops, None, "–"),
        (duration, 12.34, "12.3 s"),
        (duration, 59.9, "59.9 s"),
        (duration, 60, "1 min 0 s"),
        (duration, 1029, "17 min 9 s"),
        (duration, 3599.4, "59 min 59 s"),
        (duration, 3600, "1 h 0 min"),
        (duration, 7500, "2 h 5 min"),
        (duration, 0, "0.0 s"),
        (duration, None, "–"),
    ],
)
def test_a_number(function, value, text):
    assert function(value) == text


def test_the_number_of_decimals():
    assert decimal(1.25, 1) == "1.2" and decimal(2, 4) == "2.0000"


@pytest.mark.parametrize(("number", "text"), [(0, "0 images"), (1, "1 image"), (2000, "2,000 images")])
def test_a_count_with_its_noun(number, text):
    assert plural(number, "image") == text
