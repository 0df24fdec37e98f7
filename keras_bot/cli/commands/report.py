"""`keras-bot report`: one HTML page about one or several runs."""

import json
import pathlib
import sys

from keras_bot.cli.flags import Flags, read_recipe
from keras_bot.cli.stderr import start_backend
from keras_bot.errors import MisuseError, RunError

USAGE = (
    "usage: keras-bot report RUN_DIR [RUN_DIR …] [--output=report.html] "
    "[--flag=value to evaluate classifiers on other data, as --dataset or --data_dir]"
)


def main(argv):
    """Writes the page, prints its figures as one line of JSON, and reports missing parts on stderr."""
    flags = Flags("report", USAGE, recipe=True)
    flags.add(str, "output", "report.html", "the page; one that is there is replaced")
    folders = [pathlib.Path(argument) for argument in flags.parse(argv)]
    if flags.help_wanted():
        return
    if not folders:
        raise MisuseError(f"Expected at least one run directory, received none. {USAGE}")
    output = pathlib.Path(flags.output)
    _check_output(output)
    recipes = [read_recipe(folder) for folder in folders]
    overrides = flags.given_recipe()
    start_backend()

    from keras_bot.atomic_files import write_atomically
    from keras_bot.report.page import build_page, check_one_task
    from keras_bot.report.run_files import name_runs, read_run

    names = name_runs(folders)
    runs = [read_run(*run) for run in zip(folders, recipes, names, strict=True)]
    check_one_task(runs)
    task = runs[0].recipe.task
    if task == "classification":
        runs = [_look(run, overrides) for run in runs]
    elif overrides:
        raise MisuseError(f"Expected no flags of other data for a report on {task}, received {overrides[0]}. Drop it.")
    runs, page = build_page(runs)
    write_atomically(output, page)
    for run in runs:
        for note in run.notes:
            print(f"keras-bot: {run.path}: {note}", file=sys.stderr)
    told = {run.name: run.predictions.figures() if run.predictions else run.metrics["result"] for run in runs}
    print(json.dumps({"output": str(output), "runs": told}))


def _look(run, overrides):
    """Returns the run with its network's predictions, or with a note if the data or the network is missing.

    If the user selected other data by flags, the error is raised instead.
    """
    from keras_bot.report.predictions import predict

    recipe = read_recipe(run.path, overrides)
    try:
        return run.with_predictions(predict(recipe, run.path / "model.keras", run.class_names))
    except (MisuseError, RunError, OSError) as error:
        if overrides:
            raise
        parts = "calibration, the gap between logits, confused classes and mistakes"
        return run.with_note(f"Without {parts}: {error}")


def _check_output(path):
    """Raises MisuseError unless `path` is an .html or .htm file, or could be, in an existing folder."""
    if path.is_dir():
        raise MisuseError(f"Expected --output as a file, received the directory {path}.")
    if path.suffix.lower() not in (".html", ".htm"):
        raise MisuseError(f"Expected --output as an .html file, received {path}.")
    if not path.parent.is_dir():
        raise MisuseError(f"Expected --output in a folder that is there, received {path}. Make {path.parent} first.")
