"""The state of a run after an epoch: every variable of network and optimizer, and the history so far.

One .npz file an epoch, written under another name, synced and renamed, so that a kill at any moment leaves the last
good one in place. The two newest are kept.
"""

import json
import os
import pathlib
import zipfile

import keras
import numpy as np

from keras_bot.errors import RunError

KEPT = 2
_STATE = "state.json"


class Checkpoints:
    """The checkpoints in one folder.

    Args:
        folder: where they lie; made when the first is written.
        model: the network, built.
        optimizer: its optimizer, built.
    """

    def __init__(self, folder: pathlib.Path, model: keras.Model, optimizer: keras.optimizers.Optimizer):
        self.folder = pathlib.Path(folder)
        self._variables = {
            f"{owner}/{index}/{variable.name}": variable
            for owner, variables in (("model", model.variables), ("optimizer", optimizer.variables))
            for index, variable in enumerate(variables)
        }

    def files(self) -> list[pathlib.Path]:
        """The checkpoints there are, oldest first."""
        return sorted(self.folder.glob("epoch-*.npz"))

    def save(self, progress: dict) -> pathlib.Path:
        """Writes the state after progress["epochs"] whole epochs and drops all but the newest files.

        Raises:
            RunError: if a variable isn't finite; nothing is written then.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"epoch-{progress['epochs']:05d}.npz"
        arrays = {name: keras.ops.convert_to_numpy(variable) for name, variable in self._variables.items()}
        broken = [name for name, array in arrays.items() if not np.isfinite(array).all()]
        if broken:
            raise RunError(f"The variable {broken[0]} is not finite after epoch {progress['epochs']}; it is not saved.")
        with replacing(path) as file:
            np.savez(file, **arrays, **{_STATE: np.array(json.dumps(progress))})
        for old in (*self.files()[:-KEPT], *self.folder.glob(".*.part")):
            old.unlink()
        return path

    def restore(self) -> dict:
        """Puts the newest state back; returns what `save` was given as progress, {} if there is none.

        Raises:
            RunError: if the newest file can't be read or belongs to another network.
        """
        files = self.files()
        if not files:
            return {}
        try:
            with np.load(files[-1], allow_pickle=False) as stored:
                progress = json.loads(str(stored[_STATE]))
                arrays = {name: stored[name] for name in stored.files if name != _STATE}
        except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise RunError(
                f"Can't read the checkpoint {files[-1]} ({error}). Delete it to resume from the one before."
            ) from None
        if {name: array.shape for name, array in arrays.items()} != {
            name: tuple(variable.shape) for name, variable in self._variables.items()
        }:
            raise RunError(
                f"The checkpoint {files[-1]} is of another network, number of classes or version. Use --overwrite."
            )
        for name, variable in self._variables.items():
            variable.assign(arrays[name])
        return progress


class replacing:
    """`with replacing(path) as file`: a binary file that takes `path`'s place, whole and synced, at the end."""

    def __init__(self, path: pathlib.Path):
        self._path = pathlib.Path(path)
        self._temporary = self._path.with_name(f".{self._path.name}.{os.getpid()}.part")

    def __enter__(self):
        self._file = open(self._temporary, "wb")
        return self._file

    def __exit__(self, kind, value, traceback):
        if kind is None:
            self._file.flush()
            os.fsync(self._file.fileno())
        self._file.close()
        if kind is None:
            os.replace(self._temporary, self._path)
        else:
            self._temporary.unlink(missing_ok=True)
