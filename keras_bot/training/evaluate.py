"""Loss, top-1 and top-5 of a network on a data set."""

import keras
import tensorflow as tf

from keras_bot.training import assemble
from keras_bot.training.failures import clear_errors


def evaluate(model: keras.Model, dataset: tf.data.Dataset, *, corrupt=None, verbose: int = 0) -> dict[str, float]:
    """Evaluates a network that gives logits.

    Args:
        model: takes float32 (batch, size, size, 3), gives (batch, classes) logits. It gets compiled.
        dataset: batches of images, one-hot labels and weights, as `assemble.evaluation_data` gives.
        corrupt: the data set's CorruptLog, for a clear error when too many images fail.
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
    with clear_errors(corrupt):
        figures = model.evaluate(dataset, verbose=verbose, return_dict=True)
    figures["loss"] = figures.pop("cross_entropy")
    return figures


class ExactLoss(keras.callbacks.Callback):
    """Puts the exact loss of an evaluation in `fit`'s logs: before other callbacks, which then see it.

    Keras divides the weighted loss by the padded size of a batch; the metric `cross_entropy` divides by the weights.
    """

    def on_epoch_end(self, epoch, logs=None):  # noqa: D102
        logs.pop("cross_entropy", None)
        if "val_cross_entropy" in logs:
            logs["val_loss"] = logs.pop("val_cross_entropy")
