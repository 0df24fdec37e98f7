"""Files that are there whole or not at all, also after a kill, a full disk or a power cut."""

import contextlib
import errno
import os
import pathlib
from collections.abc import Iterator

from keras_bot.errors import RunError


@contextlib.contextmanager
def replacing(path: pathlib.Path) -> Iterator:
    """`with replacing(path) as file`: a binary file that takes `path`'s place, whole and synced, at the end.

    OSError passes through; the temporary file is gone then. Only a kill leaves it, see `is_partial`.
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
        for undo in (file.close, temporary.unlink):  # a close fails as the write did, and must not hide that
            with contextlib.suppress(OSError):
                undo()
        raise
    sync_folder(path.parent)


def write_whole(path: pathlib.Path, content: bytes | str):
    """Writes a file, whole or not at all: text as UTF-8, in which halves of surrogate pairs are escaped.

    Raises:
        RunError: if it can't be written, as on a full disk.
    """
    try:
        with replacing(path) as file:
            file.write(content if isinstance(content, bytes) else content.encode(errors="backslashreplace"))
    except OSError as error:
        raise RunError(f"Can't write {path}: {error.strerror}.") from None


def is_partial(name: str) -> bool:
    """Whether a file of this name is what a kill left of one."""
    return name.startswith(".") and name.endswith(".part")


def remove_partials(folder: pathlib.Path):
    """Deletes what kills left in a folder that no other process writes to."""
    for path in folder.glob(".*.part"):
        path.unlink(missing_ok=True)


def sync_folder(folder: pathlib.Path):
    """Makes a rename in the folder last, on systems and file systems that sync folders."""
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
