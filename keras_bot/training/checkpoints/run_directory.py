"""Contents of a run directory, and the code that writes them.

run.flags      the recipe, one line per flag: `keras-bot train --flagfile=run.flags` repeats the run
history.csv    one line per epoch
metrics.json   recipe, data set, network, versions, the result so far
curves.png     loss, top-1 and learning rate over the epochs
tensorboard/   the same for TensorBoard
checkpoints/   training state for --resume
best.keras     the network after the epoch with the best top-1 so far, in the format of model.keras
model.keras    the network after the last epoch, float32, loads in any Keras 3
"""

import csv
import io
import json
import pathlib
import shutil
import statistics
import sys
import time

import keras

from keras_bot.atomic_files import is_partial, write_atomically
from keras_bot.errors import MisuseError, RunError
from keras_bot.recipe import Recipe, differences, read_flag_lines

# Fields that may change when a run is resumed.
MAY_DIFFER = (
    "data_dir",
    "max_corrupt",
    "strategy",
    "ram_budget",
    "jit_compile",
    "checkpoint_every",
    "keep_checkpoints",
    "teacher_cache",
)
# Fields that may differ between workers. Saving involves all of them, although only the chief writes.
WORKERS_MAY_DIFFER = tuple(name for name in MAY_DIFFER if name != "checkpoint_every")


class RunDirectory:
    """Run directory of one recipe. Nothing is written or deleted before `begin`.

    Args:
        path: the directory.
        recipe: the recipe to train.
        resume: continue the run in the directory, if any.
        overwrite: delete the run in the directory, if any.

    Raises:
        MisuseError: if both are set, if there is a run and neither is set, if the run to resume has another recipe or
            lost its checkpoints, or if the directory contains other files.
    """

    def __init__(self, path: str | pathlib.Path, recipe: Recipe, *, resume: bool = False, overwrite: bool = False):
        self.path = pathlib.Path(path)
        self.flags = self.path / "run.flags"
        self.history = self.path / "history.csv"
        self.metrics = self.path / "metrics.json"
        self.curves = self.path / "curves.png"
        self.tensorboard = self.path / "tensorboard"
        self.checkpoints = self.path / "checkpoints"
        self.model = self.path / "model.keras"
        self.best = self.path / "best.keras"
        self._recipe = recipe
        self._delete = overwrite
        if resume and overwrite:
            raise MisuseError("Expected one of --resume and --overwrite, received both.")
        if self.path.exists() and not self.path.is_dir():
            raise MisuseError(f"Expected a directory as run_dir, received the file {self.path}.")
        if not self.flags.exists() and self.path.exists() and self._others():
            raise MisuseError(f"The run_dir {self.path} holds files that are no run of keras_bot. Choose another.")
        if self._holds_a_run() and not overwrite:
            self._refuse_another_recipe()
            if not resume:
                raise MisuseError(
                    f"The run_dir {self.path} already holds a run of this recipe. "
                    "Use --resume to go on with it, or --overwrite to delete it."
                )
            self._refuse_lost_checkpoints()

    def _others(self):
        """Returns the files in the directory other than the lock and partial writes of a killed process."""
        names = (file.name for file in self.path.iterdir())
        return [name for name in names if name != ".lock" and not is_partial(name)]

    def _holds_a_run(self):
        return self.metrics.exists() or (self.checkpoints.is_dir() and any(self.checkpoints.iterdir()))

    def _refuse_lost_checkpoints(self):
        """Raises MisuseError if more than one epoch is done but there are no checkpoints.

        One epoch is not enough: its row is written before its checkpoint.
        """
        epochs = read_metrics(self.path).get("result", {}).get("epochs", 0) if self.metrics.exists() else 0
        if epochs > 1 and not (self.checkpoints.is_dir() and any(self.checkpoints.iterdir())):
            raise MisuseError(
                f"Expected checkpoints in {self.checkpoints}, as {epochs} epochs are done, received none. Put them "
                "back, or --overwrite to begin anew."
            )

    def _refuse_another_recipe(self):
        differing = differences(read_flag_lines(self.flags.read_text(encoding="utf-8")), self._recipe, MAY_DIFFER)
        if differing:
            raise MisuseError(
                f"The run_dir {self.path} holds a run of another recipe ({'; '.join(differing)}). "
                "Choose another directory, or --overwrite to delete that run."
            )

    def begin(self):
        """Deletes the run to overwrite and writes run.flags. The directory must exist: `lock_run` creates it."""
        if self._delete:
            reports = (self.path / "table.md", self.path / "predictions.png")
            for file in (self.history, self.metrics, self.curves, self.model, self.best, *reports):
                file.unlink(missing_ok=True)
            for folder in (self.tensorboard, self.checkpoints):
                if folder.exists():
                    shutil.rmtree(folder)
        write_atomically(self.flags, run_flags(self._recipe))


