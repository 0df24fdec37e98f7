"""Paths that TensorFlow, or a text file, cannot take as they are."""

import contextlib
import os
import pathlib
import tempfile
from collections.abc import Iterator


def is_pattern(path: str | os.PathLike) -> bool:
    """Whether TensorFlow may miss the variables of a SavedModel there, since it takes `[` and `\\` for wildcards.

    `*`, `?` and braces do no harm: as wildcards, too, they match themselves.
    """
    return not set("[\\").isdisjoint(pathlib.Path(path).absolute().as_posix())


def is_utf8(path: str | os.PathLike) -> bool:
    """Whether a path has the bytes of a text, as TensorFlow and most runtimes need it."""
    try:
        os.fspath(path).encode()
    except UnicodeEncodeError:
        return False
    return True


@contextlib.contextmanager
def loadable(path: str | os.PathLike) -> Iterator[str]:
    """Yields a path of the SavedModel that TensorFlow can open: a temporary link where it can't open the path itself.

    TensorFlow needs it only while it loads.
    """
    absolute = os.path.abspath(path)
    if is_utf8(absolute) and not is_pattern(absolute):
        yield os.fspath(path)
        return
    with tempfile.TemporaryDirectory() as folder:
        link = os.path.join(folder, "savedmodel")
        os.symlink(absolute, link, target_is_directory=True)
        yield link
