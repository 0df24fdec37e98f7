"""Callbacks that the tricks ask for in `fit`.

What: mixup off for the last epochs, the learning rate in the history, a stop at the first loss that isn't
    finite.
The paper's value: none. GluonCV's script has the switch for mixup too.
Interactions: each stands alone. Put `LearningRateLog` before loggers (CSVLogger, TensorBoard) that should see
    its value.
Reference: GluonCV, scripts/classification/imagenet/train_imagenet.py (`--mixup-off-epoch`).
"""

import math

import keras

from keras_bot.errors import RunError
from keras_bot.tricks.mixup import MixUp


class MixUpOff(keras.callbacks.Callback):
    """Trains the last epochs without mixup.

    The layer may stand in the model or in a `tf.data` pipeline. A pipeline that `fit` starts anew each epoch
    switches exactly; one that repeats for ever has mixed the few batches of its prefetch buffer before the
    switch.

    Args:
        layer: the `MixUp` to switch.
        last_epochs: how many epochs at the end of `fit`'s `epochs`, at least 1.

    Raises:
        ValueError: for arguments of another kind, and in `fit` when it has fewer epochs than that.
    """

    def __init__(self, layer: MixUp, last_epochs: int):
        super().__init__()
        if not isinstance(layer, MixUp):
            raise ValueError(f"Expected layer as a keras_bot.tricks.MixUp, received {layer!r}.")
        if not last_epochs >= 1:
            raise ValueError(f"Expected last_epochs of at least 1, received {last_epochs!r}.")
        self.layer = layer
        self.last_epochs = last_epochs

    def on_train_begin(self, logs=None):
        """Checks that there are so many epochs."""
        epochs = self.params["epochs"]
        if self.last_epochs > epochs:
            raise ValueError(f"Expected last_epochs of at most epochs={epochs}, received {self.last_epochs}.")

    def on_epoch_begin(self, epoch, logs=None):
        """Switches; right also where `fit` starts at a later epoch."""
        self.layer.enabled.assign(float(epoch < self.params["epochs"] - self.last_epochs))


class LearningRateLog(keras.callbacks.Callback):
    """Puts the learning rate at the end of each epoch into the logs as "learning_rate".

    It is the rate of the next update, a float; works with schedules and with a LossScaleOptimizer.
    """

    def on_epoch_end(self, epoch, logs=None):
        """Adds the rate to `logs`."""
        logs["learning_rate"] = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))


class NonFiniteLoss(RunError):
    """The loss became NaN or infinite. Attributes: loss; epoch and step, both counted from 0."""

    def __init__(self, loss: float, epoch: int, step: int):
        super().__init__(
            f"The loss became {loss} in epoch {epoch + 1} at its step {step + 1}. "
            "Lower the learning rate, lengthen the warmup, or look at the data."
        )
        self.loss = loss
        self.epoch = epoch
        self.step = step


class StopOnNonFinite(keras.callbacks.Callback):
    """Raises `NonFiniteLoss` after the very step whose loss isn't finite, or whose update ruined the network.

    `fit` reports a running mean, and a mean that has met NaN or infinity stays so. What the last update of an
    epoch ruins shows in the validation loss, so put this before callbacks that save. With `steps_per_execution`
    above 1 the step is the last of the execution. Reading the loss waits for the device at every step.
    """

    def on_epoch_begin(self, epoch, logs=None):
        """Notes the epoch for the message."""
        self._epoch, self._step = epoch, 0

    def on_train_batch_end(self, batch, logs=None):
        """Looks at the loss."""
        self._step = batch
        self._check(logs["loss"])

    def on_epoch_end(self, epoch, logs=None):
        """Looks at the validation loss, if there is one."""
        self._check(logs.get("val_loss", 0.0))

    def _check(self, loss):
        loss = float(loss)
        if not math.isfinite(loss):
            raise NonFiniteLoss(loss, self._epoch, self._step)
