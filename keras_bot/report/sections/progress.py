"""Curves of the runs over epochs: loss, metrics, learning rate, speed."""

import math

from keras_bot.report import charts
from keras_bot.report.markup import Html, element
from keras_bot.report.run_files import Run
from keras_bot.report.text import decimal, percent
from keras_bot.training.curves import LABELS


def curves(runs: list[Run]) -> Html | None:
    """Builds one chart per quantity with all runs in it; None if no run has a history."""
    shown = {number: run for number, run in enumerate(runs) if run.history}
    if not shown:
        return None
    several = len(runs) > 1
    names = [(run.name, number, False) for number, run in shown.items()] if several else []
    kinds = [("evaluation", None if several else 0, False), ("training, on the images as augmented", None, True)]
    drawn = [_both(shown, "loss", "loss", "{:g}".format, decimal, several)]
    for metric in runs[0].metric_names:
        label = LABELS.get(metric, metric)
        drawn.append(_both(shown, metric, label, charts.tick_percent, percent, several, at_most=1.0))
    drawn.append(_one(shown, "learning_rate", "learning rate", "the learning rate at the end of each epoch", "{:g}"))
    drawn.append(_one(shown, "images_per_second", "images/s", "training images a second in each epoch", "{:,.0f}"))
    return element("div", charts.legend([*names, *kinds]), element("div", drawn, class_="grid"))


def _both(shown, column, label, format_y, in_words, several, **limit):
    """Charts a quantity in evaluation and, if the history has it, in training; None without finite values."""
    lines, ends = [], []
    for number, run in shown.items():
        told = (f"val_{column}", number, False, "evaluation"), (column, number if several else None, True, "training")
        for name, color, dashed, kind in told:
            values = run.column(name)
            if any(map(math.isfinite, values)):
                lines.append(charts.Line(f"{run.name}, {kind}", run.column("epoch"), values, color, dashed))
                ends.append(f"{run.name}, {kind}: {in_words(values[-1])}")
    if not lines:
        return None
    alt = f"{label} over the epochs; at the end {'; '.join(ends)}"
    options = {"x_label": "epoch", "whole_x": True, "y_label": label, "format_y": format_y}
    chart = charts.line_chart(lines, alt=alt, **options, **limit)
    return charts.figure(chart, f"{label.capitalize() if label == 'loss' else label} over the epochs")


def _one(shown, column, label, caption, format_y):
    lines = [
        charts.Line(run.name, run.column("epoch"), values, number)
        for number, run in shown.items()
        if any(map(math.isfinite, values := run.column(column)))
    ]
    if not lines:
        return None
    ends = "; ".join(f"{line.name}: {line.y[0]:.4g} at first, {line.y[-1]:.4g} at the end" for line in lines)
    alt = f"{caption[0].upper()}{caption[1:]}; {ends}"
    options = {"x_label": "epoch", "whole_x": True, "y_label": label, "from_zero": True, "format_y": format_y.format}
    return charts.figure(charts.line_chart(lines, alt=alt, **options), f"{caption[0].upper()}{caption[1:]}")
