"""Training curves of a run: reads history.csv, and plots loss, metric and learning rate over the epochs."""

import csv
import pathlib

from keras_bot.atomic_files import replacing
from keras_bot.figures import label_text, new_figure, optional_picture, plain_text, style_panel

METRIC_LABELS = {  # the same as in the headers of the flag files
    "top1": "top-1",
    "top5": "top-5",
    "map": "mAP",
    "mean_iou": "mIoU",
    "pixel_accuracy": "pixel accuracy",
}
_MAX_MARKED = 60  # curves with fewer epochs have a marker at each


def metric_label(metric: str) -> str:
    """Returns the name of a metric for tables and figures: top1 -> top-1."""
    return METRIC_LABELS.get(metric, metric)


def epoch_marker(epochs: int) -> str | None:
    """Returns the Matplotlib marker for a curve over this many epochs; None for long curves."""
    return "." if epochs < _MAX_MARKED else None


def read_history(path: pathlib.Path) -> list[dict[str, float]]:
    """Reads the rows of a history.csv, one per epoch. Raises OSError, or ValueError if it is damaged."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = [{name: float(value) for name, value in row.items()} for row in _complete_rows(csv.DictReader(file))]
    if not rows or "epoch" not in rows[0]:
        raise ValueError("it contains no epochs")
    return rows


def _complete_rows(reader):
    for row in reader:
        if None in row or None in row.values():
            raise ValueError(f"the number of columns in line {reader.line_num} differs from the header's")
        yield row


def draw_curves(history: list[dict], path: str | pathlib.Path, *, metric: str = "top1", title: str = "") -> None:
    """Writes a PNG with three panels. Only prints a warning on failure, since the run itself is saved by then.

    Args:
        history: one dict per epoch with epoch, loss, val_loss, learning_rate, val_{metric} and optionally {metric}.
        path: path of the PNG.
        metric: metric of the second panel.
        title: title above the panels.
    """
    with optional_picture(path), plain_text(), replacing(pathlib.Path(path)) as file:
        _draw(history, metric, label_text(title, 120)).savefig(file, format="png", dpi=110)


def _draw(history, metric, title):
    from matplotlib.ticker import PercentFormatter

    figure = new_figure(13, 3.8)
    panels = figure.subplots(1, 3)
    epochs = [int(row["epoch"]) for row in history]
    marker = epoch_marker(len(epochs))
    lines = (("", "tab:grey", "training (augmented)"), ("val_", "tab:blue", "evaluation"))
    for panel, quantity in zip(panels, ("loss", metric), strict=False):
        for prefix, color, label in lines:
            column = prefix + quantity
            if column in history[-1]:
                panel.plot(epochs, [row[column] for row in history], color=color, marker=marker, label=label)
        panel.set(xlabel="epoch", title=quantity)
        panel.legend(frameon=False)
    panels[1].set_title(f"{metric_label(metric)}: {history[-1][f'val_{metric}']:.2%} after epoch {epochs[-1]}")
    panels[1].yaxis.set_major_formatter(PercentFormatter(1.0))
    panels[2].plot(epochs, [row["learning_rate"] for row in history], color="tab:orange", marker=marker)
    panels[2].set(xlabel="epoch", title="learning rate (end of epoch)")
    for panel in panels:
        style_panel(panel, whole_x=True)
    figure.suptitle(title)
    return figure
