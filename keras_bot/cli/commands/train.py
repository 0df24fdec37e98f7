"""`keras-bot train`: trains a network with the recipe that the flags describe."""

import json
import time

from keras_bot.cli.backend import start_backend
from keras_bot.cli.flags import Flags, check_writable
from keras_bot.errors import MisuseError
from keras_bot.recipe import Recipe

USAGE = "usage: keras-bot train [--flagfile=FILE] [--flag=value …]"
EXAMPLES = (
    "keras-bot train --flagfile=flags/quickstart.flags --run_dir=runs/quickstart",
    "keras-bot train --flagfile=flags/photos.flags --dataset=path/to/photos --run_dir=runs/photos",
)
ABOUT = "The flags describe the recipe; the defaults are the paper's baseline, without tricks."


def main(argv: list[str]) -> None:
    """Trains and prints the result as one line of JSON."""
    flags = Flags("train", USAGE, EXAMPLES, about=ABOUT, recipe=True)
    add_run_flags(flags)
    flags.parse_only_flags(argv)
    if flags.handle_help():
        return
    check_run_dir(flags)
    recipe = flags.recipe()
    check_writable(recipe, run_dir=flags.run_dir)
    start_backend()
    run_or_plan(recipe, flags, name=recipe.model)


def run_or_plan(recipe: Recipe, flags: Flags, *, name: str) -> None:
    """Trains, or with --dry_run prints the plan; `name` is the prefix of the default run directory."""
    if flags.dry_run:
        from keras_bot.plan import plan

        print(plan(recipe))
    else:
        run(recipe, flags, name=name)


def run(recipe: Recipe, flags: Flags, *, name: str) -> None:
    """Trains and prints the result."""
    from keras_bot.trainer import train

    run_dir = flags.run_dir or f"runs/{name}-{time.strftime('%Y%m%d-%H%M%S')}"
    result = train(recipe, run_dir, resume=flags.resume, overwrite=flags.overwrite)
    if "run_dir" in result:  # only on the chief worker
        print(json.dumps(result))


def add_run_flags(flags: Flags) -> None:
    """Adds the flags of a command that trains into a run directory."""
    help = "run directory for checkpoints, metrics and the model; empty creates one in runs/"
    flags.add(str, "run_dir", "", help)
    flags.add(bool, "resume", False, "resume the run in run_dir from its newest checkpoint, if there is one")
    flags.add(bool, "overwrite", False, "delete the run in run_dir and start a new one")
    help = "print the recipe, tricks, steps, learning rates and decayed variables, then exit"
    flags.add(bool, "dry_run", False, help)


def check_run_dir(flags: Flags) -> None:
    """Raises MisuseError for --resume or --overwrite without --run_dir."""
    for name in ("resume", "overwrite"):
        if getattr(flags, name) and not flags.run_dir:
            raise MisuseError(f"--{name} requires --run_dir.")
