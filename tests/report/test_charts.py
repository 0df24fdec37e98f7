"""Charts map values to the right coordinates: x grows to the right, y upwards, and nothing leaves the plot area."""

import math
import re

import numpy as np
import pytest

from keras_bot.report import charts
from keras_bot.report.charts import (
    Line,
    Mark,
    color_of,
    figure,
    legend,
    line_chart,
    reliability_chart,
    tick_percent,
    ticks,
)
from keras_bot.report.reliability import reliability

LEFT, RIGHT, TOP, BOTTOM = 68, 520 - 22, 20, 300 - 44  # corners of the plot area


def draw(lines, **options):
    return line_chart(lines, **{"x_label": "epoch", "y_label": "loss", "alt": "a chart", **options})


def attributes(svg, tag, kind):
    """Returns the attributes of each element with this tag and class."""
    found = re.findall(rf'<{tag} ([^>]*class="{kind}"[^>]*)>', svg)
    return [dict(re.findall(r'([\w-]+)="([^"]*)"', text)) for text in found]


def path_points(svg, kind="line"):
    """Returns the points of each segment of the first path."""
    path = attributes(svg, "path", kind)[0]["d"]
    return [[tuple(map(float, point.split())) for point in part.split("L")] for part in path.split("M")[1:]]


def test_the_corners_of_the_data_are_the_corners_of_the_plot():
    svg = draw([Line("a", [1, 2, 3], [0.0, 5.0, 10.0])], y_limits=(0, 10.0))
    assert path_points(svg) == [[(LEFT, BOTTOM), ((LEFT + RIGHT) / 2, (TOP + BOTTOM) / 2), (RIGHT, TOP)]]


def test_the_y_axis_has_room_above_and_below():
    ((low, _, high),) = path_points(draw([Line("a", [1, 2, 3], [10.0, 15.0, 20.0])]))
    assert low[1] == pytest.approx(BOTTOM - (BOTTOM - TOP) * 0.5 / 11, abs=0.01)  # from 9.5 to 20.5
    assert high[1] == pytest.approx(TOP + (BOTTOM - TOP) * 0.5 / 11, abs=0.01)


def test_non_negative_values_have_an_axis_from_0_at_least():
    ((first, _),) = path_points(draw([Line("a", [1, 2], [0.1, 10.0])]))
    assert first[1] == pytest.approx(BOTTOM - (BOTTOM - TOP) * 0.1 / 10.495, abs=0.01)


def test_the_given_start_of_the_axis_is_kept():
    ((first, last),) = path_points(draw([Line("a", [1, 2], [5.0, 10.0])], y_limits=(0, math.inf)))
    assert first[1] == pytest.approx(BOTTOM - (BOTTOM - TOP) * 5 / 10.5, abs=0.01)
    assert last[1] == pytest.approx(BOTTOM - (BOTTOM - TOP) * 10 / 10.5, abs=0.01)


@pytest.mark.parametrize(("value", "share"), [(2.0, 0.5), (0.0, 0.0), (-2.0, 0.5)])
def test_a_constant_has_an_axis_too(value, share):
    ((first, _),) = path_points(draw([Line("a", [1, 2], [value, value])]))
    assert first[1] == pytest.approx(BOTTOM - (BOTTOM - TOP) * share, abs=0.01)


def test_lines_are_broken_at_values_that_are_not_finite():
    y = [math.nan, 1.0, 2.0, math.inf, math.nan, 3.0]
    assert [len(part) for part in path_points(draw([Line("a", range(6), y)]))] == [2, 1]


def test_lines_have_names_colours_and_dashes():
    svg = draw([Line("a<b", [1, 2], [1, 2], 3), Line("c", [1, 2], [2, 3], None, dashed=True)])
    assert [path["style"] for path in attributes(svg, "path", "line")] == ["color:var(--run-3)"]
    assert [path["style"] for path in attributes(svg, "path", "line dashed")] == ["color:var(--muted)"]
    assert "<title>a&lt;b</title>" in svg and "<title>c</title>" in svg
    assert svg.count("<circle") == 2  # of the line that is not dashed


@pytest.mark.parametrize(("points", "dots"), [(39, 39), (40, 0)])
def test_short_lines_have_dots(points, dots):
    assert draw([Line("a", range(points), range(points))]).count("<circle") == dots


def test_a_filled_line_has_an_area_down_to_zero():
    svg = draw([Line("a", [0, 1, 2], [1.0, 2.0, 1.0], 0, filled=True)], y_limits=(0, 2.0))
    path = attributes(svg, "path", "area")[0]["d"]
    middle = (TOP + BOTTOM) / 2
    assert (
        path.endswith(f"L{float(RIGHT)} {float(BOTTOM)}L{float(LEFT)} {float(BOTTOM)}Z")
        and f"M{float(LEFT)} {middle}" in path
    )
    assert svg.index('class="area"') < svg.index('class="line"') and "<circle" not in svg


