"""Plots show each row's values in percent at its place, and say what is missing."""

import pytest

from keras_bot.ablation import plots
from keras_bot.ablation.plots import draw_mean_curves, draw_table


def row(name, values=(), interval=None, paper=None, failed=()):
    mean = sum(values) / len(values) if values else None
    facts = {"values": list(values), "mean": mean, "interval": interval, "paper": paper, "failed": dict(failed)}
    return {"name": name, "seeds": list(range(len(values))), **facts}


ROWS = [
    row("base", (0.5, 0.7), [0.55, 0.65], paper=0.62),
    row("one", (0.4,)),
    row("none"),
    row("bad", failed={"0": "x"}),
]
SUMMARY = {"metric": "top1", "rows": ROWS}


@pytest.fixture(autouse=True)
def figures(monkeypatch):
    """Makes the functions return the figure instead of a PNG."""
    monkeypatch.setattr(plots, "_png", lambda figure: figure)


def test_the_table_has_one_line_per_row_from_the_top():
    panel = draw_table(SUMMARY).axes[0]
    assert [label.get_text() for label in panel.get_yticklabels()] == ["base", "one", "none", "bad"]
    bottom, top = panel.get_ylim()
    assert (bottom, top) == (3.6, -0.6)
    assert panel.get_xlabel() == "top-1 after the last epoch (%)"


def test_the_table_shows_seeds_means_intervals_and_the_papers_value():
    panel = draw_table(SUMMARY).axes[0]
    points = {}
    for line in panel.lines:
        points.setdefault(line.get_marker(), []).append((list(line.get_xdata()), list(line.get_ydata())))
    assert points["o"] == [([50, 70], [0.2, 0.2]), ([40], [1.2])]
    assert [(pytest.approx(x), y) for x, y in points["D"]] == [([60.0], [0]), ([40.0], [1])]
    assert points["x"] == [([62], [0])]
    segments = [line for bars in panel.collections for line in bars.get_segments()]
    assert [[pytest.approx(end[0]) for end in line] for line in segments] == [[55, 65]]
    texts = {text.get_text(): text.xy for text in panel.texts}
    assert texts == {"not finished": (0.02, 2), "failed": (0.02, 3)}


def test_the_legend_of_the_table_has_each_kind_once():
    panel = draw_table(SUMMARY).axes[0]
    names = [text.get_text() for text in panel.get_legend().get_texts()]
    assert names == ["single seed", "paper", "mean, 95 % interval", "mean"]


def test_the_axis_stays_within_the_range_of_the_metric():
    left, right = draw_table({"metric": "top1", "rows": [row("a", (0.5, 0.9), [-0.4, 1.8])]}).axes[0].get_xlim()
    assert (left, right) == (0, 100.5)


def test_a_table_without_results_has_no_legend():
    assert draw_table({"metric": "map", "rows": [row("none")]}).axes[0].get_legend() is None


CURVES = {"base": [(0.2, 0.1, 0.3), (0.4, 0.3, 0.6)], "_one": [(0.5, 0.5, 0.5)]}


def test_the_curves_are_means_by_epoch_with_a_band():
    panel = draw_mean_curves(SUMMARY, CURVES).axes[0]
    base, one = panel.lines
    assert (list(base.get_xdata()), list(base.get_ydata())) == ([1, 2], [20, 40])
    assert (list(one.get_xdata()), list(one.get_ydata())) == ([1], [50])
    band = panel.collections[0].get_paths()[0].vertices
    assert {(x, round(y)) for x, y in band} == {(1, 10), (2, 30), (1, 30), (2, 60)}
    assert (panel.get_xlabel(), panel.get_ylabel()) == ("epoch", "top-1 on the evaluation set (%)")
    assert [text.get_text() for text in panel.get_legend().get_texts()] == ["base", "_one"]


@pytest.mark.parametrize(
    ("rows", "title"),
    [(ROWS, "mean over seeds; band: lowest to highest seed"), ([row("a", (0.5,))], "one seed")],
)
def test_the_title_explains_the_band(rows, title):
    assert draw_mean_curves({"metric": "top1", "rows": rows}, CURVES).axes[0].get_title() == title


def test_more_rows_than_colours_have_other_line_styles():
    curves = {str(index): [(0.5, 0.5, 0.5)] for index in range(21)}
    lines = draw_mean_curves(SUMMARY, curves).axes[0].lines
    assert [lines[index].get_linestyle() for index in (0, 9, 10, 20)] == ["-", "-", "--", ":"]
    assert lines[0].get_color() == lines[10].get_color() == "C0" and lines[1].get_color() == "C1"
