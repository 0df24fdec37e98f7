"""Evaluation of a network on a data set: loss, top-1 and top-5 accuracy."""

import keras
import tensorflow as tf

from keras_bot.training import assemble
from keras_bot.training.failures import user_errors


def evaluate(model: keras.Model, dataset: tf.data.Dataset, *, corrupt=None, verbose: int = 0) -> dict[str, float]:
    """Evaluates a network that returns logits.

    Args:
        model: maps float32 images (batch, size, size, 3) to logits (batch, classes). This function compiles it.
        dataset: batches of images, one-hot labels and weights, as from `assemble.evaluation_data`.
        corrupt: CorruptLog of the data set, which provides the error when too many images fail.
        verbose: Keras' 0, 1 or 2.

    Returns:
        loss (mean cross-entropy), top1 and top5 (fractions).

    Raises:
        RunError: if more images fail to decode than `corrupt` allows.
    """
    model.compile(
        loss=assemble.build_loss(),
        weighted_metrics=assemble.build_metrics(),
        jit_compile=False,
    )
    with user_errors(corrupt):
        figures = model.evaluate(dataset, verbose=verbose, return_dict=True)
    figures["loss"] = figures.pop("cross_entropy")
    return figures


class ExactLoss(keras.callbacks.Callback):
    """Callback that puts the exact evaluation loss in `fit`'s logs. List it before the callbacks that read it.

    Keras divides the weighted loss by the padded batch size; the metric `cross_entropy` divides by the sum of weights.
    """

    def on_epoch_end(self, epoch, logs=None):  # noqa: D102
        logs.pop("cross_entropy", None)
        if "val_cross_entropy" in logs:
            logs["val_loss"] = logs.pop("val_cross_entropy")
