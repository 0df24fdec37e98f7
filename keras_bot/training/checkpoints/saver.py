"""Saving of a run's state: at the end of each epoch, every `checkpoint_every` steps, and on SIGTERM.

The state is every variable of network and optimizer (including velocity, schedule step, loss scale, seed generators),
the data position (whole epochs, and steps within the next one), per-replica metric state, the history and the names of
corrupt images. The data pipeline has no other state: order and random draws are functions of seed, epoch and position.
"""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

import keras

from keras_bot.errors import Terminated
from keras_bot.training.callbacks import RunRecorder
from keras_bot.training.checkpoints.checkpoint import Checkpoints
from keras_bot.training.distributed.strategy import Strategy


class Saver(keras.callbacks.Callback):
    """Callback that saves a run. List it after the recorder, which must already have the epoch's row.

    Args:
        checkpoints: writes the state; None on workers other than the chief, which still take part in collecting it.
        strategy: strategy of the run.
        recorder: provides history, corrupt images and seconds.
        steps_per_epoch: training steps per epoch.
        every: steps between saves within an epoch; 0 for none.
        progress: progress in the checkpoint to resume from, {} for none.
    """

    def __init__(
        self,
        checkpoints: Checkpoints | None,
        strategy: Strategy,
        recorder: RunRecorder,
        steps_per_epoch: int,
        every: int,
        progress: dict[str, Any],
    ) -> None:
        super().__init__()
        self.stop_requested = False
        self._checkpoints = checkpoints
        self._strategy = strategy
        self._recorder = recorder
        self._steps_per_epoch = steps_per_epoch
        self._every = every
        self._resumed = progress if progress.get("step") else {}

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:  # noqa: D102
        self._metric_state = self._strategy.per_replica_values(
            [v for metric in self.model.metrics for v in metric.variables]
        )

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:  # noqa: D102
        self._epoch = epoch
        self._first_step = self._step = self._resumed.get("step", 0)
        if self._resumed:
            self._metric_state.write(self._resumed["metrics"])
            self._recorder.seconds_before = self._resumed["seconds"]
        self._resumed = {}

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:  # noqa: D102
        self._step = self._first_step + batch + 1
        stops = self._strategy.any_worker(self.stop_requested)
        is_due = self._every and self._steps_done() % self._every == 0 and self._step < self._steps_per_epoch
        if stops or is_due:
            self._strategy.sync_state(self.model)
            self._save(self._metric_state.read())
        if stops:
            self._terminate()

    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:  # noqa: D102
        self._training_metrics = self._metric_state.read()  # before Keras resets the metrics for the evaluation

    def on_test_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:  # noqa: D102
        if self._strategy.any_worker(self.stop_requested):
            self._strategy.sync_state(self.model)
            self._save(self._training_metrics)
            self._terminate()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:  # noqa: D102
        self._epoch, self._step = epoch + 1, 0
        self._save([])
        if self._strategy.any_worker(self.stop_requested):
            self._terminate()

    def _steps_done(self):
        return self._epoch * self._steps_per_epoch + self._step

    def _save(self, metrics):
        if not self._checkpoints:
            return
        self._checkpoints.save(
            {
                "steps": self._steps_done(),
                "epochs": self._epoch,
                "step": self._step,
                "metrics": metrics,
                "seconds": self._recorder.seconds() if self._step else 0.0,
                "history": self._recorder.history,
                "corrupt_images": list(self._recorder.corrupt.names),
                "dataset": self._recorder.facts["dataset"],
            }
        )

    def _terminate(self):
        raise Terminated(
            f"Stopped by SIGTERM; the state after step {self._steps_done()} is saved. Continue with --resume."
        )


@contextlib.contextmanager
def handle_sigterm(saver: Saver) -> Iterator[None]:
    """Handles SIGTERM: the saver saves the state and ends the run after the current step."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set a handler
        return

    def request_stop(number: int, frame: FrameType | None) -> None:
        saver.stop_requested = True

    previous = signal.signal(signal.SIGTERM, request_stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