def check_same_data(run: RunDirectory, progress: dict, dataset: dict):
    """Raises MisuseError if the data set's sizes or classes differ from those in the checkpoint.

    A changed checksum of the images only prints a warning to stderr.
    """
    for fact, was in progress.get("dataset", {}).items():
        if fact == "name" or dataset.get(fact) == was:
            continue
        if fact.endswith("_checksum"):  # one repaired image or all new images: the checksum does not distinguish them
            told = f"some images are others than when {run.path} was stopped ({fact} was {was}, is {dataset.get(fact)})"
            print(f"keras-bot: {told}. The rest of the run is on what is there now.", file=sys.stderr, flush=True)
            continue
        change = f"{fact} was {was} and is {dataset[fact]}" if fact != "class_names" else "the classes are others"
        raise MisuseError(
            f"The run_dir {run.path} holds a run on other data: {change}. Put the data back, choose another "
            "directory, or --overwrite to delete that run."
        )


def run_flags(recipe: Recipe) -> str:
    """Returns the text of run.flags."""
    from keras_bot import __version__

    header = f"# keras_bot {__version__}: keras-bot train --flagfile=run.flags --run_dir=… does this run again.\n"
    return header + "\n".join(recipe.flag_lines()) + "\n"


def read_metrics(run_dir: str | pathlib.Path) -> dict:
    """Reads the metrics.json of a run directory. Raises MisuseError if it is missing, RunError if it can't be read."""
    path = pathlib.Path(run_dir) / "metrics.json"
    if not path.exists():
        raise MisuseError(f"Expected a run directory with metrics.json, received {run_dir}. Train there first.")
    try:
        metrics = json.loads(path.read_text(encoding="utf-8"))
        metrics["result"], metrics["dataset"]["class_names"]  # required by all readers
    except (ValueError, KeyError, TypeError) as error:
        raise RunError(f"Can't read {path}: {error}. It was changed by hand or cut short.") from None
    return metrics


class RunRecorder(keras.callbacks.Callback):
    """Callback that keeps the history and writes history.csv, metrics.json and the best network after every epoch.

    Args:
        run: the directory to write to; None on workers other than the chief, which write nothing.
        facts: content of metrics.json besides the result.
        images_per_epoch: training images in an epoch, for the throughput.
        corrupt: its `names` are the images that could not be decoded.
        save_best: called with the path when an epoch's top-1 is the best so far.
        history: rows of the epochs already done.
        metrics: names of the evaluation metrics, see `Task`.

    Attributes:
        history: one row per epoch.
        columns: names of the values reported per epoch, in order.
    """

    def __init__(
        self,
        run: RunDirectory | None,
        facts: dict,
        images_per_epoch: int,
        corrupt,
        save_best,
        history: list[dict] = (),
        metrics: tuple[str, ...] = ("top1", "top5"),
    ):
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

    def on_epoch_begin(self, epoch, logs=None):  # noqa: D102
        self._began = time.perf_counter()
        self._seconds = None

    def seconds(self) -> float:
        """Returns the training time of this epoch in seconds, including the part before an interruption."""
        return self.seconds_before + (self._seconds or time.perf_counter() - self._began)

    def on_test_begin(self, logs=None):  # noqa: D102
        self._seconds = time.perf_counter() - self._began

    def on_epoch_end(self, epoch, logs=None):  # noqa: D102
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
        """Returns whether no epoch was better than the last."""
        first, result = self._metrics[0], self.result()
        return result[first] == result[f"best_{first}"]

    def write(self):
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

    def result(self) -> dict:
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

    def __init__(self, epochs: int, columns: tuple[str, ...]):
        super().__init__()
        self._epochs = epochs
        self._columns = columns

    def on_epoch_end(self, epoch, logs=None):  # noqa: D102
        shown = " - ".join(f"{name} {logs[name]:.4g}" for name in self._columns if name in logs)
        print(f"epoch {epoch + 1}/{self._epochs} - {shown}", flush=True)
