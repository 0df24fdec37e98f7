"""Plots of an ablation: the metric by row and by epoch."""

import io
from typing import Any

from keras_bot.figures import label_text, new_figure, plain_text, style_panel
from keras_bot.training.curves import epoch_marker, metric_label

_CYCLE = 10  # colours in Matplotlib's cycle
_STYLES = ("-", "--", ":", "-.")


@plain_text()
def draw_table(summary: dict) -> bytes:
    """Draws a PNG of each row's mean with its interval, its seeds, and the paper's value if the row has one.

    Args:
        summary: as returned by `results.summarise`.
    """
    rows = summary["rows"]
    figure = new_figure(8, 1.3 + 0.42 * len(rows))
    panel = figure.subplots()
    for place, row in enumerate(rows):
        _draw_row(panel, place, row)
    for place, row in enumerate(rows):
        if row["paper"] is not None:
            panel.plot(100 * row["paper"], place, "x", color="tab:red", markersize=8, label="paper", zorder=4)
    panel.set_yticks(range(len(rows)), [label_text(row["name"]) for row in rows])
    panel.set_ylim(len(rows) - 0.4, -0.6)
    left, right = panel.get_xlim()
    panel.set_xlim(max(left, 0), min(right, 100.5))  # intervals over two seeds can exceed the range of the metric
    panel.set(xlabel=f"{metric_label(summary['metric'])} after the last epoch (%)")
    style_panel(panel, grid="x")
    handles, labels = panel.get_legend_handles_labels()
    _legend(panel, dict(zip(labels, handles, strict=True)))
    return _png(figure)


def _draw_row(panel, place, row):
    values = [100 * value for value in row["values"]]
    if values:
        panel.plot(values, [place + 0.2] * len(values), "o", color="tab:grey", markersize=3, label="single seed")
    if row["mean"] is None:
        state = "failed" if row["failed"] else "not finished"
        panel.annotate(state, (0.02, place), xycoords=("axes fraction", "data"))
        return
    half_width = 50 * (row["interval"][1] - row["interval"][0]) if row["interval"] else 0.0
    label = "mean, 95 % interval" if row["interval"] else "mean"
    style = {"fmt": "D", "color": "tab:blue", "capsize": 4, "markersize": 6}
    panel.errorbar(100 * row["mean"], place, xerr=half_width or None, label=label, **style)


@plain_text()
def draw_mean_curves(summary: dict, curves: dict[str, list[tuple[float, float, float]]]) -> bytes:
    """Draws a PNG of each row's mean by epoch, with a band from the lowest seed to the highest.

    Args:
        summary: as returned by `results.summarise`.
        curves: as returned by `results.mean_curves`.
    """
    figure = new_figure(9, 5)
    panel = figure.subplots()
    lines = {}
    for index, (name, curve) in enumerate(curves.items()):
        epochs = range(1, len(curve) + 1)
        mean, low, high = ([100 * value for value in values] for values in zip(*curve, strict=True))
        style: dict[str, Any] = {"color": f"C{index % _CYCLE}", "linestyle": _STYLES[index // _CYCLE % len(_STYLES)]}
        (lines[name],) = panel.plot(epochs, mean, marker=epoch_marker(len(curve)), **style)
        panel.fill_between(epochs, low, high, color=style["color"], alpha=0.15, linewidth=0)
    panel.set(xlabel="epoch", ylabel=f"{metric_label(summary['metric'])} on the evaluation set (%)")
    several = any(len(row["seeds"]) > 1 for row in summary["rows"])
    panel.set_title("mean over seeds; band: lowest to highest seed" if several else "one seed", fontsize="medium")
    style_panel(panel, whole_x=True)
    _legend(panel, lines)
    return _png(figure)


def _legend(panel, handles):
    """Draws a legend of artists by name outside the panel, where it hides nothing.

    The names are set afterwards because Matplotlib omits labels that begin with an underscore.
    """
    if handles:
        place = {"frameon": False, "loc": "center left", "bbox_to_anchor": (1.0, 0.5)}
        legend = panel.legend(handles.values(), [""] * len(handles), **place)
        for text, name in zip(legend.get_texts(), handles, strict=True):
            text.set_text(label_text(name))


def _png(figure):
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=110)
    return content.getvalue()
