"""`keras-bot predict`: runs a SavedModel on image files; prints the top classes, or draws boxes or masks."""

import itertools
import pathlib
import sys
from collections.abc import Callable
from typing import Any

from keras_bot.cli.backend import start_tensorflow
from keras_bot.cli.flags import Flags
from keras_bot.errors import MisuseError, RunError, expect_at_least_one, one_line

USAGE = "usage: keras-bot predict --savedmodel=savedmodels/NAME IMAGE [IMAGE …]"
EXAMPLES = ("keras-bot predict --savedmodel=savedmodels/digits path/to/digit.png",)


def main(argv: list[str]) -> int:
    """Prints the predictions for each image; reports images that failed and returns 1 if there are any."""
    flags = Flags("predict", USAGE, EXAMPLES)
    flags.add(str, "savedmodel", "", "SavedModel written by `keras-bot export`")
    flags.add(int, "top", 5, "number of most likely classes to print")
    help = "directory for the drawn boxes or masks of a detector or segmentation model"
    flags.add(str, "output_dir", "predictions", help)
    flags.add(float, "min_score", 0.3, "minimum score of a detection to draw")
    images = flags.parse(argv)
    if flags.handle_help():
        return 0
    if not (flags.savedmodel and images):
        raise MisuseError(f"--savedmodel and at least one image file are required. {USAGE}")
    expect_at_least_one(top=flags.top)
    if pathlib.Path(flags.output_dir).is_file():
        raise MisuseError(f"--output_dir={flags.output_dir} is a file. Choose a directory.")
    start_tensorflow()

    from keras_bot.export.savedmodel import load_savedmodel

    loaded, description = load_savedmodel(flags.savedmodel)
    pictures = picture_files(images, pathlib.Path(flags.output_dir))
    failed = 0
    for path, picture in zip(images, pictures, strict=True):
        try:
            lines = predict_image(loaded.serve, description, path, picture, flags)
        except RunError as error:
            failed = 1
            print(f"keras-bot: {error}", file=sys.stderr)
            continue
        print("\n  ".join([one_line(path), *lines]))
    return failed


def picture_files(images: list[str], folder: pathlib.Path) -> list[pathlib.Path]:
    """Returns a distinct PNG path in `folder` for each image, never one of the images themselves."""
    files: list[pathlib.Path] = []
    taken = {pathlib.Path(path).resolve() for path in images}
    for path in images:
        stem = pathlib.Path(path).stem
        names = itertools.chain([stem], (f"{stem}-{number}" for number in itertools.count(2)))
        files.append(next(file for name in names if (file := folder / f"{name}.png").resolve() not in taken))
        taken.add(files[-1].resolve())
    return files


def predict_image(
    serve: Callable, description: dict[str, Any], path: str, picture: pathlib.Path, flags: Flags
) -> list[str]:
    """Returns the predictions for an image, one per line; for detectors and segmenters, also writes `picture`."""
    from keras_bot.export.prediction import predict_file

    if "task" in description:
        from keras_bot.tasks.prediction import draw_file

        return draw_file(serve, description, path, picture, flags.min_score)
    prediction = predict_file(serve, description.get("class_names", []), path, top=flags.top)
    return [f"{probability:7.2%}  {one_line(name)}" for name, probability in prediction.top]
