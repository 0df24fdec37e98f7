"""`keras-bot evaluate`: evaluates a trained network on the data set of its run or on another one."""

import json
import math
import pathlib

from keras_bot.cli.backend import start_backend
from keras_bot.cli.flags import Flags, read_recipe
from keras_bot.errors import MisuseError

USAGE = "usage: keras-bot evaluate --run_dir=RUN [--model_file=FILE.keras] [--flag=value …]"
EXAMPLES = (
    "keras-bot evaluate --run_dir=runs/quickstart  # trained by the example in `keras-bot train --help`",
    "keras-bot evaluate --run_dir=runs/photos --dataset=path/to/other_photos",
)
ABOUT = "Flags override the recipe of --run_dir, whose values replace the defaults below."
EVALUATION_FIELDS = (
    *("dataset", "data_dir", "eval_split", "first_label", "num_classes", "synthetic_images", "image_size"),
    *("transform", "eval_crop", "scaled_eval", "cache", "max_corrupt", "batch_size", "ram_budget"),
)  # recipe fields that affect the evaluation of a classifier
FIELDS = (*EVALUATION_FIELDS, "task", "map_metric")


def main(argv: list[str]) -> None:
    """Evaluates the network and prints the result as one line of JSON."""
    flags = Flags("evaluate", USAGE, EXAMPLES, about=ABOUT, recipe=True, effective_fields=FIELDS)
    flags.add(str, "run_dir", "", "run directory with the trained network and its recipe")
    flags.add(str, "model_file", "", ".keras file to evaluate; empty uses model.keras of the run")
    flags.parse_only_flags(argv)
    if flags.handle_help():
        return
    if not (flags.run_dir or flags.model_file):
        raise MisuseError("--run_dir or --model_file is required.")
    recipe = read_recipe(flags.run_dir, flags.recipe_arguments()) if flags.run_dir else flags.recipe()
    start_backend()

    from keras_bot import data
    from keras_bot.tasks import find_task
    from keras_bot.training.failures import user_errors

    path = pathlib.Path(flags.model_file or pathlib.Path(flags.run_dir) / "model.keras")
    task = find_task(recipe.task)
    source = task.open_source(recipe, "eval", class_names=_class_names(flags.run_dir))
    corrupt = data.CorruptLog(recipe.max_corrupt)
    with user_errors(corrupt):
        metrics = task.evaluate(recipe, path, source, corrupt)
    print(json.dumps(_plain({**metrics, "images": source.size - len(corrupt.names), "model_file": str(path)})))


def _class_names(run_dir: str) -> tuple[str, ...]:
    """Returns the class names of a run, in the order of its logits; () without a run."""
    from keras_bot.training.checkpoints.run_directory import read_metrics

    return tuple(read_metrics(run_dir)["dataset"]["class_names"]) if run_dir else ()


def _plain(value):
    """Replaces NaN, which JSON lacks, with None."""
    if isinstance(value, dict):
        return {name: _plain(part) for name, part in value.items()}
    return None if isinstance(value, float) and math.isnan(value) else value
