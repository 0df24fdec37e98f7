"""Handling of paths that TensorFlow or text files don't support."""

import contextlib
import os
import pathlib
import tempfile
from collections.abc import Iterator


def is_pattern(path: str | os.PathLike) -> bool:
    """Returns whether TensorFlow may not find the variables of a SavedModel there: `[` and `\\` act as wildcards.

    `*`, `?` and braces are harmless, because as wildcards they also match themselves.
    """
    return not set("[\\").isdisjoint(pathlib.Path(path).absolute().as_posix())


def is_utf8(path: str | os.PathLike) -> bool:
    """Returns whether a path can be encoded as UTF-8, as TensorFlow and most runtimes require."""
    try:
        os.fspath(path).encode()
    except UnicodeEncodeError:
        return False
    return True


@contextlib.contextmanager
def loadable(path: str | os.PathLike) -> Iterator[str]:
    """Yields a SavedModel path that TensorFlow can open: a temporary symlink if it can't open the path itself.

    TensorFlow needs the path only during loading.
    """
    absolute = os.path.abspath(path)
    if is_utf8(absolute) and not is_pattern(absolute):
        yield os.fspath(path)
        return
    with tempfile.TemporaryDirectory() as folder:
        link = os.path.join(folder, "savedmodel")
        os.symlink(absolute, link, target_is_directory=True)
        yield link
