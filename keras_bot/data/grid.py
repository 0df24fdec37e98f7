"""A picture of what the network is shown: augmented samples with their labels, to look at before a run."""

import os
from collections.abc import Sequence

import numpy as np
import tensorflow as tf
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from keras_bot.data.color import denormalise

_SHOWN = 0.05


def sample_grid(
    dataset: tf.data.Dataset,
    class_names: Sequence[str],
    path: str | os.PathLike,
    rows: int = 4,
    columns: int = 8,
) -> None:
    """Write the first rows * columns images of a pipeline as a PNG, de-normalised, each under its label.

    Args:
        dataset: batches (images float (B, S, S, 3) normalised, labels float32 (B, K)), as from `train_pipeline`.
        class_names: K names. A mixed label is shown with the share of each class of at least 5 %.
        path: of the PNG; its folder must exist.
        rows, columns: of the grid; places stay empty if the data set has fewer images.
    """
    images, labels = _first(dataset, rows * columns)
    figure = Figure(figsize=(1.6 * columns, 1.8 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    for axes in figure.subplots(rows, columns, squeeze=False).flat:
        axes.set_axis_off()
    for axes, picture, label in zip(figure.axes, denormalise(images), labels, strict=False):
        axes.imshow(picture, interpolation="nearest")
        axes.set_title(_title(label, class_names), fontsize=7)
    figure.savefig(path, format="png", dpi=100)


def _first(dataset: tf.data.Dataset, count: int) -> tuple[np.ndarray, np.ndarray]:
    images, labels, have = [], [], 0
    for batch_images, batch_labels in dataset.as_numpy_iterator():
        images.append(batch_images)
        labels.append(batch_labels)
        have += len(batch_images)
        if have >= count:
            break
    return np.concatenate(images)[:count], np.concatenate(labels)[:count]


def _title(label: np.ndarray, class_names: Sequence[str]) -> str:
    classes = [i for i in np.argsort(-label, kind="stable") if label[i] >= _SHOWN][:3]
    if len(classes) == 1:
        return class_names[classes[0]]
    return "\n".join(f"{class_names[i]} {label[i]:.2f}" for i in classes)
