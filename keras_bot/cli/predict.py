"""`keras-bot predict`: the likeliest classes of image files, by a SavedModel."""

import sys

from keras_bot.cli.flags import Flags
from keras_bot.cli.quiet import import_tensorflow
from keras_bot.errors import MisuseError, RunError

USAGE = "usage: keras-bot predict --savedmodel=savedmodels/NAME IMAGE [IMAGE …]"


def main(argv):
    """Prints the likeliest classes of each image; an image that can't be read is named, and the exit code is 1."""
    flags = Flags("predict", USAGE)
    flags.add(str, "savedmodel", "", "a SavedModel that `keras-bot export` wrote")
    flags.add(int, "top", 5, "how many classes to print")
    images = flags.parse(argv)
    if flags.help_wanted():
        return 0
    if not (flags.savedmodel and images):
        raise MisuseError("Expected --savedmodel and at least one image file. " + USAGE)
    if flags.top < 1:
        raise MisuseError(f"Expected --top at least 1, received {flags.top}.")
    import_tensorflow()

    from keras_bot.export.predict import predict_file
    from keras_bot.export.savedmodel import load_savedmodel

    loaded, description = load_savedmodel(flags.savedmodel)
    failed = 0
    for path in images:
        try:
            prediction = predict_file(loaded.serve, description.get("class_names", []), path, top=flags.top)
        except RunError as error:
            failed = 1
            print(f"keras-bot: {error}", file=sys.stderr)
            continue
        print(path)
        for name, probability in prediction.top:
            print(f"  {probability:7.2%}  {name}")
    return failed
