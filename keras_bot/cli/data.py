"""`keras-bot data`: what a data source holds, and a picture of augmented samples."""

from keras_bot.cli.flags import Flags
from keras_bot.cli.quiet import import_tensorflow
from keras_bot.errors import MisuseError

USAGE = "usage: keras-bot data --dataset=… [--grid=samples.png] [--flag=value of the recipe …]"


def main(argv):
    """Prints sizes and classes; writes the picture if asked."""
    flags = Flags("data", USAGE, recipe=True)
    flags.add(str, "grid", "", "a PNG file to write 32 augmented training samples to")
    flags.expect_no_arguments(argv)
    if flags.help_wanted():
        return
    recipe = flags.recipe()
    import_tensorflow()

    from keras_bot import data
    from keras_bot.training import assemble
    from keras_bot.training.evaluate import telling_corruption

    train, evaluation = (assemble.open_source(recipe, split) for split in ("train", "eval"))
    names = ", ".join(train.class_names[:20]) + (", …" if train.num_classes > 20 else "")
    print(f"{train.name}: {train.size} training images, {evaluation.size} evaluation images")
    print(f"{train.num_classes} classes: {names}")
    if flags.grid:
        rows, columns = 4, 8
        if train.size < rows * columns:
            raise MisuseError(f"Expected at least {rows * columns} training images for --grid, received {train.size}.")
        corrupt = data.CorruptLog(recipe.max_corrupt)
        batches = assemble.training_data(recipe, train, corrupt, batch_size=rows * columns)
        with telling_corruption(corrupt):
            data.sample_grid(batches, train.class_names, flags.grid, rows=rows, columns=columns)
        print(f"{rows * columns} samples as the network sees them: {flags.grid}")
