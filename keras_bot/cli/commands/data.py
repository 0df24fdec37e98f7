"""`keras-bot data`: summary of a data source, grid of augmented samples, conversion of folders to TFRecord shards."""

import pathlib
import sys

from keras_bot.cli.flags import Flags
from keras_bot.cli.stderr import import_tensorflow
from keras_bot.errors import MisuseError, one_line

USAGE = """usage: keras-bot data --dataset=… [--grid=samples.png] [--flag=value of the recipe …]
       keras-bot data convert FOLDER OUT [--shards=N]"""
CONVERT_USAGE = "usage: keras-bot data convert FOLDER OUT [--shards=N] [--validation_shards=N] [--seed=0]"


def main(argv):
    """Prints sizes and classes; writes the grid of samples if --grid is given."""
    if argv[:1] == ["convert"]:
        return convert(argv[1:])
    flags = Flags("data", USAGE, recipe=True)
    flags.add(str, "grid", "", "a PNG file to write up to 32 augmented training samples to")
    flags.expect_no_arguments(argv)
    if flags.help_wanted():
        return
    recipe = flags.recipe()
    if flags.grid and pathlib.Path(flags.grid).suffix.lower() != ".png":
        raise MisuseError(f"Expected --grid as a .png file, received {flags.grid}. What is there would be replaced.")
    import_tensorflow()

    from keras_bot import data
    from keras_bot.training import assemble
    from keras_bot.training.failures import user_errors

    train, evaluation = (assemble.open_source(recipe, split) for split in ("train", "eval"))
    names = ", ".join(map(one_line, train.class_names[:20])) + (", …" if train.num_classes > 20 else "")
    print(f"{train.name}: {train.size} training images, {evaluation.size} evaluation images")
    print(f"{train.num_classes} classes: {names}")
    if flags.grid:
        columns = min(8, train.size)
        rows = min(4, train.size // columns)
        pathlib.Path(flags.grid).parent.mkdir(parents=True, exist_ok=True)
        corrupt = data.CorruptLog(recipe.max_corrupt)
        batches = assemble.training_data(recipe, train, corrupt, batch_size=rows * columns, augment_on="host")
        with user_errors(corrupt):
            data.sample_grid(batches, train.class_names, flags.grid, rows=rows, columns=columns)
        print(f"{rows * columns} samples as the network sees them: {flags.grid}")


def convert(argv):
    """Writes an image folder to TFRecord shards; continues where an earlier run ended."""
    flags = Flags("data convert", CONVERT_USAGE)
    flags.add(int, "shards", 0, "files to shuffle the training images over; 0 is one for each 128 MiB")
    flags.add(int, "validation_shards", 0, "files of the evaluation images; 0 is one for each 128 MiB")
    flags.add(int, "seed", 0, "of the shuffle")
    flags.add(int, "first_label", 0, "label of the first class, 0 or 1")
    arguments = flags.parse(argv)
    if flags.help_wanted():
        return
    if len(arguments) != 2:
        raise MisuseError(f"Expected a folder of images and one to write to, received {arguments}. {CONVERT_USAGE}")
    import_tensorflow()

    from keras_bot.data.convert.conversion import convert
    from keras_bot.data.sources.manifest import MANIFEST

    print(f"Looking at the files of {arguments[0]}", flush=True)
    with _Progress() as progress:
        manifest = convert(
            *arguments,
            shards=flags.shards,
            validation_shards=flags.validation_shards,
            seed=flags.seed,
            first_label=flags.first_label,
            progress=progress,
        )
    for name, split in manifest["splits"].items():
        print(f"{name}: {split['records']} images in {len(split['shards'])} shard{'s' * (len(split['shards']) > 1)}")
    print(f"{len(manifest['class_names'])} classes; sizes and checksums in {pathlib.Path(arguments[1], MANIFEST)}")


class _Progress:
    """Progress bar on a terminal; elsewhere one line per shard."""

    def __init__(self):
        self._bar = None

    def __enter__(self):
        return self

    def __call__(self, done, images, shard):
        if not sys.stderr.isatty():
            if shard:
                print(f"{shard} is whole: {done} of {images} images", flush=True)
            return
        if self._bar is None:
            from tqdm import tqdm

            self._bar = tqdm(total=images, unit=" images", dynamic_ncols=True)
        self._bar.update(done - self._bar.n)
        if shard:
            self._bar.set_postfix_str(shard, refresh=False)

    def __exit__(self, *_):
        if self._bar is not None:
            self._bar.close()
