"""`keras-bot data`: summary of a data set, grid of augmented samples, conversion of folders to TFRecord shards."""

import dataclasses
import pathlib
import sys
from typing import Any

from keras_bot.bag import without
from keras_bot.cli.backend import start_tensorflow
from keras_bot.cli.flags import Flags
from keras_bot.errors import MisuseError, one_line

USAGE = """usage: keras-bot data --dataset=… [--grid=samples.png] [--flag=value …]
       keras-bot data convert FOLDER OUT [--shards=N]"""
EXAMPLES = (
    "keras-bot data --flagfile=flags/quickstart.flags --grid=digits.png",
    "keras-bot data --dataset=path/to/photos --grid=samples.png",
)
ABOUT = (
    "The data are for classification, the samples have the recipe's augmentation. `keras-bot data convert --help` "
    "describes the conversion."
)
FIELDS = (
    *("dataset", "data_dir", "train_split", "eval_split", "first_label", "num_classes", "synthetic_images"),
    *("image_size", "transform", "flip", "min_area", "crop_padding", "color_jitter", "pca_noise", "cache"),
    *("shuffle_buffer", "max_corrupt", "label_smoothing", "mixup_alpha", "ram_budget", "seed"),
)  # recipe fields that affect the summary or the samples
CONVERT_USAGE = "usage: keras-bot data convert FOLDER OUT [--shards=N] [--validation_shards=N] [--seed=0]"
CONVERT_EXAMPLES = ("keras-bot data convert path/to/photos path/to/shards",)


def main(argv: list[str]) -> None:
    """Prints sizes and classes; writes a grid of samples if --grid is set."""
    if argv[:1] == ["convert"]:
        convert(argv[1:])
        return
    flags = Flags("data", USAGE, EXAMPLES, about=ABOUT, recipe=True, effective_fields=FIELDS)
    flags.add(str, "grid", "", "PNG file to write, a grid of up to 32 augmented training images")
    flags.parse_only_flags(argv)
    if flags.handle_help():
        return
    recipe = flags.recipe()
    if flags.grid and pathlib.Path(flags.grid).suffix.lower() != ".png":
        raise MisuseError(f"--grid must end in .png, received {flags.grid}, which would be overwritten.")
    start_tensorflow()

    from keras_bot import data
    from keras_bot.tasks.classification import Classification
    from keras_bot.training.failures import user_errors

    task = Classification()
    train, evaluation = (task.open_source(recipe, split) for split in ("train", "eval"))
    names = ", ".join(map(one_line, train.class_names[:20])) + (", …" if train.num_classes > 20 else "")
    print(f"{train.name}: {train.size} training images, {evaluation.size} evaluation images")
    print(f"{train.num_classes} {'class' if train.num_classes == 1 else 'classes'}: {names}")
    if flags.grid:
        columns = min(8, train.size)
        rows = min(4, train.size // columns)
        pathlib.Path(flags.grid).parent.mkdir(parents=True, exist_ok=True)
        corrupt = data.CorruptLog(recipe.max_corrupt)
        shown = dataclasses.replace(without(recipe, "distillation"), batch_size=rows * columns, augment_on="host")
        batches = task.training_data(shown, train, corrupt)
        with user_errors(corrupt):
            data.sample_grid(batches, train.class_names, flags.grid, rows=rows, columns=columns)
        print(f"{rows * columns} augmented samples: {flags.grid}")


def convert(argv: list[str]) -> None:
    """Converts an image folder to TFRecord shards; continues an interrupted conversion."""
    flags = Flags("data convert", CONVERT_USAGE, CONVERT_EXAMPLES)
    flags.add(int, "shards", 0, "number of shards for the training images; 0 uses one per 128 MiB")
    flags.add(int, "validation_shards", 0, "number of shards for the evaluation images; 0 uses one per 128 MiB")
    flags.add(int, "seed", 0, "seed of the shuffle")
    flags.add(int, "first_label", 0, "label of the first class in the shards, 0 or 1")
    arguments = flags.parse(argv)
    if flags.handle_help():
        return
    if len(arguments) != 2:
        raise MisuseError(f"Pass the image folder and the output folder, received {arguments}. {CONVERT_USAGE}")
    start_tensorflow()

    from keras_bot.data.convert.conversion import convert
    from keras_bot.data.sources.manifest import MANIFEST

    print(f"Scanning {arguments[0]}", flush=True)
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

    def __init__(self) -> None:
        self._bar: Any = None

    def __enter__(self):
        return self

    def __call__(self, done, images, shard):
        """Shows that `done` of `images` are written; `shard` is the name of a shard that is complete, or empty."""
        if not sys.stderr.isatty():
            if shard:
                print(f"{shard} is complete: {done} of {images} images", flush=True)
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
