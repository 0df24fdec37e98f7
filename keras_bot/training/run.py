"""One training run on this worker: its workers, run directory, saved state and user errors."""

import contextlib
import functools
import json
import pathlib
import shutil
import sys
from collections.abc import Callable
from typing import Any

import keras

from keras_bot import data, tricks
from keras_bot.errors import RunError, first_few, first_line
from keras_bot.recipe import Recipe
from keras_bot.training.callbacks import EpochLine, RunRecorder
from keras_bot.training.checkpoints.checkpoint import Checkpoints
from keras_bot.training.checkpoints.run_directory import check_same_data
from keras_bot.training.checkpoints.run_lock import lock_run
from keras_bot.training.checkpoints.saver import Saver, handle_sigterm
from keras_bot.training.curves import draw_curves
from keras_bot.training.distributed.selection import build_strategy
from keras_bot.training.distributed.strategy import Strategy
from keras_bot.training.evaluate import ExactLoss
from keras_bot.training.failures import user_errors
from keras_bot.training.fit import FitPlan, fit_from
from keras_bot.training.preflight import open_run_directory


class TrainingRun(contextlib.AbstractContextManager):
    """Context of one training run: workers, run directory, dtype policy and user errors.

    Entering it connects the workers and checks the run directory. Nothing is written before `begin`, so that a rejected
    run leaves no files behind.

    Args:
        recipe: the training configuration.
        run_dir, resume, overwrite: as in `train`.

    Attributes:
        strategy: the devices and workers; set on entering.
        corrupt: log of the images that could not be decoded; set by `begin`.

    Raises:
        MisuseError: on entering, if the directory cannot be used or the recipe differs between workers.
        RunError: on entering, if the workers cannot be connected; in the body, for backend errors.
    """

    def __init__(self, recipe: Recipe, run_dir: str | pathlib.Path, *, resume: bool, overwrite: bool) -> None:
        self._recipe = recipe
        self._run_dir = run_dir
        self._resume = resume
        self._overwrite = overwrite
        self.corrupt: data.CorruptLog

    def __enter__(self) -> "TrainingRun":
        recipe = self._recipe
        cluster, directory = open_run_directory(recipe, self._run_dir, resume=self._resume, overwrite=self._overwrite)
        self._directory = directory  # None on workers other than the chief, which write nothing
        self.strategy = build_strategy(recipe, cluster)
        self._stack = contextlib.ExitStack()
        self._stack.enter_context(tricks.mixed_precision(recipe.precision))
        self._stack.enter_context(user_errors(None, workers=self.strategy.workers))
        return self

    def __exit__(self, *error):
        return self._stack.__exit__(*error)

    def begin(
        self, task: Any, network: keras.Model, trainee: keras.Model, facts: dict[str, Any], steps_per_epoch: int
    ) -> None:
        """Compares the data of all workers, locks the run directory and restores the newest checkpoint.

        Args:
            task: a `Task`: how to save the network, and the names of its metrics.
            network, trainee: the network, and the compiled model to fit with its optimizer built.
            facts: content of metrics.json other than the result.
            steps_per_epoch: training steps per epoch.

        Raises:
            MisuseError: if the data differ between workers or from those of the run to resume.
            RunError: if the directory cannot be written to or no checkpoint can be used.
        """
        recipe, directory = self._recipe, self._directory
        self.strategy.check_same_data(_facts_to_compare(recipe, facts["dataset"]))
        self._task, self._network, self._steps_per_epoch = task, network, steps_per_epoch
        self._variables = _named_variables(network, trainee)
        self._checkpoints = None
        if directory:
            self._stack.enter_context(lock_run(directory.path))
            directory.begin()
            self._checkpoints = Checkpoints(directory.checkpoints, self._variables, keep=recipe.keep_checkpoints)
        self._progress = self._restore(facts["dataset"]) if self._resume else {}
        self.corrupt = data.CorruptLog(recipe.max_corrupt, self._progress.get("corrupt_images", ()))
        self.recorder = RunRecorder(
            directory,
            facts,
            steps_per_epoch * recipe.batch_size,
            self.corrupt,
            functools.partial(save_portable, functools.partial(task.save, network), self.strategy),
            self._progress.get("history", ()),
            metrics=task.metrics,
        )

    def _restore(self, dataset) -> dict:
        """Restores the newest valid checkpoint on every worker and returns its record of the run's progress."""
        progress, arrays = {}, {}
        if self._directory and self._checkpoints and (newest := self._checkpoints.read_newest()):
            progress, arrays = newest.progress, newest.arrays
            check_same_data(self._directory, progress, dataset)
            self._checkpoints.check(arrays)
        progress = json.loads(self.strategy.broadcast(json.dumps(progress).encode()))
        if progress:
            self.strategy.restore(self._variables, arrays)
        return progress

    def fit(
        self,
        trainee: keras.Model,
        train_data: Callable[[int, int], object],
        eval_data: Any,
        evaluator: keras.callbacks.Callback | None,
        progress_bar: bool | None,
    ) -> None:
        """Trains the rest of the run; see `fit_from` for the data.

        Args:
            trainee: the compiled model.
            train_data: `train_data(epoch, step)` returns this worker's batches from there to the end of training.
            eval_data: this worker's evaluation batches.
            evaluator: the task's callback, if any.
            progress_bar: see `train`.
        """
        recipe, strategy, progress = self._recipe, self.strategy, self._progress
        saver = Saver(
            self._checkpoints, strategy, self.recorder, self._steps_per_epoch, recipe.checkpoint_every, progress
        )
        plan = FitPlan(
            first_epoch=progress.get("epochs", 0),
            first_step=progress.get("step", 0),
            epochs=recipe.epochs,
            steps_per_epoch=self._steps_per_epoch,
            replica_batch=recipe.batch_size // strategy.replicas,
        )
        show_bar = sys.stdout.isatty() if progress_bar is None else progress_bar
        with self._user_errors(), handle_sigterm(saver):
            fit_from(
                trainee,
                train_data,
                eval_data,
                strategy,
                plan,
                callbacks=self._callbacks(evaluator, saver, show_bar),
                verbose=1 if show_bar and self._directory else 0,
            )

    def _callbacks(self, evaluator, saver, show_bar):
        """Returns the callbacks in order: checks and metrics, then those that record them, the saver near the end."""
        directory = self._directory
        return [
            tricks.StopOnNonFinite(),
            ExactLoss(),
            *([evaluator] if evaluator else []),
            tricks.LearningRateLog(),
            *([keras.callbacks.TensorBoard(directory.tensorboard, write_graph=False)] if directory else []),
            self.recorder,
            saver,
            *([EpochLine(self._recipe.epochs, self.recorder.columns)] if directory and not show_bar else []),
        ]

    @contextlib.contextmanager
    def _user_errors(self):
        """Applies `user_errors`, and for a non-finite loss adds the newest checkpoint to the message."""
        try:
            with user_errors(self.corrupt, workers=self.strategy.workers):
                yield
        except tricks.NonFiniteLoss as error:
            files = self._checkpoints.files() if self._checkpoints else []
            state = f"The last finite state is in {files[-1]}." if files else "No state was saved before it."
            raise RunError(f"{error} {state}") from None

    def finish(self, trainee: keras.Model, evaluator: keras.callbacks.Callback | None) -> dict:
        """Saves the network and the reports, and returns the result; see `train`."""
        directory, recipe = self._directory, self._recipe
        if not directory:
            return self.recorder.result()
        self.recorder.write()
        write = functools.partial(self._task.save, self._network)
        if self.recorder.last_is_best() and directory.best.exists():  # `best` already contains this network
            write = functools.partial(shutil.copyfile, directory.best)
        save_portable(write, self.strategy, directory.model)
        if evaluator:
            evaluator.report(trainee, directory.path)
        path = pathlib.Path(recipe.dataset)
        title = f"{recipe.model} on {path.name if path.exists() else recipe.dataset}"
        draw_curves(self.recorder.history, directory.curves, metric=self._task.metrics[0], title=title)
        if names := self.corrupt.names:
            print(
                f"keras-bot: skipped images that can't be decoded ({len(names)}): {first_few(names)}.", file=sys.stderr
            )
        return {**self.recorder.result(), "run_dir": str(directory.path)}


