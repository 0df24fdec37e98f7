"""Checkpoints: every variable of network and optimizer, and the progress of the run, after a step.

A checkpoint is one .npz file, which `np.load` opens; its zip comment is the SHA-256 of all bytes before it. The file is
written under a temporary name, synced and renamed, and the folder is synced, before the oldest one is deleted. A kill
or a full disk at any moment therefore leaves the newest valid checkpoint in place. A truncated or modified file fails
its checksum and is skipped.
"""

import contextlib
import dataclasses
import hashlib
import io
import json
import pathlib
import re
import sys
import zipfile

import keras
import ml_dtypes
import numpy as np

from keras_bot.atomic_files import remove_partials, replacing, sync_folder
from keras_bot.errors import RunError, first_few

_STATE = "state.json"
_NAME = re.compile(r"step-\d{8,}\.npz")
_CHECKSUM = hashlib.sha256().digest_size * 2  # characters


@dataclasses.dataclass(frozen=True)
class SavedState:
    """Contents of a checkpoint.

    Args:
        progress: progress of the run, as passed to `Checkpoints.save`.
        arrays: value of every variable, by name.
    """

    progress: dict
    arrays: dict[str, np.ndarray]


class Checkpoints:
    """The checkpoints in one folder.

    Args:
        folder: directory of the checkpoints, created on the first write.
        variables: the variables to save, by name.
        keep: number of newest checkpoints to keep; the newest is always kept.
    """

    def __init__(self, folder: pathlib.Path, variables: dict[str, keras.Variable], *, keep: int = 2) -> None:
        self.folder = pathlib.Path(folder)
        self._variables = dict(variables)
        self._keep = max(1, keep)
        self._damaged: set[pathlib.Path] = set()  # damaged files that could not be renamed

    def files(self) -> list[pathlib.Path]:
        """Returns the checkpoint files, oldest first. Files found damaged have been renamed and are not included."""
        found = [path for path in self.folder.glob("step-*.npz") if _NAME.fullmatch(path.name)]
        return sorted(found, key=lambda path: int(path.stem[5:]))

    def collect(self) -> dict[str, np.ndarray]:
        """Returns the current value of every variable."""
        return {name: np.asarray(keras.ops.convert_to_numpy(variable)) for name, variable in self._variables.items()}

    def save(self, progress: dict, arrays: dict[str, np.ndarray] | None = None) -> pathlib.Path:
        """Writes the state after progress["steps"] steps, then deletes all but the newest `keep` files.

        Args:
            progress: progress of the run, serialisable as JSON.
            arrays: result of `collect`; None collects now.

        Raises:
            RunError: if a variable is not finite (nothing is written then), the file cannot be written, or an old one
                cannot be deleted.
        """
        arrays = self.collect() if arrays is None else arrays
        non_finite = [name for name, array in arrays.items() if not np.isfinite(array).all()]
        if non_finite:
            raise RunError(f"{non_finite[0]} is not finite after step {progress['steps']}. No checkpoint was written.")
        data = _to_bytes(progress, arrays)
        path = self.folder / f"step-{progress['steps']:08d}.npz"
        previous = self.files()
        try:
            if not self.folder.is_dir():
                self.folder.mkdir(parents=True, exist_ok=True)
                sync_folder(self.folder.parent)
            remove_partials(self.folder)  # those of killed processes would fill the disk
            with replacing(path) as file:
                file.write(data)
        except OSError as error:
            raise RunError(
                f"Cannot write the checkpoint {path}: {error.strerror}. {_describe_newest(previous)}"
            ) from None
        self._damaged.discard(path)
        files = [file for file in self.files() if file not in self._damaged]
        older = files[: files.index(path)]
        for old in older[: max(0, len(older) + 1 - self._keep)]:
            try:
                old.unlink(missing_ok=True)
            except OSError as error:
                raise RunError(f"Cannot delete the old checkpoint {old}: {error.strerror}.") from None
        return path

    def read_newest(self) -> SavedState | None:
        """Reads the newest file with a valid checksum; returns None if there are no checkpoints.

        Newer, damaged files are reported on stderr and renamed.

        Raises:
            RunError: if no checkpoint is valid, one cannot be read, or it was written by another version.
        """
        damaged: list[pathlib.Path] = []
        for path in reversed(self.files()):
            try:
                data = path.read_bytes()
            except OSError as error:
                raise RunError(
                    f"Cannot read {path}: {error.strerror}. Move it to resume from an older checkpoint."
                ) from None
            if _is_valid(data):
                self._rename_damaged(damaged, path)
                return _from_bytes(data, path)
            damaged.append(path)
        self._rename_damaged(damaged)
        self._refuse_unusable(damaged)
        return None

    def _rename_damaged(self, damaged, valid=None):
        """Renames damaged files; reports them if a `valid` one is used instead."""
        for path in damaged:
            if valid:
                message = f"the checkpoint {path} is damaged (checksum mismatch); resuming from {valid}."
                print(f"keras-bot: {message}", file=sys.stderr, flush=True)
            new_path = path.with_name(f"{path.name}.damaged")
            while new_path.exists():
                new_path = new_path.with_name(f"{new_path.name}.damaged")
            with contextlib.suppress(OSError):  # the next read detects the damage again
                path.rename(new_path)
        self._damaged.update(path for path in damaged if path.exists())

    def _refuse_unusable(self, damaged):
        """Raises RunError if there are only unusable checkpoints: a run must not silently start over."""
        damaged = damaged or sorted(self.folder.glob("step-*.damaged"))
        unusable = damaged or sorted(self.folder.glob("epoch-*.npz"))
        if unusable:
            reason = "damaged (checksum mismatch)" if damaged else "written by another version of keras_bot"
            names = first_few([path.name for path in unusable])
            raise RunError(f"All checkpoints in {self.folder} are {reason}: {names}. Use --overwrite to start over.")

    def check(self, arrays: dict[str, np.ndarray]) -> None:
        """Raises RunError unless names and shapes of the arrays match the variables."""
        expected = {name: array.shape for name, array in self.collect().items()}
        stored = {name: array.shape for name, array in arrays.items()}
        for name in (name for name in (*expected, *stored) if expected.get(name) != stored.get(name)):
            raise RunError(
                f"The checkpoint in {self.folder} is from another network, number of classes or version: {name} has "
                f"shape {stored.get(name, '(missing)')} in the checkpoint and {expected.get(name, '(missing)')} in "
                "the network. Use --overwrite to start over."
            )


