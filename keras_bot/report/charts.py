"""Charts as inline SVG, which scales, follows the page's light or dark colours, and needs no separate file."""

import dataclasses
import math
from collections.abc import Callable, Sequence

from keras_bot.report.formatting import plural
from keras_bot.report.markup import Html, element
from keras_bot.report.reliability import Reliability

WIDTH, HEIGHT = 520, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 68, 22, 20, 44
_PALETTE = 8  # number of colours in the page's style sheet
_DOTTED = 40  # lines with fewer points get dots


@dataclasses.dataclass(frozen=True)
class Line:
    """A line through points, broken at non-finite ones. `color` is a number for `color_of`; None is grey."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    color: int | None = None
    dashed: bool = False
    filled: bool = False


@dataclasses.dataclass(frozen=True)
class Mark:
    """A vertical line at `x`."""

    name: str
    x: float
    color: int | None = None
    dashed: bool = False


def color_of(number: int | None) -> str:
    """Returns the CSS colour of a run: from the palette, or a generated hue for numbers beyond it."""
    if number is None:
        return "var(--muted)"
    return f"var(--run-{number})" if number < _PALETTE else f"hsl({number * 137.5 % 360:.0f} 60% 50%)"


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Returns about `count` round numbers in low … high: multiples of 1, 2 or 5 times a power of ten."""
    raw = (high - low) / count
    power = 10 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(number * step, 12) for number in range(first, last + 1)]


def tick_percent(fraction: float) -> str:
    """Formats a fraction as an axis label without trailing zeros: 20 %, 99.5 %."""
    return f"{round(fraction * 100, 6):g} %"


@dataclasses.dataclass(frozen=True)
class _Plane:
    """The plot area of a chart: maps values to coordinates."""

    low_x: float
    high_x: float
    low_y: float
    high_y: float

    def x(self, value):
        return round(_LEFT + (value - self.low_x) / (self.high_x - self.low_x) * (WIDTH - _LEFT - _RIGHT), 2)

    def y(self, value):
        share = (value - self.low_y) / (self.high_y - self.low_y)
        return round(HEIGHT - _BOTTOM - share * (HEIGHT - _TOP - _BOTTOM), 2)

    def axes(self, x_label, y_label, format_x, format_y, whole_x=False):
        """Returns the grid, tick labels and axis labels; with `whole_x`, only integer ticks on the x axis."""
        elements = []
        for value in ticks(self.low_y, self.high_y):
            y = self.y(value)
            elements.append(element("line", x1=_LEFT, x2=WIDTH - _RIGHT, y1=y, y2=y, class_="grid"))
            elements.append(element("text", format_y(value), x=_LEFT - 6, y=y + 4, text_anchor="end"))
        for value in ticks(self.low_x, self.high_x, 6):
            if whole_x and value % 1:
                continue
            place = {"x": self.x(value), "y": HEIGHT - _BOTTOM + 17}
            elements.append(element("text", format_x(value), **place, text_anchor="middle"))
        middle = (_TOP + HEIGHT - _BOTTOM) / 2
        base = HEIGHT - _BOTTOM
        elements.append(element("line", x1=_LEFT, x2=WIDTH - _RIGHT, y1=base, y2=base, class_="axis"))
        across = {"x": (_LEFT + WIDTH - _RIGHT) / 2, "y": HEIGHT - 6, "text_anchor": "middle", "class_": "label"}
        up = {"transform": f"translate(16 {middle}) rotate(-90)", "text_anchor": "middle", "class_": "label"}
        return [*elements, element("text", x_label, **across), element("text", y_label, **up)]


def line_chart(
    lines: Sequence[Line],
    *,
    x_label: str,
    y_label: str,
    alt: str,
    marks: Sequence[Mark] = (),
    y_limits: tuple[float | None, float] = (None, math.inf),
    whole_x: bool = False,
    format_y: Callable[[float], str] = "{:g}".format,
) -> Html:
    """Draws lines over a common x axis.

    Args:
        lines: at least one with a finite point.
        x_label, y_label: axis labels.
        alt: alternative text for screen readers.
        marks: vertical lines.
        y_limits: start of the y axis (None fits it to the points) and its upper limit; no point may lie outside.
        whole_x: label only integers on the x axis.
        format_y: formats the y tick labels.
    """
    points = [(x, y) for line in lines for x, y in zip(line.x, line.y, strict=True) if math.isfinite(y)]
    xs = [x for x, _ in points] + [mark.x for mark in marks]
    start, limit = y_limits
    ys = [y for _, y in points] + ([] if start is None else [start])
    low, high = _widened(min(ys), max(ys), 0.05, start is not None)
    left, right = _widened(min(xs), max(xs), 0)
    plane = _Plane(left, right, low, min(high, limit))
    elements = plane.axes(x_label, y_label, "{:g}".format, format_y, whole_x)
    for mark in marks:
        x, ends = plane.x(mark.x), {"y1": _TOP, "y2": HEIGHT - _BOTTOM}
        kind = "mark dashed" if mark.dashed else "mark"
        style = f"stroke:{color_of(mark.color)}"
        elements.append(element("line", element("title", mark.name), x1=x, x2=x, **ends, class_=kind, style=style))
    for line in lines:
        elements += _draw(line, plane)
    return _svg(elements, alt)


