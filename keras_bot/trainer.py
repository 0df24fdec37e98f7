"""Training from start to end: workers, sources, network, state, fit, records."""

import contextlib
import functools
import json
import pathlib
import shutil
import sys
from collections.abc import Callable

import keras

from keras_bot import data, models, tricks
from keras_bot.errors import MisuseError, RunError, first_line
from keras_bot.recipe import Recipe, tidy_paths
from keras_bot.tasks.base import Task
from keras_bot.tasks.lookup import find_task
from keras_bot.training import assemble
from keras_bot.training.checkpoints.checkpoint import Checkpoints
from keras_bot.training.checkpoints.run_directory import (
    WORKERS_MAY_DIFFER,
    EpochLine,
    RunDirectory,
    RunRecorder,
    check_same_data,
)
from keras_bot.training.checkpoints.run_lock import lock_run
from keras_bot.training.checkpoints.saver import Saver, handle_sigterm
from keras_bot.training.curves import draw_curves
from keras_bot.training.distributed.cluster import Cluster, find_cluster, meet_workers
from keras_bot.training.distributed.rendezvous import TROUBLE
from keras_bot.training.distributed.selection import build_strategy
from keras_bot.training.distributed.strategy import Strategy
from keras_bot.training.evaluate import ExactLoss
from keras_bot.training.failures import user_errors
from keras_bot.training.fit import fit_from
from keras_bot.training.versions import versions


def train(
    recipe: Recipe,
    run_dir: str | pathlib.Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    progress_bar: bool | None = None,
    task: Task | None = None,
) -> dict:
    """Trains a network according to a recipe and writes all results to a run directory.

    With several workers, each calls this function; only the first, the chief, reads and writes the directory.

    Args:
        recipe: the training configuration.
        run_dir: the run directory (see `records.py`).
        resume: continue from the newest checkpoint in the directory, as if the run had not been interrupted.
        overwrite: delete the existing run in the directory.
        progress_bar: True for Keras' progress bar, False for one line per epoch; None is a bar only on a terminal.
        task: implementation of the recipe's task; None is `find_task(recipe.task)`.

    Returns:
        The task's metrics (top1 and top5 for classification), loss, the best value of the first metric (best_top1),
        epochs, images_per_second and training_seconds; on the chief also run_dir.

    Raises:
        MisuseError: if the recipe, data or directory is invalid, or differs between workers.
        RunError: if too many images can't be decoded, the loss becomes non-finite, a worker is lost, or the disk can't
            be written to.
        Terminated: after SIGTERM, with the state saved.
    """
    task = task or find_task(recipe.task)
    if recipe.task != task.name:
        raise MisuseError(f"Expected the task of the recipe, {recipe.task}, received that of {task.name}.")
    cluster, run = _open_run(recipe, run_dir, resume=resume, overwrite=overwrite)
    strategy = build_strategy(recipe, cluster)
    train_source = task.open_source(recipe, "train", strategy)
    eval_source = task.open_source(recipe, "eval", strategy, train_source.class_names)
    steps_per_epoch = assemble.steps_in_epoch(recipe, train_source, strategy.workers)
    keras.utils.set_random_seed(recipe.seed)  # after the sources: preparing a data set also draws random numbers
    with (
        tricks.mixed_precision(recipe.precision),
        user_errors(None, workers=strategy.workers),
        contextlib.ExitStack() as opened,
    ):
        with strategy.scope():
            model, trainee = task.build(recipe, train_source, strategy)
            trainee.optimizer.build(model.trainable_variables)
        facts = describe(recipe, model, train_source, eval_source)
        strategy.check_same_data(data_of_all_workers(recipe, facts["dataset"]))
        opened.enter_context(_writing(run))  # only now, so that a rejected run leaves no files behind
        checkpoints = (
            Checkpoints(run.checkpoints, _state(model, trainee), keep=recipe.keep_checkpoints) if run else None
        )
        progress = _restore(run, checkpoints, strategy, model, trainee, facts) if resume else {}
        corrupt = data.CorruptLog(recipe.max_corrupt, progress.get("corrupt_images", ()))
        write = functools.partial(task.save, model)
        recorder = RunRecorder(
            run,
            facts,
            steps_per_epoch * recipe.batch_size,
            corrupt,
            functools.partial(save_portable, write, strategy),
            progress.get("history", ()),
            metrics=task.metrics,
        )
        evaluator = task.evaluator(recipe, eval_source, corrupt)
        saver = Saver(checkpoints, strategy, recorder, steps_per_epoch, recipe.checkpoint_every, progress)
        show_bar = sys.stdout.isatty() if progress_bar is None else progress_bar
        with _user_errors(corrupt, checkpoints, strategy), handle_sigterm(saver):
            fit_from(
                trainee,
                lambda epoch, step: task.training_data(
                    recipe, train_source, corrupt, first_epoch=epoch, first_step=step, strategy=strategy
                ),
                task.evaluation_data(recipe, eval_source, corrupt, strategy),
                strategy,
                epoch=progress.get("epochs", 0),
                step=progress.get("step", 0),
                epochs=recipe.epochs,
                steps_per_epoch=steps_per_epoch,
                replica_batch=recipe.batch_size // strategy.replicas,
                callbacks=[
                    tricks.StopOnNonFinite(),
                    ExactLoss(),
                    *([evaluator] if evaluator else []),
                    tricks.LearningRateLog(),
                    *([keras.callbacks.TensorBoard(run.tensorboard, write_graph=False)] if run else []),
                    recorder,
                    saver,
                    *([EpochLine(recipe.epochs, recorder.columns)] if run and not show_bar else []),
                ],
                verbose=1 if show_bar and run else 0,
            )
        if not run:
            return recorder.result()
        recorder.write()
        if recorder.last_is_best() and run.best.exists():  # `best` already contains this network
            write = functools.partial(shutil.copyfile, run.best)
        save_portable(write, strategy, run.model)
        if evaluator:
            evaluator.report(trainee, run.path)
        path = pathlib.Path(recipe.dataset)
        title = f"{recipe.model} on {path.name if path.exists() else recipe.dataset}"
        draw_curves(recorder.history, run.curves, metric=task.metrics[0], title=title)
    return {**recorder.result(), "run_dir": str(run.path)}


