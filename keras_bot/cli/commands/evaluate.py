"""`keras-bot evaluate`: evaluates a trained network on its own data set or another."""

import json
import math
import pathlib

from keras_bot.cli.flags import Flags, read_recipe
from keras_bot.cli.stderr import start_backend
from keras_bot.errors import MisuseError

USAGE = (
    "usage: keras-bot evaluate --run_dir=RUN [--model_file=FILE.keras] [--flag=value to override the run's recipe …]"
)


def main(argv):
    """Evaluates the network and prints the result as one line of JSON."""
    flags = Flags("evaluate", USAGE, recipe=True)
    flags.add(str, "run_dir", "", "the run whose network is evaluated, by its recipe")
    flags.add(str, "model_file", "", "another .keras file to evaluate; empty is the run's model.keras")
    flags.expect_no_arguments(argv)
    if flags.help_wanted():
        return
    if not (flags.run_dir or flags.model_file):
        raise MisuseError("Expected --run_dir or --model_file, received neither.")
    recipe = read_recipe(flags.run_dir, flags.given_recipe()) if flags.run_dir else flags.recipe()
    start_backend()

    from keras_bot import data
    from keras_bot.tasks.lookup import find_task
    from keras_bot.training.failures import user_errors

    path = pathlib.Path(flags.model_file or pathlib.Path(flags.run_dir) / "model.keras")
    task = find_task(recipe.task)
    source = task.open_source(recipe, "eval", class_names=_class_names(flags.run_dir))
    corrupt = data.CorruptLog(recipe.max_corrupt)
    with user_errors(corrupt):
        figures = task.evaluate(recipe, path, source, corrupt)
    print(json.dumps(_plain({**figures, "images": source.size - len(corrupt.names), "model_file": str(path)})))


def _class_names(run_dir: str) -> tuple[str, ...]:
    """Returns the class names that a run was trained on, in order; () without a run."""
    from keras_bot.training.checkpoints.run_directory import read_metrics

    return tuple(read_metrics(run_dir)["dataset"]["class_names"]) if run_dir else ()


def _plain(value):
    """Replaces NaN, which JSON lacks, with None."""
    if isinstance(value, dict):
        return {name: _plain(part) for name, part in value.items()}
    return None if isinstance(value, float) and math.isnan(value) else value
