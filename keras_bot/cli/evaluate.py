"""`keras-bot evaluate`: top-1 and top-5 of a run's network, on its own data set or another."""

import json
import pathlib

from keras_bot.cli.flags import Flags, read_recipe
from keras_bot.cli.quiet import start_backend
from keras_bot.errors import MisuseError

USAGE = (
    "usage: keras-bot evaluate --run_dir=RUN [--model_file=FILE.keras] [--flag=value to override the run's recipe …]"
)


def main(argv):
    """Evaluates, and prints the result as one line of JSON."""
    flags = Flags("evaluate", USAGE, recipe=True)
    flags.add(str, "run_dir", "", "the run whose network is evaluated, by its recipe")
    flags.add(str, "model_file", "", "another .keras file with logits to evaluate; empty is the run's model.keras")
    flags.expect_no_arguments(argv)
    if flags.help_wanted():
        return
    if not (flags.run_dir or flags.model_file):
        raise MisuseError("Expected --run_dir or --model_file, received neither.")
    recipe = read_recipe(flags.run_dir, flags.given_recipe()) if flags.run_dir else flags.recipe()
    if recipe.task != "classification":
        raise MisuseError(
            f"Expected a run of classification, received one of {recipe.task}: its table.md has the results by class."
        )
    start_backend()

    from keras_bot import data
    from keras_bot.training import assemble
    from keras_bot.training.evaluate import evaluate
    from keras_bot.training.network import load_network

    path = pathlib.Path(flags.model_file or pathlib.Path(flags.run_dir) / "model.keras")
    source = assemble.open_source(recipe, "eval")
    model = load_network(path, num_classes=source.num_classes)
    corrupt = data.CorruptLog(recipe.max_corrupt)
    result = evaluate(model, assemble.evaluation_data(recipe, source, corrupt), corrupt=corrupt)
    print(json.dumps({**result, "images": source.size - len(corrupt.names), "model_file": str(path)}))
