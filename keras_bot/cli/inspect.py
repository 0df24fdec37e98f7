"""`keras-bot inspect`: what an exported SavedModel holds."""

import pathlib

from keras_bot.cli.flags import Flags
from keras_bot.cli.quiet import import_tensorflow
from keras_bot.errors import MisuseError

USAGE = "usage: keras-bot inspect SAVEDMODEL"


def main(argv):
    """Prints endpoints, shapes, classes, preprocessing, recipe and size."""
    flags = Flags("inspect", USAGE)
    paths = flags.parse(argv)
    if flags.help_wanted():
        return
    if len(paths) != 1:
        raise MisuseError(f"Expected one SavedModel, received {len(paths)}. {USAGE}")
    import_tensorflow()
    from keras_bot.export.inspect import inspect

    print(inspect(pathlib.Path(paths[0])))
