"""Checks of an export's path before any work begins. This module does not import TensorFlow."""

import os
import pathlib

from keras_bot.errors import MisuseError
from keras_bot.paths import is_pattern, is_utf8


def check_utf8(path: str | os.PathLike) -> None:
    """Raises MisuseError unless the path is valid UTF-8, which the runtimes of most formats need."""
    if not is_utf8(path):
        raise MisuseError(
            f"Cannot export to {path}: the path is not valid UTF-8. Choose another --output_dir or --name."
        )


def check_savedmodel_path(path: pathlib.Path, overwrite: bool) -> None:
    """Raises MisuseError unless a SavedModel may be written to `path` and TensorFlow can load it from there."""
    check_utf8(path)
    if is_pattern(path):
        raise MisuseError(
            f"Cannot export a SavedModel to {path.absolute()}: TensorFlow could not load it, because [ and \\ in paths "
            "are wildcards to it. Choose another --output_dir or --name."
        )
    if path.exists():
        if not overwrite:
            raise MisuseError(
                f"{path} already exists. Choose another name, or replace it with --overwrite (overwrite=True)."
            )
        if not (path / "saved_model.pb").exists():
            raise MisuseError(f"{path} is not a SavedModel, so it is not overwritten. Choose another name.")
