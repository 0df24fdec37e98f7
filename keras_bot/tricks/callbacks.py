"""Callbacks that complement the tricks in `fit`.

What: disable mixup for the last epochs, log the learning rate, stop at the first non-finite loss.
The paper's value: none. GluonCV's script also has an option to disable mixup.
Interactions: the callbacks are independent. Put `LearningRateLog` before loggers (CSVLogger, TensorBoard) that
    should record its value.
Reference: GluonCV, scripts/classification/imagenet/train_imagenet.py (`--mixup-off-epoch`).
"""

import math
from typing import Any

import keras

from keras_bot.errors import RunError
from keras_bot.tricks.mixup import MixUp, is_mixed_epoch


class MixUpOff(keras.callbacks.Callback):
    """Callback that disables mixup for the last epochs.

    The layer may be in the model or in a `tf.data` pipeline. If `fit` restarts the pipeline each epoch, the switch
    is exact. If the pipeline repeats indefinitely, the few batches in its prefetch buffer are still mixed.

    Args:
        layer: the `MixUp` layer to disable.
        last_epochs: number of epochs without mixup at the end of `fit`'s `epochs`, at least 1.

    Raises:
        ValueError: if an argument is invalid, or, in `fit`, if `epochs` is less than `last_epochs`.
    """

    def __init__(self, layer: MixUp, last_epochs: int) -> None:
        super().__init__()
        if not isinstance(layer, MixUp):
            raise ValueError(f"layer must be a keras_bot.tricks.MixUp, received {layer!r}.")
        if not last_epochs >= 1:
            raise ValueError(f"last_epochs must be at least 1, received {last_epochs!r}.")
        self.layer = layer
        self.last_epochs = last_epochs
        self._enabled = 1.0

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Raises ValueError if `last_epochs` exceeds `epochs`; remembers whether the layer is enabled."""
        self._enabled = keras.ops.convert_to_numpy(self.layer.enabled)
        epochs = self.params["epochs"]
        if self.last_epochs > epochs:
            raise ValueError(f"MixUpOff(last_epochs={self.last_epochs}) exceeds the epochs={epochs} of `fit`.")

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Enables or disables the layer; also correct if `fit` has an `initial_epoch`."""
        self.layer.enabled.assign(float(is_mixed_epoch(epoch, self.params["epochs"], self.last_epochs)))

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Restores the layer's state before `fit`, for another `fit` without this callback."""
        self.layer.enabled.assign(self._enabled)


class LearningRateLog(keras.callbacks.Callback):
    """Callback that logs the learning rate at the end of each epoch as "learning_rate".

    The value is that of the next update, as a float. Works with schedules and with a LossScaleOptimizer.
    """

    def on_epoch_end(self, epoch: int, logs: dict[str, Any]) -> None:
        """Adds the learning rate to `logs`."""
        logs["learning_rate"] = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))


class NonFiniteLoss(RunError):
    """Error for a NaN or infinite loss. Attributes: `loss`, and `epoch` and `step`, both counted from 0."""

    def __init__(self, loss: float, epoch: int, step: int) -> None:
        super().__init__(
            f"The loss became {loss} in epoch {epoch + 1}, step {step + 1}. "
            "Lower the learning rate, lengthen the warmup, or check the data."
        )
        self.loss = loss
        self.epoch = epoch
        self.step = step


class StopOnNonFinite(keras.callbacks.Callback):
    """Callback that raises `NonFiniteLoss` after the first non-finite training or validation loss.

    `fit` reports a running mean, which stays NaN or infinite once one loss was. If the last update of an epoch
    produces non-finite weights, the validation loss reveals it, so put this callback before those that save. With
    `steps_per_execution` above 1 the reported step is the last of the execution. Reading the loss synchronizes
    with the device at every step.
    """

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Stores the epoch for the error message."""
        self._epoch, self._step = epoch, 0

    def on_train_batch_end(self, batch: int, logs: dict[str, Any]) -> None:
        """Checks the loss."""
        self._step = batch
        self._check(logs["loss"])

    def on_epoch_end(self, epoch: int, logs: dict[str, Any]) -> None:
        """Checks the validation loss, if any."""
        self._check(logs.get("val_loss", 0.0))

    def _check(self, loss):
        loss = float(loss)
        if not math.isfinite(loss):
            raise NonFiniteLoss(loss, self._epoch, self._step)
