"""`keras-bot inspect`: describes an exported SavedModel or file."""

import pathlib

from keras_bot.cli.backend import start_tensorflow
from keras_bot.cli.flags import Flags
from keras_bot.errors import MisuseError

USAGE = "usage: keras-bot inspect SAVEDMODEL_OR_FILE"
EXAMPLES = ("keras-bot inspect savedmodels/digits",)


def main(argv: list[str]) -> None:
    """Prints signatures, shapes, classes, preprocessing, recipe and size."""
    flags = Flags("inspect", USAGE, EXAMPLES)
    paths = flags.parse(argv)
    if flags.handle_help():
        return
    if len(paths) != 1:
        raise MisuseError(f"Pass one SavedModel or file, received {len(paths)}. {USAGE}")
    start_tensorflow()
    from keras_bot.export.inspect import inspect

    if paths[0].endswith(".keras"):
        import keras_bot.tasks.serving  # noqa: F401  # registers the layers of detectors and segmenters

    print(inspect(pathlib.Path(paths[0])))