def _widened(low, high, share, keep_low=False):
    """Widens a range at both ends: never below 0 for non-negative values, and never to an empty range."""
    room = (high - low) * share or (0 if high > low else abs(high) * 0.5 or 1.0)
    lower = max(low - room, 0.0) if low >= 0 else low - room
    return (low if keep_low else lower), high + room


def _draw(line, plane):
    """Draws the segments between non-finite points; the area below if filled; dots if there are few points."""
    parts: list[list[tuple[float, float]]] = [[]]
    for x, y in zip(line.x, line.y, strict=True):
        if math.isfinite(y):
            parts[-1].append((plane.x(x), plane.y(y)))
        elif parts[-1]:
            parts.append([])
    path = "".join("M" + "L".join(f"{x} {y}" for x, y in part) for part in parts if part)
    style, title = f"color:{color_of(line.color)}", element("title", line.name)
    elements = [element("path", title, d=path, class_="line dashed" if line.dashed else "line", style=style)]
    if line.filled and path:
        base = plane.y(max(plane.low_y, 0))
        closed = f"{path}L{parts[0][-1][0]} {base}L{parts[0][0][0]} {base}Z"
        elements.insert(0, element("path", d=closed, class_="area", style=style))
    elif len(line.x) < _DOTTED and not line.dashed:
        elements += [element("circle", cx=x, cy=y, r=2.5, style=style) for part in parts for x, y in part]
    return elements


def reliability_chart(diagram: Reliability, *, color: int, alt: str) -> Html:
    """Draws accuracy per confidence bin as bars, each bin's share of images at the top, and the diagonal."""
    plane = _Plane(0, 1, 0, 1)
    elements = plane.axes("confidence", "accuracy", tick_percent, tick_percent)
    total = diagram.counts.sum()
    bins = zip(diagram.edges[:-1], diagram.edges[1:], diagram.counts, diagram.accuracy, diagram.confidence, strict=True)
    for low, high, count, accuracy, confidence in bins:
        if not count:
            continue
        values = f"{plural(int(count), 'image')}, accuracy {accuracy:.1%}, mean confidence {confidence:.1%}"
        title = element("title", f"confidence {low:.0%} to {high:.0%}: {values}")
        left, width = plane.x(low) + 1, plane.x(high) - plane.x(low) - 2
        bar = {"x": left, "width": round(width, 2), "style": f"color:{color_of(color)}"}
        top, bottom = plane.y(max(accuracy, confidence)), plane.y(min(accuracy, confidence))
        height = round(HEIGHT - _BOTTOM - plane.y(accuracy), 2)
        elements += [
            element("rect", y=plane.y(accuracy), height=height, class_="bar", **bar),
            element("rect", y=top, height=round(bottom - top, 2), class_="miss", **bar),
            element("rect", title, y=_TOP, height=HEIGHT - _TOP - _BOTTOM, class_="hover", **bar),
            element("text", f"{count / total:.0%}", x=round(left + width / 2, 2), y=_TOP - 5, class_="tiny"),
        ]
    ends = {"x1": plane.x(0), "y1": plane.y(0), "x2": plane.x(1), "y2": plane.y(1)}
    return _svg([*elements, element("line", **ends, class_="diagonal")], alt)


def _svg(content, alt):
    return element("svg", *content, viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img", aria_label=alt)


def legend(entries: Sequence[tuple[str, int | None, bool]]) -> Html:
    """Builds a legend from (name, colour number, whether dashed) entries."""
    items = [
        element("li", element("span", class_="dashed" if dashed else None, style=f"color:{color_of(color)}"), name)
        for name, color, dashed in entries
    ]
    return element("ul", items, class_="legend")


def figure(chart: Html, caption: object) -> Html:
    """Wraps a chart or picture and its caption in a `<figure>`."""
    return element("figure", chart, element("figcaption", caption))
