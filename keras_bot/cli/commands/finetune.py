"""`keras-bot finetune`: trains a network from a SavedModel, a run or a .keras file on other data."""

from keras_bot.cli.commands.train import add_run_flags, expect_run_dir, run
from keras_bot.cli.flags import Flags, check_writable
from keras_bot.cli.stderr import start_backend
from keras_bot.errors import MisuseError

USAGE = "usage: keras-bot finetune --init_from=SAVEDMODEL --dataset=DATA [--flag=value …]"


def main(argv):
    """Trains and prints the result as one line of JSON."""
    flags = Flags("finetune", USAGE, recipe=True)
    add_run_flags(flags)
    flags.expect_no_arguments(argv)
    if flags.help_wanted():
        return
    if not flags.init_from:
        raise MisuseError(f"Expected --init_from, the network to begin with, received none. {USAGE}")
    expect_run_dir(flags)
    recipe = flags.recipe()
    check_writable(recipe, run_dir=flags.run_dir)
    start_backend()
    from keras_bot.training.finetune import like_source

    run(like_source(recipe, flags.given_names()), flags, name="finetune")
