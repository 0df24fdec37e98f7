"""Atomic file writes that survive a kill, a full disk or a power failure."""

import contextlib
import errno
import os
import pathlib
from collections.abc import Iterator
from typing import BinaryIO

from keras_bot.errors import RunError


@contextlib.contextmanager
def replacing(path: pathlib.Path) -> Iterator[BinaryIO]:
    """Yields a binary temporary file that is synced and atomically replaces `path` at the end of the `with` block.

    If an exception is raised, the temporary file is deleted. Only a kill leaves it behind, see `is_partial`.
    """
    path = pathlib.Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    file = open(temporary, "wb")  # noqa: SIM115
    try:
        yield file
        file.flush()
        os.fsync(file.fileno())
        file.close()
        os.replace(temporary, path)
    except BaseException:
        for undo in (file.close, temporary.unlink):  # close may fail like the write; keep the original error
            with contextlib.suppress(OSError):
                undo()
        raise
    sync_folder(path.parent)


def write_atomically(path: pathlib.Path, content: bytes | str) -> None:
    """Writes a file atomically; text is encoded as UTF-8 with lone surrogates escaped.

    Raises:
        RunError: if it can't be written, for example because the disk is full.
    """
    try:
        with replacing(path) as file:
            file.write(content if isinstance(content, bytes) else content.encode(errors="backslashreplace"))
    except OSError as error:
        raise RunError(f"Cannot write {path}: {error.strerror}.") from None


def is_partial(name: str) -> bool:
    """Returns whether this is the name of a temporary file, as left behind by a kill."""
    return name.startswith(".") and name.endswith(".part")


def remove_partials(folder: pathlib.Path) -> None:
    """Deletes leftover temporary files in a folder that no other process writes to."""
    for path in folder.glob(".*.part"):
        path.unlink(missing_ok=True)


def sync_folder(folder: pathlib.Path) -> None:
    """Makes renames in the folder durable, on operating and file systems that can sync folders."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)