def _open_run(recipe, run_dir, **how) -> tuple[Cluster | None, RunDirectory | None]:
    """Connects the workers, compares their recipes and opens the run directory on the chief.

    If the chief cannot open it, every worker reports the error.
    """
    cluster = find_cluster(recipe)
    run, problem = None, None
    if cluster is None or cluster.is_chief:
        try:
            run = RunDirectory(run_dir, recipe, **how)
            for name in ("teacher", "init_from"):
                given = getattr(recipe, name)
                if given and run.path.resolve() in (path := pathlib.Path(given).resolve(), path.parent):
                    raise MisuseError(f"Expected the {name} outside the run_dir, received {given} in {run.path}.")
        except (MisuseError, RunError, OSError) as error:
            problem = error
    try:
        texts = tidy_paths(recipe.as_text())
        same = {name: value for name, value in texts.items() if name not in WORKERS_MAY_DIFFER}
        resume = str(how["resume"]).lower()  # must agree on all workers, although only the chief reads checkpoints
        meet_workers(cluster, {**same, "resume": resume, **versions(), TROUBLE: str(problem or "")})
    finally:
        if problem:
            raise problem
    return cluster, run


@contextlib.contextmanager
def _writing(run):
    """Locks, and thereby creates, the run directory and begins the run; does nothing on workers without one."""
    if not run:
        yield
        return
    with lock_run(run.path):
        run.begin()
        yield


def _state(model, trainee) -> dict[str, keras.Variable]:
    """Returns all variables needed to resume a run, by name."""
    return {
        f"{owner}/{index}/{variable.name}": variable
        for owner, variables in (("model", model.variables), ("optimizer", trainee.optimizer.variables))
        for index, variable in enumerate(variables)
    }


def _restore(run, checkpoints, strategy, model, trainee, facts) -> dict:
    """Restores the newest valid checkpoint on every worker and returns its record of the run's progress."""
    progress, arrays = {}, {}
    if checkpoints and (newest := checkpoints.read_newest()):
        progress, arrays = newest
        check_same_data(run, progress, facts["dataset"])
        checkpoints.check(arrays)
    progress = json.loads(strategy.broadcast(json.dumps(progress).encode()))
    if progress:
        strategy.restore(_state(model, trainee), arrays)
    return progress


@contextlib.contextmanager
def _user_errors(corrupt, checkpoints, strategy):
    """Applies `user_errors`, and for a non-finite loss adds the newest checkpoint to the message."""
    try:
        with user_errors(corrupt, workers=strategy.workers):
            yield
    except tricks.NonFiniteLoss as error:
        kept = checkpoints.files() if checkpoints else []
        state = f"The last good state is kept in {kept[-1]}." if kept else "Nothing was good yet, so nothing was saved."
        raise RunError(f"{error} {state}") from None


def save_portable(write: Callable[[pathlib.Path], object], strategy: Strategy, path: pathlib.Path):
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
        raise RunError(f"Can't write {path}: {first_line(error)}. Mend that, then --resume.") from None


def data_of_all_workers(recipe: Recipe, dataset: dict) -> dict[str, str]:
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
    return {told: str(dataset[name]) for name, told in names.items()}


def describe(recipe: Recipe, model: keras.Model, train_source, eval_source) -> dict:
    """Returns the contents of metrics.json other than the result."""
    return {
        "recipe": recipe.as_text(),
        "tricks": assemble.active_tricks(recipe),
        "dataset": {
            "name": train_source.name,
            "train_images": train_source.size,
            "eval_images": eval_source.size,
            "class_names": list(train_source.class_names),
            "train_checksum": train_source.fingerprint(),
            "eval_checksum": eval_source.fingerprint(),
        },
        "network": {
            "name": recipe.model,
            "parameters": models.count_parameters(model),
            "flops": models.count_flops(model, recipe.image_size) if recipe.task == "classification" else None,
        },
        "versions": versions(),
    }
