"""Loss and metrics of classification, and the evaluation of a network on a data set."""

from typing import Any

import keras
import tensorflow as tf

from keras_bot.data.corrupt import CorruptLog
from keras_bot.training.failures import user_errors


def build_losses() -> dict[str, Any]:
    """Returns the arguments of `compile` for logits and (batch, classes) labels: cross-entropy, top-1 and top-5.

    On a padded batch only the weighted metrics are exact: see `ExactLoss`.
    """
    return {
        "loss": keras.losses.CategoricalCrossentropy(from_logits=True, dtype="float32"),
        "weighted_metrics": [
            keras.metrics.CategoricalAccuracy(name="top1", dtype="float32"),
            keras.metrics.TopKCategoricalAccuracy(5, name="top5", dtype="float32"),
            keras.metrics.CategoricalCrossentropy(from_logits=True, name="cross_entropy", dtype="float32"),
        ],
    }


def evaluate(
    model: keras.Model, dataset: tf.data.Dataset, *, corrupt: CorruptLog | None = None, verbose: int = 0
) -> dict[str, float]:
    """Evaluates a network that returns logits.

    Args:
        model: maps float32 images (batch, size, size, 3) to logits (batch, classes). This function compiles it.
        dataset: batches of images, one-hot labels and weights, as from `data.eval_pipeline`.
        corrupt: CorruptLog of the data set, which provides the error when too many images fail.
        verbose: Keras' 0, 1 or 2.

    Returns:
        loss (mean cross-entropy), top1 and top5 (fractions).

    Raises:
        RunError: if more images fail to decode than `corrupt` allows.
    """
    model.compile(**build_losses(), jit_compile=False)
    with user_errors(corrupt):
        figures = model.evaluate(dataset, verbose=verbose, return_dict=True)
    figures["loss"] = figures.pop("cross_entropy")
    return figures


class ExactLoss(keras.callbacks.Callback):
    """Callback that puts the exact evaluation loss in `fit`'s logs. List it before the callbacks that read it.

    Keras divides the weighted loss by the padded batch size; the metric `cross_entropy` divides by the sum of weights.
    """

    def on_epoch_end(self, epoch: int, logs: dict[str, Any]) -> None:  # noqa: D102
        logs.pop("cross_entropy", None)
        if "val_cross_entropy" in logs:
            logs["val_loss"] = logs.pop("val_cross_entropy")
