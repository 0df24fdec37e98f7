"""Checks before a run starts: the workers and their recipes, and the run directory."""

import importlib
import pathlib

import keras

from keras_bot.errors import MisuseError, RunError
from keras_bot.recipe import Recipe
from keras_bot.recipe.text import tidy_paths
from keras_bot.training.checkpoints.run_directory import WORKERS_MAY_DIFFER, RunDirectory
from keras_bot.training.distributed.cluster import Cluster, find_cluster
from keras_bot.training.distributed.rendezvous import STARTUP_ERROR
from keras_bot.training.distributed.rendezvous_client import connect_workers


def open_run_directory(
    recipe: Recipe, run_dir: str | pathlib.Path, *, resume: bool, overwrite: bool
) -> tuple[Cluster | None, RunDirectory | None]:
    """Connects the workers, compares their recipes and opens the run directory on the chief.

    If the chief cannot open it, every worker reports the error.

    Returns:
        The workers, None for a single one; and the directory, None on workers other than the chief.

    Raises:
        MisuseError: if the directory cannot be used or the workers' recipes differ.
        RunError: if a worker does not connect in time.
    """
    cluster = find_cluster(recipe)
    directory, problem = None, None
    if cluster is None or cluster.is_chief:
        try:
            directory = RunDirectory(run_dir, recipe, resume=resume, overwrite=overwrite)
            _refuse_inputs_inside(recipe, directory.path)
        except (MisuseError, RunError, OSError) as error:
            problem = error
    try:
        texts = tidy_paths(recipe.as_text())
        same = {name: value for name, value in texts.items() if name not in WORKERS_MAY_DIFFER}
        same["resume"] = str(resume).lower()  # must agree on all workers, although only the chief reads checkpoints
        connect_workers(cluster, {**same, **versions(), STARTUP_ERROR: str(problem or "")})
    finally:
        if problem:
            raise problem
    return cluster, directory


def _refuse_inputs_inside(recipe, folder):
    """Raises MisuseError if a network that the run reads is in its own directory."""
    for name in ("teacher", "init_from"):
        path = pathlib.Path(getattr(recipe, name)).resolve()
        if getattr(recipe, name) and folder.resolve() in (path, path.parent):
            raise MisuseError(
                f"--{name}={getattr(recipe, name)} is inside the run directory {folder}. Move one of them."
            )


def versions() -> dict[str, str]:
    """Returns the backend, its version and those of keras_bot, Keras and TensorFlow, which runs the input pipeline."""
    backend = keras.backend.backend()
    names = dict.fromkeys(("keras_bot", "keras", "tensorflow", backend))
    return {**{name: importlib.import_module(name).__version__ for name in names}, "backend": backend}
