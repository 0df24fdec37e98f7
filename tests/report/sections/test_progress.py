"""Each quantity has one chart with the right columns, colours and words."""

import math
import pathlib

import pytest

from keras_bot.recipe import Recipe
from keras_bot.report import charts
from keras_bot.report.run_files import RunRecord
from keras_bot.report.sections.progress import curves

METRICS = {"result": {"top1": 0.3, "top5": 0.6, "best_top1": 0.3}}
HISTORY = [
    {
        **{"epoch": 1.0, "loss": 2.0, "top1": 0.1, "val_loss": 2.5, "val_top1": 0.2, "val_top5": 0.4},
        **{"learning_rate": 0.1, "images_per_second": 10.0},
    },
    {
        **{"epoch": 2.0, "loss": 1.0, "top1": 0.3, "val_loss": 1.5, "val_top1": 0.4, "val_top5": 0.8},
        **{"learning_rate": 0.05, "images_per_second": 2000.0},
    },
]


def run(name, history=HISTORY):
    return RunRecord(name, pathlib.Path(name), Recipe(), METRICS, history)


@pytest.fixture
def drawn(monkeypatch):
    """The arguments of each chart."""
    calls = []
    monkeypatch.setattr(charts, "line_chart", lambda lines, **options: calls.append((lines, options)) or "a chart")
    return calls


def test_one_run_has_its_evaluation_in_colour_and_its_training_in_grey(drawn):
    page = curves([run("one")])
    assert [options["y_label"] for _, options in drawn] == ["loss", "top-1", "top-5", "learning rate", "images/s"]
    evaluation, training = drawn[0][0]
    assert evaluation == charts.Line("one, evaluation", [1, 2], [2.5, 1.5], 0, False)
    assert training == charts.Line("one, training", [1, 2], [2.0, 1.0], None, True)
    assert [line.name for line in drawn[2][0]] == ["one, evaluation"]  # the history has no top5 of the training
    assert page.count("<figcaption>") == 5 and "<figcaption>Loss by epoch</figcaption>" in page
    legend = page[: page.index("</ul>")]
    assert "evaluation" in legend and "training, on augmented images" in legend and "one" not in legend


def test_several_runs_have_a_colour_each_by_their_place(drawn):
    page = curves([run("none", []), run("one"), run("two")])
    lines = drawn[1][0]
    assert [(line.name, line.color, line.dashed) for line in lines] == [
        ("one, evaluation", 1, False),
        ("one, training", 1, True),
        ("two, evaluation", 2, False),
        ("two, training", 2, True),
    ]
    assert [line.color for line in drawn[3][0]] == [1, 2]
    legend = page[: page.index("</ul>")]
    assert legend.index("one") < legend.index("two") < legend.index("evaluation") and "none" not in legend


def test_the_charts_are_described_in_words(drawn):
    curves([run("one")])
    alts = [options["alt"] for _, options in drawn]
    assert alts[0] == "Loss by epoch; at the end: one, evaluation: 1.500; one, training: 1.000"
    assert alts[1] == "top-1 by epoch; at the end: one, evaluation: 40.00 %; one, training: 30.00 %"
    assert alts[3] == "Learning rate at the end of each epoch; one: 0.1 at first, 0.05 at the end"
    assert alts[4] == "Training images per second in each epoch; one: 10 at first, 2000 at the end"


def test_the_axes_of_each_chart(drawn):
    curves([run("one")])
    options = [options for _, options in drawn]
    assert [each.get("y_limits") for each in options] == [None, (None, 1.0), (None, 1.0), (0, math.inf), (0, math.inf)]
    assert {each["x_label"] for each in options} == {"epoch"} and all(each["whole_x"] for each in options)
    assert [each["format_y"](value) for each, value in zip(options, (1.5, 0.2, 0.2, 0.05, 2000), strict=True)] == [
        *("1.5", "20 %", "20 %", "0.05", "2,000"),
    ]


def test_columns_without_numbers_have_no_chart(drawn):
    history = [{"epoch": 1.0, "loss": 2.0, "val_loss": math.nan}]
    page = curves([run("one", history)])
    assert len(drawn) == 1 and [line.name for line in drawn[0][0]] == ["one, training"]
    assert page.count("<figcaption>") == 1


def test_runs_without_a_history_have_no_section():
    assert curves([run("one", []), run("two", [])]) is None
