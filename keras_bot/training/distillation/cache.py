"""On-disk cache of the teacher's outputs for training images: one file per epoch, one record per step.

    DIR/cache.json        everything that determines the teacher's inputs and outputs
    DIR/epoch-00001.npy   one record per step: open with np.load(…, mmap_mode="r")

A record covers all images of a batch: their `targets` (see `soft_targets`), a few means of each image, `seen`, to
detect images that have changed, and a checksum. An epoch's file appears when its last step is written; an incomplete
one is recomputed. Several processes may read and write at once: each writes files of its own, and the last one remains.
"""

import contextlib
import itertools
import json
import os
import pathlib
import re
import socket
import zlib

import numpy as np

from keras_bot.atomic_files import is_partial, write_atomically
from keras_bot.errors import MisuseError, RunError

CARD = "cache.json"


class TeacherCache:
    """Cache of one recipe in one directory. Nothing is written before `begin`.

    Args:
        folder: the directory; it need not exist.
        steps: steps per epoch.
        rows: images per step.
        width: numbers stored per image.
    """

    def __init__(self, folder: str | os.PathLike, *, steps: int, rows: int, width: int):
        self.folder = pathlib.Path(folder)
        self._steps = steps
        forms = {"seen": ("<f4", (rows, 3)), "targets": ("<f4", (rows, width))}
        self._record = np.dtype([("checksum", "<u4"), *((name, *form) for name, form in forms.items())])
        self._reader = self._writer = None
        self._parts = itertools.count()

    def path(self, epoch: int) -> pathlib.Path:
        """Returns the path of an epoch's file; epochs count from 0."""
        return self.folder / f"epoch-{epoch + 1:05d}.npy"

    def epoch_bytes(self) -> int:
        """Returns the size of an epoch's file in bytes, without its header."""
        return self._steps * self._record.itemsize

    def check(self, facts: dict[str, str], epochs: int):
        """Raises MisuseError if the folder contains other files, a cache with other facts, or a truncated file."""
        if not self.folder.exists():
            return
        if self.folder.is_dir() and all(is_partial(file.name) for file in self.folder.iterdir()):
            return
        card = self.folder / CARD
        if not card.is_file():
            raise MisuseError(f"Expected --teacher_cache as a new directory or a cache, received {self.folder}.")
        try:
            stored = json.loads(card.read_text(encoding="utf-8"))
            differing = [name for name in {**facts, **stored} if facts.get(name) != stored.get(name)]
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise MisuseError(f"Can't read {card}: {error}. Choose another --teacher_cache.") from None
        if differing:
            told = [f"{name} was {stored.get(name, 'unset')}, is {facts.get(name, 'unset')}" for name in differing]
            raise MisuseError(
                f"The --teacher_cache {self.folder} is of other batches or another teacher ({'; '.join(told)}). "
                "Choose another directory; nothing was deleted."
            )
        for epoch in range(epochs):
            if self.path(epoch).exists():
                self._offset(epoch)

    def begin(self, facts: dict[str, str]):
        """Creates the folder and its card, and deletes partial files of killed processes.

        Raises RunError if the folder can't be created.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"Can't make the --teacher_cache {self.folder}: {error.strerror}.") from None
        write_atomically(self.folder / CARD, json.dumps(facts, indent=2) + "\n")
        for part in self.folder.glob(".epoch-*.part"):
            ours = re.fullmatch(rf"\.epoch-\d+\.{_host()}\.(\d+)\..*", part.name)
            if ours and (int(ours[1]) == os.getpid() or not _is_alive(int(ours[1]))):
                with contextlib.suppress(OSError):
                    part.unlink()

    def read(self, epoch: int, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Reads `seen` (rows, 3) and `targets` (rows, width) of a step, float32. Raises RunError if it is damaged."""
        path = self.path(epoch)
        try:
            if self._reader is None or self._reader[0] != epoch:
                self._reader = epoch, self._offset(epoch), open(path, "rb")  # noqa: SIM115
            _, offset, file = self._reader
            file.seek(offset + step * self._record.itemsize)
            data = file.read(self._record.itemsize)
        except (OSError, MisuseError) as error:
            raise RunError(f"Can't read {path}: {error}") from None
        if len(data) < self._record.itemsize or zlib.crc32(data[4:]) != int.from_bytes(data[:4], "little"):
            raise RunError(
                f"{path} is damaged: the checksum of step {step + 1} doesn't fit. Delete that file, and --resume: "
                "its epoch is computed anew."
            )
        record = np.frombuffer(data, self._record)[0]
        return record["seen"], record["targets"]

    def write(self, epoch: int, step: int, seen: np.ndarray, targets: np.ndarray):
        """Appends one step. An epoch is kept only if all its steps arrive in order.

        Raises:
            RunError: if the disk is full, or can't be written to.
        """
        record = np.zeros((), self._record)
        record["seen"], record["targets"] = seen, targets
        data = bytearray(record.tobytes())
        data[:4] = zlib.crc32(data[4:]).to_bytes(4, "little")
        try:
            if step == 0:
                self._open(epoch)
            if self._writer is None or self._writer[:2] != (epoch, step):
                return
            _, _, file, part = self._writer
            file.write(data)
            self._writer = epoch, step + 1, file, part
            if step + 1 == self._steps:
                self._close()
        except OSError as error:
            raise RunError(f"Can't write to the --teacher_cache {self.folder}: {error.strerror}.") from None

    def _open(self, epoch):
        part = self.folder / f".{self.path(epoch).stem}.{_host()}.{os.getpid()}.{next(self._parts)}-{id(self)}.part"
        file = open(part, "wb")  # noqa: SIM115
        header = np.lib.format.header_data_from_array_1_0(np.empty(0, self._record)) | {"shape": (self._steps,)}
        np.lib.format.write_array_header_1_0(file, header)
        self._writer = epoch, 0, file, part

    def _close(self):
        epoch, _, file, part = self._writer
        self._writer = None
        with file:
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileNotFoundError):  # another run in this process has deleted it
            os.replace(part, self.path(epoch))

    def _offset(self, epoch):
        """Returns the offset of the records in an epoch's file. Raises MisuseError if it is damaged or truncated."""
        path = self.path(epoch)
        try:
            records = np.lib.format.open_memmap(path, mode="r")
            if (records.dtype, records.shape) != (self._record, (self._steps,)):
                raise ValueError("its records have another form")
        except (OSError, ValueError, SyntaxError, TypeError) as error:
            raise MisuseError(
                f"Can't use {path} of the --teacher_cache, which is damaged or cut: {error}. Delete that file: its "
                "epoch is computed anew."
            ) from None
        return records.offset


def _host():
    return re.sub(r"\W", "_", socket.gethostname()) or "here"


def _is_alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