def test_marks_are_vertical_lines_within_the_axis():
    marks = [Mark("optimum", 5.0, 1), Mark("mean", 1.0, 2, dashed=True)]
    svg = draw([Line("a", [0, 3], [1, 2])], marks=marks)
    solid, dashed = (attributes(svg, "line", kind)[0] for kind in ("mark", "mark dashed"))
    assert (float(solid["x1"]), float(solid["x2"])) == (RIGHT, RIGHT)  # the axis reaches to the mark
    assert float(dashed["x1"]) == LEFT + (RIGHT - LEFT) / 5 and dashed["style"] == "stroke:var(--run-2)"
    assert (float(solid["y1"]), float(solid["y2"])) == (TOP, BOTTOM) and "<title>optimum</title>" in svg


def labels(svg, anchor):
    return re.findall(rf'text-anchor="{anchor}">([^<]*)</text>', svg)


def test_the_axes_have_labels_and_round_ticks():
    svg = draw([Line("a", [0, 6], [0.0, 1.0])], y_limits=(0, 1.0), format_y=tick_percent)
    assert labels(svg, "end") == ["0 %", "20 %", "40 %", "60 %", "80 %", "100 %"]
    assert labels(svg, "middle") == ["0", "1", "2", "3", "4", "5", "6"]
    assert len(attributes(svg, "line", "grid")) == 6 and len(attributes(svg, "line", "axis")) == 1
    assert [text["x"] for text in attributes(svg, "text", "label") if "x" in text] == [str((LEFT + RIGHT) / 2)]
    assert re.findall(r'class="label">(\w+)<', svg) == ["epoch", "loss"]
    assert 'viewBox="0 0 520 300" role="img" aria-label="a chart"' in svg


@pytest.mark.parametrize(("whole", "shown"), [(True, ["1", "2"]), (False, ["1", "1.2", "1.4", "1.6", "1.8", "2"])])
def test_epochs_are_whole_numbers(whole, shown):
    assert labels(draw([Line("a", [1, 2], [0, 1])], whole_x=whole), "middle") == shown


@pytest.mark.parametrize(
    ("low", "high", "count", "expected"),
    [
        (0, 1, 5, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (0, 10, 5, [0, 2, 4, 6, 8, 10]),
        (1, 4, 6, [1, 1.5, 2, 2.5, 3, 3.5, 4]),
        (0.93, 1.0, 5, [0.94, 0.96, 0.98, 1.0]),
        (-3, 3, 5, [-2, 0, 2]),
        (0, 1200, 6, [0, 200, 400, 600, 800, 1000, 1200]),
    ],
)
def test_ticks_are_multiples_of_1_2_or_5(low, high, count, expected):
    assert ticks(low, high, count) == pytest.approx(expected)


@pytest.mark.parametrize(("fraction", "text"), [(0.2, "20 %"), (0.995, "99.5 %"), (1, "100 %"), (0.1 + 0.2, "30 %")])
def test_a_fraction_as_an_axis_label(fraction, text):
    assert tick_percent(fraction) == text


@pytest.mark.parametrize(
    ("number", "color"),
    [(None, "var(--muted)"), (0, "var(--run-0)"), (7, "var(--run-7)"), (8, "hsl(20 60% 50%)"), (9, "hsl(158 60% 50%)")],
)
def test_the_colour_of_a_run(number, color):
    assert color_of(number) == color


def test_a_legend_names_each_line():
    assert legend([("a<", 1, False), ("b", None, True)]) == (
        '<ul class="legend"><li><span style="color:var(--run-1)"></span>a&lt;</li>'
        '<li><span class="dashed" style="color:var(--muted)"></span>b</li></ul>'
    )


def test_a_figure_has_a_caption():
    assert figure("x", "y") == "<figure>x<figcaption>y</figcaption></figure>"


def test_the_bars_of_a_reliability_diagram():
    confidence, correct = np.array([0.95, 0.99, 0.99, 0.31]), np.array([True, False, True, True])
    svg = reliability_chart(reliability(confidence, correct), color=2, alt="a diagram")
    bars, misses = attributes(svg, "rect", "bar"), attributes(svg, "rect", "miss")
    width, height = RIGHT - LEFT, BOTTOM - TOP
    assert [float(bar["x"]) for bar in bars] == pytest.approx(
        [LEFT + width * 4 / 15 + 1, LEFT + width * 14 / 15 + 1], abs=0.02
    )
    assert [float(bar["height"]) for bar in bars] == pytest.approx([height, height * 2 / 3], abs=0.02)
    assert [float(bar["y"]) for bar in bars] == pytest.approx([TOP, BOTTOM - height * 2 / 3], abs=0.02)
    gaps = [1 - 0.31, (0.95 + 0.99 + 0.99) / 3 - 2 / 3]
    assert [float(miss["height"]) for miss in misses] == pytest.approx([height * gap for gap in gaps], abs=0.03)
    assert {bar["style"] for bar in bars} == {"color:var(--run-2)"}
    assert re.findall(r'class="tiny">([^<]*)<', svg) == ["25%", "75%"]
    assert "confidence 93% to 100%: 3 images, accuracy 66.7%, mean confidence 97.7%" in svg
    assert "confidence 27% to 33%: 1 image, accuracy 100.0%, mean confidence 31.0%" in svg
    diagonal = attributes(svg, "line", "diagonal")[0]
    assert [float(diagonal[name]) for name in ("x1", "y1", "x2", "y2")] == [LEFT, BOTTOM, RIGHT, TOP]
    assert charts.WIDTH == 520 and 'aria-label="a diagram"' in svg
