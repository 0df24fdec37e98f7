"""Callbacks that record a run's epochs and print one line of output per epoch."""

import csv
import io
import json
import pathlib
import statistics
import time
from collections.abc import Callable, Iterable
from typing import Any

import keras

from keras_bot.atomic_files import write_atomically
from keras_bot.training.checkpoints.run_directory import RunDirectory


class RunRecorder(keras.callbacks.Callback):
    """Callback that keeps the history and writes history.csv, metrics.json and the best network after every epoch.

    Args:
        run: the directory to write to; None on workers other than the chief, which write nothing.
        facts: content of metrics.json other than the result.
        images_per_epoch: training images in an epoch, for the throughput.
        corrupt: its `names` are the images that could not be decoded.
        save_best: called with the path when the first metric of an epoch is the best so far.
        history: rows of the epochs already done.
        metrics: names of the evaluation metrics, see `Task`.

    Attributes:
        history: one row per epoch.
        columns: names of the values reported per epoch, in order.
    """

    def __init__(
        self,
        run: RunDirectory | None,
        facts: dict[str, Any],
        images_per_epoch: int,
        corrupt: Any,
        save_best: Callable[[pathlib.Path], object],
        history: Iterable[dict[str, Any]] = (),
        metrics: tuple[str, ...] = ("top1", "top5"),
    ) -> None:
        super().__init__()
        self.run = run
        self.history = list(history)
        self.facts = facts
        self.corrupt = corrupt
        self.columns = ("loss", *metrics, "val_loss", *(f"val_{name}" for name in metrics), "learning_rate")
        self._metrics = metrics
        self._images_per_epoch = images_per_epoch
        self._save_best = save_best
        self.seconds_before = 0.0

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:  # noqa: D102
        self._began = time.perf_counter()
        self._seconds: float | None = None

    def seconds(self) -> float:
        """Returns the training time of this epoch in seconds, including the part before an interruption."""
        return self.seconds_before + (self._seconds or time.perf_counter() - self._began)

    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:  # noqa: D102
        self._seconds = time.perf_counter() - self._began

    def on_epoch_end(self, epoch: int, logs: dict[str, Any]) -> None:  # noqa: D102
        seconds = self.seconds()
        self.seconds_before = 0.0
        row = {
            "epoch": epoch + 1,
            **logs,
            "seconds": seconds,
            "images_per_second": self._images_per_epoch / seconds,
        }
        kept = (*self.columns, "seconds", "images_per_second")
        self.history.append({"epoch": epoch + 1, **{name: float(row[name]) for name in kept if name in row}})
        if self.run and self.last_is_best():
            self._save_best(self.run.best)
        self.write()

    def last_is_best(self) -> bool:
        """Returns whether the last epoch is the best so far; ties count."""
        first, result = self._metrics[0], self.result()
        return result[first] == result[f"best_{first}"]

    def write(self) -> None:
        """Writes history.csv and metrics.json from the rows so far."""
        if not self.run:
            return
        table = io.StringIO()
        columns = [name for name in (*self.columns, "seconds", "images_per_second") if name in self.history[-1]]
        writer = csv.DictWriter(table, ("epoch", *columns), lineterminator="\n")
        writer.writeheader()
        writer.writerows(
            {name: value if name == "epoch" else f"{value:.6g}" for name, value in row.items()} for row in self.history
        )
        write_atomically(self.run.history, table.getvalue())
        metrics = {**self.facts, "result": self.result(), "corrupt_images": list(self.corrupt.names)}
        write_atomically(self.run.metrics, json.dumps(metrics, indent=2, allow_nan=False) + "\n")

    def result(self) -> dict[str, Any]:
        """Returns the metrics after the last epoch. images_per_second is the median over epochs, without the first."""
        last = self.history[-1]
        speeds = [row["images_per_second"] for row in self.history]
        return {
            **{name: last[f"val_{name}"] for name in self._metrics},
            "loss": last["val_loss"],
            f"best_{self._metrics[0]}": max(row[f"val_{self._metrics[0]}"] for row in self.history),
            "epochs": last["epoch"],
            "images_per_second": round(statistics.median(speeds[1:] or speeds), 1),
            "training_seconds": round(sum(row["seconds"] for row in self.history), 1),
        }


class EpochLine(keras.callbacks.Callback):
    """Callback that prints one line per epoch, for output that is not a terminal.

    Args:
        epochs: number of epochs of the whole training.
        columns: names of the values to print.
    """

    def __init__(self, epochs: int, columns: tuple[str, ...]) -> None:
        super().__init__()
        self._epochs = epochs
        self._columns = columns

    def on_epoch_end(self, epoch: int, logs: dict[str, Any]) -> None:  # noqa: D102
        shown = " - ".join(f"{name} {logs[name]:.4g}" for name in self._columns if name in logs)
        print(f"epoch {epoch + 1}/{self._epochs} - {shown}", flush=True)
