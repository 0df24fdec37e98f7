"""`keras-bot data`: what a data source holds, and a picture of augmented samples."""

import pathlib

from keras_bot.cli.flags import Flags
from keras_bot.cli.quiet import import_tensorflow

USAGE = "usage: keras-bot data --dataset=… [--grid=samples.png] [--flag=value of the recipe …]"


def main(argv):
    """Prints sizes and classes; writes the picture if asked."""
    flags = Flags("data", USAGE, recipe=True)
    flags.add(str, "grid", "", "a PNG file to write up to 32 augmented training samples to")
    flags.expect_no_arguments(argv)
    if flags.help_wanted():
        return
    recipe = flags.recipe()
    import_tensorflow()

    from keras_bot import data
    from keras_bot.training import assemble
    from keras_bot.training.evaluate import clear_errors

    train, evaluation = (assemble.open_source(recipe, split) for split in ("train", "eval"))
    names = ", ".join(train.class_names[:20]) + (", …" if train.num_classes > 20 else "")
    print(f"{train.name}: {train.size} training images, {evaluation.size} evaluation images")
    print(f"{train.num_classes} classes: {names}")
    if flags.grid:
        columns = min(8, train.size)
        rows = min(4, train.size // columns)
        pathlib.Path(flags.grid).parent.mkdir(parents=True, exist_ok=True)
        corrupt = data.CorruptLog(recipe.max_corrupt)
        batches = assemble.training_data(recipe, train, corrupt, batch_size=rows * columns)
        with clear_errors(corrupt):
            data.sample_grid(batches, train.class_names, flags.grid, rows=rows, columns=columns)
        print(f"{rows * columns} samples as the network sees them: {flags.grid}")
