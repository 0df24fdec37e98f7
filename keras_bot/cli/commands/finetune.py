"""`keras-bot finetune`: fine-tunes the network of a SavedModel, run or .keras file on other data."""

from keras_bot.cli.backend import start_backend
from keras_bot.cli.commands.train import add_run_flags, check_run_dir, run_or_plan
from keras_bot.cli.flags import Flags, check_writable
from keras_bot.errors import MisuseError

USAGE = "usage: keras-bot finetune --init_from=SAVEDMODEL --dataset=DATA [--flag=value …]"
EXAMPLES = (
    "keras-bot finetune --init_from=savedmodels/digits --dataset=digits --epochs=5 --learning_rate=0.01",
    "keras-bot finetune --flagfile=flags/finetune.flags --init_from=path/to/model.keras --dataset=path/to/photos",
)
ABOUT = (
    "--init_from is required; the model, its width and, for classification, the image size and preprocessing default "
    "to those of the trained model."
)


def main(argv: list[str]) -> None:
    """Fine-tunes and prints the result as one line of JSON."""
    flags = Flags("finetune", USAGE, EXAMPLES, about=ABOUT, recipe=True)
    add_run_flags(flags)
    flags.parse_only_flags(argv)
    if flags.handle_help():
        return
    if not flags.init_from:
        raise MisuseError(f"--init_from is required: the network to fine-tune. {USAGE}")
    check_run_dir(flags)
    recipe = flags.recipe()
    check_writable(recipe, run_dir=flags.run_dir)
    start_backend()
    from keras_bot.training.finetune import with_source_settings

    run_or_plan(with_source_settings(recipe, flags.explicit_fields()), flags, name="finetune")
