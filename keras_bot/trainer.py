"""Training from a recipe to a run directory."""

import functools
import pathlib
from typing import Any

import keras

from keras_bot import models
from keras_bot.bag import active_tricks
from keras_bot.errors import MisuseError
from keras_bot.recipe import Recipe
from keras_bot.tasks import find_task
from keras_bot.tasks.base import Task
from keras_bot.training.compile import compile_trainee
from keras_bot.training.optimizer import build_optimizer
from keras_bot.training.preflight import versions
from keras_bot.training.run import TrainingRun
from keras_bot.training.schedule import build_schedule, count_steps


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
        run_dir: the run directory (see `training/checkpoints/run_directory.py`).
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
        raise MisuseError(f"The recipe's task is {recipe.task}, but `task` is for {task.name}. Drop one.")
    with TrainingRun(recipe, run_dir, resume=resume, overwrite=overwrite) as run:
        strategy = run.strategy
        train_source = task.open_source(recipe, "train", strategy)
        eval_source = task.open_source(recipe, "eval", strategy, train_source.class_names)
        steps_per_epoch = count_steps(recipe, train_source, strategy.workers)
        keras.utils.set_random_seed(recipe.seed)  # after the sources: preparing a data set also draws random numbers

        with strategy.scope():
            network = task.build_network(recipe, train_source)
            schedule = build_schedule(recipe, steps_per_epoch)
            optimizer = build_optimizer(recipe, schedule, network)
            losses, step_transform = task.build_losses(train_source), task.build_step_transform(recipe)
            teacher = task.load_teacher(recipe, train_source, strategy)
            trainee = task.build_trainee(recipe, network, teacher)
            compile_trainee(recipe, trainee, network, optimizer, strategy, losses=losses, step_transform=step_transform)

        run.begin(task, network, trainee, describe(recipe, network, train_source, eval_source), steps_per_epoch)
        evaluator = task.build_evaluator(recipe, eval_source, run.corrupt)
        train_data = functools.partial(task.training_data, recipe, train_source, run.corrupt, strategy)
        eval_data = task.evaluation_data(recipe, eval_source, run.corrupt, strategy)
        run.fit(trainee, train_data, eval_data, evaluator, progress_bar)
        return run.finish(trainee, evaluator)


def describe(recipe: Recipe, network: keras.Model, train_source: Any, eval_source: Any) -> dict:
    """Returns the contents of metrics.json other than the result."""
    is_classifier = recipe.task == "classification"
    return {
        "recipe": recipe.as_text(),
        "tricks": active_tricks(recipe),
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
            "parameters": models.count_parameters(network),
            "flops": models.count_flops(network, recipe.image_size) if is_classifier else None,
        },
        "versions": versions(),
    }
