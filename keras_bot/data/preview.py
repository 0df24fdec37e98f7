"""Image grid of augmented samples with their labels, for inspection before a run."""

import io
import os
import pathlib
from collections.abc import Sequence

import numpy as np
import tensorflow as tf
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from keras_bot.atomic_files import write_atomically
from keras_bot.data.augment.color import denormalise
from keras_bot.figures import label_text, plain_text

_SHOWN = 0.05
_WIDTH = 24  # characters of a class name, about the width of an image


def sample_grid(
    dataset: tf.data.Dataset,
    class_names: Sequence[str],
    path: str | os.PathLike,
    rows: int = 4,
    columns: int = 8,
) -> None:
    """Saves the first rows * columns images of a pipeline as a PNG, denormalised and titled with their labels.

    Args:
        dataset: batches (images float (B, S, S, 3) normalised, labels float32 (B, K)), as from `train_pipeline`.
        class_names: K names. A mixed label shows up to three classes with a share of at least 5 % each.
        path: path of the PNG; its folder must exist.
        rows, columns: size of the grid; cells stay empty if the data set has fewer images.

    Raises:
        RunError: the file cannot be written.
    """
    images, labels = _first_images(dataset, rows * columns)
    titles = [_title(label, class_names) for label in labels]
    write_atomically(pathlib.Path(path), _png(denormalise(images), titles, rows, columns))


@plain_text()
def _png(pictures, titles, rows, columns):
    figure = Figure(figsize=(1.6 * columns, 1.8 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    for axes in figure.subplots(rows, columns, squeeze=False).flat:
        axes.set_axis_off()
    for axes, picture, title in zip(figure.axes, pictures, titles, strict=False):
        axes.imshow(picture, interpolation="nearest")
        axes.set_title(title, fontsize=7)
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=100)
    return content.getvalue()


def _first_images(dataset: tf.data.Dataset, count: int) -> tuple[np.ndarray, np.ndarray]:
    images, labels, total = [], [], 0
    for batch_images, batch_labels in dataset.as_numpy_iterator():
        images.append(batch_images)
        labels.append(batch_labels)
        total += len(batch_images)
        if total >= count:
            break
    return np.concatenate(images)[:count], np.concatenate(labels)[:count]


def _title(label: np.ndarray, class_names: Sequence[str]) -> str:
    classes = [i for i in np.argsort(-label, kind="stable") if label[i] >= _SHOWN][:3]
    names = [label_text(class_names[i], _WIDTH) for i in classes]
    if len(names) == 1:
        return names[0]
    return "\n".join(f"{name} {label[i]:.2f}" for name, i in zip(names, classes, strict=True))