def _to_bytes(progress, arrays):
    """Serialises a checkpoint in memory, so that the file is written in one call."""
    buffer = io.BytesIO()
    dtypes = {name: array.dtype.name for name, array in arrays.items() if array.dtype.isbuiltin == 2}
    state = np.array(json.dumps({"progress": progress, "dtypes": dtypes}))
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, array in {**arrays, _STATE: state}.items():
            if name in dtypes:  # bfloat16 etc.: .npy can't distinguish them from raw bytes
                array = array.view(f"u{array.dtype.itemsize}")
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as file:  # fixed timestamp
                np.lib.format.write_array(file, array, allow_pickle=False)
        archive.comment = b"0" * _CHECKSUM
    data = buffer.getbuffer()
    data[-_CHECKSUM:] = _checksum(data)
    return data


def _from_bytes(data, path):
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as stored:
            state = json.loads(str(stored[_STATE]))
            arrays = {name: stored[name] for name in stored.files if name != _STATE}
        for name, dtype in state["dtypes"].items():
            arrays[name] = arrays[name].view(getattr(ml_dtypes, dtype))
        return SavedState(state["progress"], arrays)
    except (EOFError, ValueError, KeyError, AttributeError, zipfile.BadZipFile) as error:
        raise RunError(
            f"The checkpoint {path} was written by another version of keras_bot ({error}). "
            "Use --overwrite to start over."
        ) from None


def _checksum(data):
    return hashlib.sha256(memoryview(data)[:-_CHECKSUM]).hexdigest().encode()


def _is_valid(data):
    return data[-_CHECKSUM:] == _checksum(data)


def _describe_newest(files):
    """Returns a sentence with the newest valid checkpoint, for an error message."""
    for path in reversed(files):
        with contextlib.suppress(OSError):
            if _is_valid(path.read_bytes()):
                return f"The newest valid checkpoint is {path}."
    return "No other checkpoint is valid." if files else "There is no other checkpoint."
