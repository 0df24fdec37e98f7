"""The tables of calibration and of the logit gap have exact numbers; the charts get the right data."""

import dataclasses
import math
import pathlib

import numpy as np
import pytest
from html_tables import read_tables

from keras_bot.recipe import Recipe
from keras_bot.report import charts
from keras_bot.report.predictions import Predictions
from keras_bot.report.run_files import RunRecord
from keras_bot.report.sections import calibration as section
from keras_bot.report.sections.calibration import calibration, gaps

CORRECT = Predictions(
    "flowers eval",
    ("a", "b", "c"),
    labels=np.array([0, 1, 2, 0], "int32"),
    predicted=np.array([0, 1, 1, 0], "int32"),
    confidence=np.array([0.95, 0.55, 0.55, 0.95], "float32"),
    true_probability=np.array([0.95, 0.55, 0.1, 0.95], "float32"),
    rank=np.array([0, 0, 5, 0], "int32"),
    gap=np.array([1.0, 2.0, 3.0, 6.0], "float32"),
    loss=np.array([0.5, 1.0, 2.0, 0.5], "float32"),
)


def run(name, predictions=CORRECT, **fields):
    return RunRecord(name, pathlib.Path(name), Recipe(**fields), {}, [], predictions=predictions)


@pytest.fixture
def drawn(monkeypatch):
    """The arguments of each chart."""
    calls = []
    for name in ("reliability_chart", "line_chart"):
        monkeypatch.setattr(
            charts, name, lambda *args, name=name, **options: calls.append((name, args, options)) or "chart"
        )
    return calls


def test_the_calibration_of_each_run(drawn):
    page = calibration([run("none", None), run("one")])
    (found,) = read_tables(page)
    assert found.head == [
        *("run", "images", "top-1", "top-5", "mean confidence", "confidence − top-1 (points)", "ECE", "NLL"),
    ]
    # two images with 0.95, both right, and two with 0.55, one of them right: (2 * 0.05 + 2 * 0.05) / 4
    assert found.rows == [["one", "4", "75.00 %", "75.00 %", "75.00 %", "+0.00", "5.00 %", "1.0000"]]
    ((name, (diagram,), options),) = drawn
    assert name == "reliability_chart" and options["color"] == 1 and diagram.counts.sum() == 4
    assert "one: ECE 5.00 %, mean confidence 75.00 %, top-1 75.00 %. Bars: accuracy of the bin" in page
    assert options["alt"] == "Reliability diagram of one: ECE 5.00 %, mean confidence 75.00 %, top-1 75.00 %. "


def test_the_networks_and_images_are_named(drawn):
    other = dataclasses.replace(CORRECT, source="birds", unreadable=("x", "y"))
    page = calibration([run("one"), run("two", other), run("three")])
    assert (
        "model.keras of one, three on flowers eval; "
        "model.keras of two (without 2 images that could not be decoded) on birds." in page
    )
    assert "over 15 confidence bins" in page


def test_the_gaps_of_each_run(drawn):
    (found,) = read_tables(gaps([run("none", None), run("one"), run("two", label_smoothing=0.1)]))
    assert found.head == ["run", "classes", "label smoothing ε", "mean gap", "standard deviation", "optimal gap for ε"]
    best = math.log(2 * 0.9 / 0.1)
    deviation = np.std([1, 2, 3, 6])
    assert found.rows == [
        ["one", "3", "0", "3.000", f"{deviation:.3f}", "∞"],
        ["two", "3", "0.1", "3.000", f"{deviation:.3f}", f"{best:.3f}"],
    ]
    ((name, (lines,), options),) = drawn
    assert name == "line_chart" and [(line.name, line.color, line.filled) for line in lines] == [
        ("one", 1, True),
        ("two", 2, True),
    ]
    marks = [(mark.name, mark.x, mark.color, mark.dashed) for mark in options["marks"]]
    assert marks == [
        ("one: mean gap 3.00", 3.0, 1, True),
        ("two: mean gap 3.00", 3.0, 2, True),
        (f"two: optimal gap {best:.2f}", pytest.approx(best), 2, False),
    ]
    assert options["y_limits"] == (0, math.inf) and options["alt"].endswith("; ".join(mark[0] for mark in marks))


def test_the_density_integrates_to_1_and_starts_and_ends_at_0(drawn):
    gaps([run("one")])
    line = drawn[0][1][0][0]
    edges = section.shared_edges([CORRECT.gap])
    assert line.x[0] == edges[0] and line.x[-1] == edges[-1] and line.y[0] == line.y[-1] == 0
    np.testing.assert_allclose(line.x[1:-1], (edges[1:] + edges[:-1]) / 2)
    assert np.sum(line.y[1:-1] * np.diff(edges)) == pytest.approx(1)


def test_the_legend_and_the_captions_follow_the_runs(drawn):
    one, two = gaps([run("one")]), gaps([run("one"), run("two", label_smoothing=0.1)])
    assert "legend" not in one and "Solid vertical line" not in one and "Dashed line: mean." in one
    assert "legend" in two and "Solid vertical line: optimum for the label smoothing." in two


@pytest.mark.parametrize(
    ("fields", "noted"),
    [
        ({"label_smoothing": 0.1, "mixup_alpha": 0.2}, True),
        ({"label_smoothing": 0.1, "teacher": "t"}, True),
        ({"label_smoothing": 0.1}, False),
        ({"mixup_alpha": 0.2}, False),
    ],
    ids=str,
)
def test_other_targets_are_noted(fields, noted, drawn):
    assert ("Mixup or distillation (one) also changes the targets" in gaps([run("one", **fields)])) is noted
