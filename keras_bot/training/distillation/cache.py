"""On-disk cache of the teacher's outputs for training images: one file per epoch, one record per step.

    DIR/cache.json        the manifest: everything that determines the teacher's inputs and outputs
    DIR/epoch-00001.npy   one record per step: open with np.load(…, mmap_mode="r")

A record covers all images of a batch: `targets`, the teacher's outputs (see `soft_targets`); `seen`, a fingerprint of
each image, to detect images that have changed; and a checksum. An epoch's file appears when its last step is written;
an incomplete epoch is recomputed. Several processes may read and write at once: each writes its own temporary file,
and the last one to finish replaces the others' files.
"""

import contextlib
import dataclasses
import itertools
import json
import os
import pathlib
import re
import socket
import zlib
from typing import BinaryIO

import numpy as np

from keras_bot.atomic_files import is_partial, write_atomically
from keras_bot.errors import MisuseError, RunError

MANIFEST = "cache.json"


@dataclasses.dataclass(frozen=True)
class CachedStep:
    """Cached values of a step's images.

    Args:
        fingerprints: float32 (batch_size, 3).
        targets: float32 (batch_size, target_size).
    """

    fingerprints: np.ndarray
    targets: np.ndarray


@dataclasses.dataclass
class _EpochWriter:
    """File of an epoch whose steps are still being written."""

    epoch: int
    file: BinaryIO
    path: pathlib.Path
    next_step: int = 0


class TeacherCache:
    """Cache of one recipe in one directory. Nothing is written before `begin`.

    Args:
        folder: the directory; it need not exist.
        steps_per_epoch: training steps per epoch.
        batch_size: images per step.
        target_size: numbers stored per image.
    """

    def __init__(self, folder: str | os.PathLike, *, steps_per_epoch: int, batch_size: int, target_size: int) -> None:
        self.folder = pathlib.Path(folder)
        self._steps = steps_per_epoch
        self._record = np.dtype(
            [("checksum", "<u4"), ("seen", "<f4", (batch_size, 3)), ("targets", "<f4", (batch_size, target_size))]
        )
        self._reader: tuple[int, int, BinaryIO] | None = None
        self._writer: _EpochWriter | None = None
        self._file_numbers = itertools.count()

    def path(self, epoch: int) -> pathlib.Path:
        """Returns the path of an epoch's file; epochs count from 0."""
        return self.folder / f"epoch-{epoch + 1:05d}.npy"

    def epoch_bytes(self) -> int:
        """Returns the size of an epoch's file in bytes, without its header."""
        return self._steps * self._record.itemsize

    def check(self, key: dict[str, str], epochs: int) -> None:
        """Raises MisuseError if the folder contains other files, a cache with another key, or a truncated file."""
        if not self.folder.exists():
            return
        if self.folder.is_dir() and all(is_partial(file.name) for file in self.folder.iterdir()):
            return
        manifest = self.folder / MANIFEST
        if not manifest.is_file():
            raise MisuseError(
                f"--teacher_cache={self.folder} is neither a new directory nor a teacher cache. "
                "Choose another directory."
            )
        try:
            stored = json.loads(manifest.read_text(encoding="utf-8"))
            differing = [name for name in {**key, **stored} if key.get(name) != stored.get(name)]
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise MisuseError(f"Cannot read {manifest}: {error}. Choose another --teacher_cache.") from None
        if differing:
            changes = [f"{name} was {stored.get(name, 'unset')}, is {key.get(name, 'unset')}" for name in differing]
            raise MisuseError(
                f"--teacher_cache={self.folder} was computed for other batches or another teacher "
                f"({'; '.join(changes)}). Choose another directory; nothing was deleted."
            )
        for epoch in range(epochs):
            if self.path(epoch).exists():
                self._offset(epoch)

    def begin(self, key: dict[str, str]) -> None:
        """Creates the folder, writes the key to its manifest, and deletes partial files of killed processes.

        Raises RunError if the folder cannot be created.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"Cannot create --teacher_cache={self.folder}: {error.strerror}.") from None
        write_atomically(self.folder / MANIFEST, json.dumps(key, indent=2) + "\n")
        for partial in self.folder.glob(".epoch-*.part"):
            match = re.fullmatch(rf"\.epoch-\d+\.{_host()}\.(\d+)\..*", partial.name)
            if match and (int(match[1]) == os.getpid() or not _is_alive(int(match[1]))):
                with contextlib.suppress(OSError):
                    partial.unlink()

    def read(self, epoch: int, step: int) -> CachedStep:
        """Reads a step's record. Raises RunError if it is damaged or cannot be read."""
        path = self.path(epoch)
        try:
            if self._reader is None or self._reader[0] != epoch:
                self._reader = epoch, self._offset(epoch), open(path, "rb")  # noqa: SIM115
            _, offset, file = self._reader
            file.seek(offset + step * self._record.itemsize)
            data = file.read(self._record.itemsize)
        except (OSError, MisuseError) as error:
            raise RunError(f"Cannot read {path}: {error}") from None
        if len(data) < self._record.itemsize or zlib.crc32(data[4:]) != int.from_bytes(data[:4], "little"):
            raise RunError(
                f"{path} is damaged: checksum mismatch in step {step + 1}. Delete that file, then rerun with --resume "
                "to recompute its epoch."
            )
        record = np.frombuffer(data, self._record)[0]
        return CachedStep(record["seen"], record["targets"])

    def write(self, epoch: int, step: int, fingerprints: np.ndarray, targets: np.ndarray) -> None:
        """Appends one step. An epoch is kept only if all its steps arrive in order.

        Raises:
            RunError: if the disk is full or not writable.
        """
        record = np.zeros((), self._record)
        record["seen"], record["targets"] = fingerprints, targets
        data = bytearray(record.tobytes())
        data[:4] = zlib.crc32(data[4:]).to_bytes(4, "little")
        try:
            if step == 0:
                self._open(epoch)
            writer = self._writer
            if writer is None or (writer.epoch, writer.next_step) != (epoch, step):
                return
            writer.file.write(data)
            writer.next_step += 1
            if writer.next_step == self._steps:
                self._close(writer)
        except OSError as error:
            raise RunError(f"Cannot write to --teacher_cache={self.folder}: {error.strerror}.") from None

    def _open(self, epoch):
        number = f"{next(self._file_numbers)}-{id(self)}"
        path = self.folder / f".{self.path(epoch).stem}.{_host()}.{os.getpid()}.{number}.part"
        file = open(path, "wb")  # noqa: SIM115
        header = np.lib.format.header_data_from_array_1_0(np.empty(0, self._record)) | {"shape": (self._steps,)}
        np.lib.format.write_array_header_1_0(file, header)
        self._writer = _EpochWriter(epoch, file, path)

    def _close(self, writer):
        self._writer = None
        with writer.file as file:
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileNotFoundError):  # another run in this process has deleted it
            os.replace(writer.path, self.path(writer.epoch))

    def _offset(self, epoch):
        """Returns the offset of the records in an epoch's file. Raises MisuseError if it is damaged or truncated."""
        path = self.path(epoch)
        try:
            records = np.lib.format.open_memmap(path, mode="r")
            if (records.dtype, records.shape) != (self._record, (self._steps,)):
                raise ValueError("unexpected record type or number of steps")
        except (OSError, ValueError, SyntaxError, TypeError) as error:
            raise MisuseError(
                f"{path} in the --teacher_cache is damaged or truncated: {error}. Delete that file; its epoch will be "
                "recomputed."
            ) from None
        return records.offset


def _host():
    return re.sub(r"\W", "_", socket.gethostname()) or "localhost"


def _is_alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
