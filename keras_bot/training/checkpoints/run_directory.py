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

import json
import pathlib
import shutil
import sys

from keras_bot.atomic_files import is_partial, write_atomically
from keras_bot.errors import MisuseError, RunError
from keras_bot.recipe import Recipe
from keras_bot.recipe.text import differences, read_flag_lines

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

    def __init__(
        self, path: str | pathlib.Path, recipe: Recipe, *, resume: bool = False, overwrite: bool = False
    ) -> None:
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
            raise MisuseError("--resume and --overwrite cannot be combined. Use one of them.")
        if self.path.exists() and not self.path.is_dir():
            raise MisuseError(f"The run directory {self.path} is a file. Choose another path.")
        if not self.flags.exists() and self.path.exists() and self._other_files():
            raise MisuseError(
                f"{self.path} contains files that are not part of a keras_bot run. Choose another directory."
            )
        if self._contains_run() and not overwrite:
            self._check_recipe()
            if not resume:
                raise MisuseError(
                    f"{self.path} already contains a run of this recipe. "
                    "Use --resume to continue it or --overwrite to delete it."
                )
            self._check_checkpoints()

    def _other_files(self):
        """Returns the files in the directory other than the lock and partial writes of a killed process."""
        names = (file.name for file in self.path.iterdir())
        return [name for name in names if name != ".lock" and not is_partial(name)]

    def _contains_run(self):
        return self.metrics.exists() or (self.checkpoints.is_dir() and any(self.checkpoints.iterdir()))

    def _check_checkpoints(self):
        """Raises MisuseError if more than one epoch is done but there are no checkpoints.

        One epoch is not enough: its row is written before its checkpoint.
        """
        epochs = read_metrics(self.path).get("result", {}).get("epochs", 0) if self.metrics.exists() else 0
        if epochs > 1 and not (self.checkpoints.is_dir() and any(self.checkpoints.iterdir())):
            raise MisuseError(
                f"{self.checkpoints} contains no checkpoints, although {epochs} epochs are done. Restore them, or use "
                "--overwrite to start over."
            )

    def _check_recipe(self):
        differing = differences(read_flag_lines(self.flags.read_text(encoding="utf-8")), self._recipe, MAY_DIFFER)
        if differing:
            raise MisuseError(
                f"{self.path} contains a run of another recipe ({'; '.join(differing)}). "
                "Choose another directory, or use --overwrite to delete that run."
            )

    def begin(self) -> None:
        """Deletes the run to overwrite and writes run.flags. The directory must exist: `lock_run` creates it."""
        if self._delete:
            reports = (self.path / "table.md", self.path / "predictions.png")
            for file in (self.history, self.metrics, self.curves, self.model, self.best, *reports):
                file.unlink(missing_ok=True)
            for folder in (self.tensorboard, self.checkpoints):
                if folder.exists():
                    shutil.rmtree(folder)
        write_atomically(self.flags, run_flags(self._recipe))


def check_same_data(run: RunDirectory, progress: dict, dataset: dict) -> None:
    """Raises MisuseError if the data set's sizes or classes differ from those in the checkpoint.

    A changed checksum of the images only prints a warning to stderr.
    """
    for name, old in progress.get("dataset", {}).items():
        if name == "name" or dataset.get(name) == old:
            continue
        change = f"{name} was {old}, is {dataset.get(name)}"
        if name.endswith("_checksum"):  # one repaired image or all new images: the checksum does not distinguish them
            message = f"some images have changed since {run.path} was stopped ({change}); training continues with them."
            print(f"keras-bot: {message}", file=sys.stderr, flush=True)
            continue
        change = "the class names have changed" if name == "class_names" else change
        raise MisuseError(
            f"{run.path} contains a run on other data: {change}. Restore the data, choose another directory, or use "
            "--overwrite to delete that run."
        )


def run_flags(recipe: Recipe) -> str:
    """Returns the text of run.flags."""
    from keras_bot import __version__

    header = f"# keras_bot {__version__}: keras-bot train --flagfile=run.flags --run_dir=… repeats this run.\n"
    return header + "\n".join(recipe.flag_lines()) + "\n"


def read_metrics(run_dir: str | pathlib.Path) -> dict:
    """Reads the metrics.json of a run directory. Raises MisuseError if it is missing, RunError if it is invalid."""
    path = pathlib.Path(run_dir) / "metrics.json"
    if not path.exists():
        raise MisuseError(f"{run_dir} is not a run directory: it contains no metrics.json. Train there first.")
    try:
        metrics = json.loads(path.read_text(encoding="utf-8"))
        metrics["result"], metrics["dataset"]["class_names"]  # required by all readers
    except (ValueError, KeyError, TypeError) as error:
        raise RunError(f"Cannot read {path}: {error}. It was edited or truncated.") from None
    return metrics
