"""`keras-bot report`: writes an HTML page about one or several runs."""

import json
import pathlib
import sys

from keras_bot.cli.backend import start_backend
from keras_bot.cli.commands.evaluate import EVALUATION_FIELDS
from keras_bot.cli.flags import Flags, read_recipe
from keras_bot.errors import MisuseError, RunError

USAGE = "usage: keras-bot report RUN_DIR [RUN_DIR …] [--output=report.html] [--flag=value …]"
EXAMPLES = (
    "keras-bot report runs/quickstart  # trained by the example in `keras-bot train --help`",
    "keras-bot report runs/one runs/two --output=comparison.html",
)
ABOUT = "For classifiers, flags override the recipes of the runs, whose values replace the defaults below."


def main(argv: list[str]) -> None:
    """Writes the page, prints its metrics as one line of JSON, and reports missing parts on stderr."""
    flags = Flags("report", USAGE, EXAMPLES, about=ABOUT, recipe=True, effective_fields=EVALUATION_FIELDS)
    flags.add(str, "output", "report.html", "HTML file to write; an existing one is replaced")
    folders = [pathlib.Path(argument) for argument in flags.parse(argv)]
    if flags.handle_help():
        return
    if not folders:
        raise MisuseError(f"Pass at least one run directory. {USAGE}")
    output = pathlib.Path(flags.output)
    _check_output(output)
    recipes = [read_recipe(folder) for folder in folders]
    overrides = flags.recipe_arguments()
    start_backend()

    from keras_bot.atomic_files import write_atomically
    from keras_bot.report.page import build_page, check_one_task
    from keras_bot.report.run_files import name_runs, read_run

    names = name_runs(folders)
    runs = [read_run(*run) for run in zip(folders, recipes, names, strict=True)]
    check_one_task(runs)
    task = runs[0].recipe.task
    if task == "classification":
        runs = [_with_predictions(run, overrides) for run in runs]
    elif overrides:
        raise MisuseError(f"{overrides[0]} is only supported for classification, but the runs are for {task}. Drop it.")
    runs, page = build_page(runs)
    write_atomically(output, page)
    for run in runs:
        for note in run.notes:
            print(f"keras-bot: {run.path}: {note}", file=sys.stderr)
    results = {run.name: run.predictions.metrics() if run.predictions else run.metrics["result"] for run in runs}
    print(json.dumps({"output": str(output), "runs": results}))


def _with_predictions(run, overrides):
    """Returns the run with its network's predictions, or with a note if the data or the network is missing.

    With `overrides`, which select other data, the error is raised instead.
    """
    from keras_bot.report.predictions import predict

    recipe = read_recipe(run.path, overrides)
    try:
        return run.with_predictions(predict(recipe, run.path / "model.keras", run.class_names))
    except (MisuseError, RunError, OSError) as error:
        if overrides:
            raise
        return run.with_note(f"No calibration, logit gap, confused classes and mistakes: {error}")


def _check_output(path):
    """Raises MisuseError unless `path` is an .html or .htm file, or could be, in an existing folder."""
    if path.is_dir():
        raise MisuseError(f"--output={path} is a directory. Choose an .html file.")
    if path.suffix.lower() not in (".html", ".htm"):
        raise MisuseError(f"--output must end in .html or .htm, received {path}.")
    if not path.parent.is_dir():
        raise MisuseError(f"The folder of --output={path} does not exist. Create {path.parent} first.")
