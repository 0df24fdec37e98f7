"""What a run directory holds, and who writes it.

run.flags      the recipe, every knob a line: `keras-bot train --flagfile=run.flags` does it again
history.csv    one line an epoch
metrics.json   recipe, data set, network, versions, the result so far
curves.png     loss, top-1 and learning rate over the epochs
tensorboard/   the same for TensorBoard
checkpoints/   what --resume goes on from
best.keras     the network after the epoch of the best top-1 so far, as model.keras
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

from keras_bot.durable import is_partial, write_whole
from keras_bot.errors import MisuseError, RunError
from keras_bot.recipe import Recipe, differences, read_flag_lines

# Between a run and its resumption.
MAY_DIFFER = ("data_dir", "max_corrupt", "strategy", "ram_budget", "jit", "checkpoint_every", "keep", "teacher_cache")
# Between workers: when to save all of them are asked, though the chief alone writes.
WORKERS_MAY_DIFFER = tuple(name for name in MAY_DIFFER if name != "checkpoint_every")


class RunDirectory:
    """A run directory that is ours to write. Nothing is written or deleted before `begin`.

    Args:
        path: the directory.
        recipe: what is trained in it.
        resume: go on with the run that it holds, if any.
        overwrite: delete the run that it holds, if any.

    Raises:
        MisuseError: if it holds a run and neither is asked for, another recipe's run to resume, or files of others.
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
        """What is in the directory besides what a kill leaves of the first write."""
        names = (file.name for file in self.path.iterdir())
        return [name for name in names if name != ".lock" and not is_partial(name)]

    def _holds_a_run(self):
        return self.metrics.exists() or (self.checkpoints.is_dir() and any(self.checkpoints.iterdir()))

    def _refuse_lost_checkpoints(self):
        """The first epoch's row is written before its checkpoint, every other one after some checkpoint."""
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
        """In the directory, which `lock_run` has made: deletes what is to be overwritten, and writes run.flags."""
        if self._delete:
            reports = (self.path / "table.md", self.path / "predictions.png")
            for file in (self.history, self.metrics, self.curves, self.model, self.best, *reports):
                file.unlink(missing_ok=True)
            for folder in (self.tensorboard, self.checkpoints):
                if folder.exists():
                    shutil.rmtree(folder)
        write_whole(self.flags, run_flags(self._recipe))


def check_same_data(run: RunDirectory, progress: dict, dataset: dict):
    """MisuseError if sizes or classes of the data set aren't what they were when the checkpoint was written.

    Other images of the same number are told on stderr.
    """
    for fact, was in progress.get("dataset", {}).items():
        if fact == "name" or dataset.get(fact) == was:
            continue
        if fact.endswith("_checksum"):  # one image mended, or all others: who knows
            told = f"some images are others than when {run.path} was stopped ({fact} was {was}, is {dataset.get(fact)})"
            print(f"keras-bot: {told}. The rest of the run is on what is there now.", file=sys.stderr, flush=True)
            continue
        change = f"{fact} was {was} and is {dataset[fact]}" if fact != "class_names" else "the classes are others"
        raise MisuseError(
            f"The run_dir {run.path} holds a run on other data: {change}. Put the data back, choose another "
            "directory, or --overwrite to delete that run."
        )


def run_flags(recipe: Recipe) -> str:
    """The text of run.flags."""
    from keras_bot import __version__

    header = f"# keras_bot {__version__}: keras-bot train --flagfile=run.flags --run_dir=… does this run again.\n"
    return header + "\n".join(recipe.flag_lines()) + "\n"


def read_metrics(run_dir: str | pathlib.Path) -> dict:
    """The metrics.json of a run directory. Raises MisuseError if there is none, RunError if it can't be read."""
    path = pathlib.Path(run_dir) / "metrics.json"
    if not path.exists():
        raise MisuseError(f"Expected a run directory with metrics.json, received {run_dir}. Train there first.")
    try:
        metrics = json.loads(path.read_text(encoding="utf-8"))
        metrics["result"], metrics["dataset"]["class_names"]  # what all readers need
    except (ValueError, KeyError, TypeError) as error:
        raise RunError(f"Can't read {path}: {error}. It was changed by hand or cut short.") from None
    return metrics


class RunRecorder(keras.callbacks.Callback):
    """Keeps the history; writes history.csv, metrics.json and the best network at the end of every epoch.

    Args:
        run: the directory to write to; None writes nothing, for workers that aren't the chief.
        facts: what metrics.json tells besides the result.
        images_per_epoch: training images in an epoch, for the throughput.
        corrupt: gives `names`, the images that could not be decoded.
        save_best: called with the path when an epoch's top-1 is the best so far.
        history: rows of the epochs already done.
        metrics: the evaluation's, see `Task`.

    Attributes:
        history: a row an epoch.
        columns: what is told of an epoch, in order.
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
        """How long this epoch has trained, the part before an interruption included."""
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
        """Whether no epoch was better than the last."""
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
        write_whole(self.run.history, table.getvalue())
        metrics = {**self.facts, "result": self.result(), "corrupt_images": list(self.corrupt.names)}
        write_whole(self.run.metrics, json.dumps(metrics, indent=2, allow_nan=False) + "\n")

    def result(self) -> dict:
        """The figures after the last epoch; images_per_second is the median of the epochs, the first left out."""
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
    """Prints one line an epoch, for logs that are no terminal.

    Args:
        epochs: of the whole training.
        columns: what to print.
    """

    def __init__(self, epochs: int, columns: tuple[str, ...]):
        super().__init__()
        self._epochs = epochs
        self._columns = columns

    def on_epoch_end(self, epoch, logs=None):  # noqa: D102
        shown = " - ".join(f"{name} {logs[name]:.4g}" for name in self._columns if name in logs)
        print(f"epoch {epoch + 1}/{self._epochs} - {shown}", flush=True)
