"""Training curves of a run: loss, metric and learning rate over the epochs."""

import pathlib

from keras_bot.atomic_files import replacing
from keras_bot.figures import label_text, optional_picture, plain_text

LABELS = {  # metric names, the same as in the headers of the flag files
    "top1": "top-1",
    "top5": "top-5",
    "map": "mAP",
    "mean_iou": "mIoU",
    "pixel_accuracy": "pixel accuracy",
}


def draw_curves(history: list[dict], path: str | pathlib.Path, *, metric: str = "top1", title: str = ""):
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
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

    figure = Figure(figsize=(13, 3.8), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, 3)
    epochs = [row["epoch"] for row in history]
    marker = "." if len(history) < 60 else None
    lines = (("", "tab:grey", "training (as augmented)"), ("val_", "tab:blue", "evaluation"))
    for panel, shown in zip(panels, ("loss", metric), strict=False):
        for prefix, color, label in lines:
            if prefix + shown in history[-1]:
                panel.plot(epochs, [row[prefix + shown] for row in history], color=color, marker=marker, label=label)
        panel.set(xlabel="epoch", title=shown)
        panel.legend(frameon=False)
    panels[1].set_title(f"{LABELS.get(metric, metric)}: {history[-1][f'val_{metric}']:.2%} after epoch {epochs[-1]}")
    panels[2].plot(epochs, [row["learning_rate"] for row in history], color="tab:orange", marker=marker)
    panels[2].set(xlabel="epoch", title="learning rate (at the epoch's end)")
    for panel in panels:
        panel.grid(alpha=0.3)
        panel.spines[["top", "right"]].set_visible(False)
        panel.xaxis.get_major_locator().set_params(integer=True)
    panels[1].yaxis.set_major_formatter(PercentFormatter(1.0))
    figure.suptitle(title)
    return figure
