"""Curves of the runs over epochs: loss, metrics, learning rate, speed."""

import math

from keras_bot.report import charts
from keras_bot.report.formatting import decimal, percent
from keras_bot.report.markup import Html, element
from keras_bot.report.run_files import RunRecord
from keras_bot.training.curves import metric_label


def curves(runs: list[RunRecord]) -> Html | None:
    """Builds one chart per quantity with all runs in it; None if no run has a history."""
    numbered = {number: run for number, run in enumerate(runs) if run.history}
    if not numbered:
        return None
    several = len(runs) > 1
    names = [(run.name, number, False) for number, run in numbered.items()] if several else []
    kinds = [("evaluation", None if several else 0, False), ("training, on augmented images", None, True)]
    figures = [
        _both(numbered, "loss", "loss", "{:g}".format, decimal, several),
        *(
            _both(numbered, metric, metric_label(metric), charts.tick_percent, percent, several, y_limits=(None, 1.0))
            for metric in runs[0].metric_names
        ),
        _one(numbered, "learning_rate", "learning rate", "Learning rate at the end of each epoch", "{:g}"),
        _one(numbered, "images_per_second", "images/s", "Training images per second in each epoch", "{:,.0f}"),
    ]
    return element("div", charts.legend([*names, *kinds]), element("div", figures, class_="grid"))


def _both(numbered, column, label, format_y, in_words, several, **limit):
    """Charts a quantity in evaluation and, if the history has it, in training; None without finite values."""
    lines, ends = [], []
    for number, run in numbered.items():
        training_color = number if several else None
        parts = (f"val_{column}", number, False, "evaluation"), (column, training_color, True, "training")
        for name, color, dashed, kind in parts:
            values = run.column(name)
            if any(map(math.isfinite, values)):
                lines.append(charts.Line(f"{run.name}, {kind}", run.column("epoch"), values, color, dashed))
                ends.append(f"{run.name}, {kind}: {in_words(values[-1])}")
    if not lines:
        return None
    caption = f"{label.capitalize() if label == 'loss' else label} by epoch"
    alt = f"{caption}; at the end: {'; '.join(ends)}"
    options = {"x_label": "epoch", "whole_x": True, "y_label": label, "format_y": format_y}
    return charts.figure(charts.line_chart(lines, alt=alt, **options, **limit), caption)


def _one(numbered, column, label, caption, format_y):
    """Charts a column of the history; None without finite values."""
    lines = [
        charts.Line(run.name, run.column("epoch"), values, number)
        for number, run in numbered.items()
        if any(map(math.isfinite, values := run.column(column)))
    ]
    if not lines:
        return None
    ends = "; ".join(f"{line.name}: {line.y[0]:.4g} at first, {line.y[-1]:.4g} at the end" for line in lines)
    options = {
        "x_label": "epoch",
        "whole_x": True,
        "y_label": label,
        "y_limits": (0, math.inf),
        "format_y": format_y.format,
    }
    return charts.figure(charts.line_chart(lines, alt=f"{caption}; {ends}", **options), caption)