def _named_variables(network, trainee) -> dict[str, keras.Variable]:
    """Returns all variables needed to resume a run, by name."""
    return {
        f"{owner}/{index}/{variable.name}": variable
        for owner, variables in (("model", network.variables), ("optimizer", trainee.optimizer.variables))
        for index, variable in enumerate(variables)
    }


def _facts_to_compare(recipe: Recipe, dataset: dict) -> dict[str, str]:
    """Returns the properties of the data set that must be the same on all workers."""
    names = {
        "train_images": "number of training images",
        "eval_images": "number of evaluation images",
        "class_names": "list of classes",
        "eval_checksum": "checksum of some evaluation images",
        "train_checksum": "checksum of some training images",
    }
    if recipe.shard_by == "file":  # each worker has its own files
        del names["train_checksum"]
    return {description: str(dataset[name]) for name, description in names.items()}


def save_portable(write: Callable[[pathlib.Path], object], strategy: Strategy, path: pathlib.Path) -> None:
    """Atomically saves the network with `write`, in float32 and without optimizer state.

    Raises:
        RunError: if the disk is full or can't be written to. The previous file is kept.
    """
    partial = path.with_name(f".{path.stem}.part.keras")
    try:
        with strategy.outside_distribution():
            write(partial)
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        reason = error.strerror or first_line(error)
        raise RunError(f"Cannot write {path}: {reason}. Fix it, then rerun with --resume.") from None
