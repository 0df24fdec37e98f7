"""Lock that lets only one process at a time train in a run directory."""

import contextlib
import errno
import os
import pathlib
import socket
from collections.abc import Iterator

from keras_bot.errors import MisuseError, RunError

LOCK = ".lock"
_UNSUPPORTED = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)  # some network file systems


@contextlib.contextmanager
def lock_run(folder: str | pathlib.Path) -> Iterator[None]:
    """Locks a run directory until the `with` block or this process ends, even if it is killed.

    The file `.lock` contains the holder's process id and host, and is not deleted. On systems without file
    locks, other processes are not excluded.

    Args:
        folder: the run directory; created if missing.

    Raises:
        MisuseError: if another process holds the lock, or the directory cannot be created.
        RunError: if the directory is not writable.
    """
    folder = pathlib.Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MisuseError(f"Cannot create the directory {folder}: {error.strerror}. Choose another.") from None
    fcntl = _fcntl()
    if fcntl is None:
        yield
        return
    try:
        descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise _unwritable(folder, error) from None
    try:
        _acquire(fcntl, descriptor, folder)
        yield
    finally:
        os.close(descriptor)


def _fcntl():
    try:
        import fcntl
    except ImportError:  # Windows
        return None
    return fcntl


def _acquire(fcntl, descriptor, folder):
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise MisuseError(
            f"Another process{_holder(descriptor)} is training in {folder}. Wait for it, stop it, or choose another "
            "directory."
        ) from None
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise _unwritable(folder, error) from None
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()} {socket.gethostname()}\n".encode(), 0)
    except OSError as error:
        raise _unwritable(folder, error) from None


def _holder(descriptor):
    """Returns the process id and host in the lock file as text, "" if it is not written yet."""
    pid, _, host = os.pread(descriptor, 1000, 0).decode(errors="replace").strip().partition(" ")
    return f" (pid {pid} on {host})" if pid.isdigit() and host else ""


def _unwritable(folder, error):
    return RunError(f"Cannot write to the directory {folder}: {error.strerror}. Make it writable or choose another.")
