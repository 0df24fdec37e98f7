"""`keras-bot train`: trains a network by a recipe of flags."""

import json
import time

from keras_bot.cli.flags import Flags, check_writable
from keras_bot.cli.stderr import start_backend
from keras_bot.errors import MisuseError
from keras_bot.recipe import Recipe

USAGE = "usage: keras-bot train [--flagfile=flags/quickstart.flags] [--flag=value …]"


def main(argv):
    """Trains and prints the result as one line of JSON."""
    flags = Flags("train", USAGE, recipe=True)
    add_run_flags(flags)
    flags.expect_no_arguments(argv)
    if flags.help_wanted():
        return
    expect_run_dir(flags)
    recipe = flags.recipe()
    check_writable(recipe, run_dir=flags.run_dir)
    start_backend()
    run(recipe, flags, name=recipe.model)


def run(recipe: Recipe, flags: Flags, *, name: str):
    """Trains and prints the result, or with --dry_run the plan; `name` starts the default run directory's name."""
    from keras_bot.tasks.lookup import find_task
    from keras_bot.trainer import train

    if flags.dry_run:
        from keras_bot.plan import plan

        print(plan(recipe, find_task(recipe.task)))
        return
    run_dir = flags.run_dir or f"runs/{name}-{time.strftime('%Y%m%d-%H%M%S')}"
    result = train(recipe, run_dir, resume=flags.resume, overwrite=flags.overwrite)
    if "run_dir" in result:  # the chief's
        print(json.dumps(result))


def add_run_flags(flags: Flags):
    """Adds the flags of a command that trains into a run directory."""
    flags.add(str, "run_dir", "", "where the records go; empty is a new directory in runs/, by model and time")
    flags.add(bool, "resume", False, "go on from the newest checkpoint of the run that run_dir holds, if any")
    flags.add(bool, "overwrite", False, "delete the run that run_dir holds")
    flags.add(
        bool, "dry_run", False, "print what would be done: recipe, tricks, steps, learning rates, decayed variables"
    )


def expect_run_dir(flags: Flags):
    """Raises MisuseError if --resume or --overwrite is given without --run_dir."""
    for name in ("resume", "overwrite"):
        if getattr(flags, name) and not flags.run_dir:
            raise MisuseError(f"Expected --run_dir with --{name}, the directory of the run, received none.")
