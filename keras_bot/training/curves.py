"""The picture of a run: loss, top-1 and learning rate over the epochs."""

import pathlib

from keras_bot.training.checkpoint import replacing


def draw_curves(history: list[dict], path: str | pathlib.Path, *, title: str = ""):
    """Writes a PNG of three panels.

    Args:
        history: one dict an epoch with epoch, loss, top1, val_loss, val_top1, learning_rate.
        path: where the PNG goes.
        title: stands above the panels.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 3.8), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, 3)
    epochs = [row["epoch"] for row in history]
    marker = "." if len(history) < 60 else None
    for panel, metric, label in zip(panels, ("loss", "top1"), ("loss", "top-1"), strict=False):
        panel.plot(
            epochs,
            [row[metric] for row in history],
            color="tab:grey",
            marker=marker,
            label="training (as augmented)",
        )
        panel.plot(
            epochs,
            [row[f"val_{metric}"] for row in history],
            color="tab:blue",
            marker=marker,
            label="evaluation",
        )
        panel.set(xlabel="epoch", title=label)
        panel.legend(frameon=False)
    panels[1].set_title(f"top-1: {history[-1]['val_top1']:.2%} after epoch {epochs[-1]}")
    panels[2].plot(epochs, [row["learning_rate"] for row in history], color="tab:orange", marker=marker)
    panels[2].set(xlabel="epoch", title="learning rate (at the epoch's end)")
    for panel in panels:
        panel.grid(alpha=0.3)
        panel.spines[["top", "right"]].set_visible(False)
    figure.suptitle(title)
    with replacing(pathlib.Path(path)) as file:
        figure.savefig(file, format="png", dpi=110)
