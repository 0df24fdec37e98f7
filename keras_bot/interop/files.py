"""Readers of other libraries' weight files: arrays by name, without interpretation of the names.

| file | written by | read with |
|---|---|---|
| .safetensors | timm and many others | safetensors |
| .pth, .pt, .bin | PyTorch: a state_dict | torch, tensors only: no objects are unpickled |
| .keras, .weights.h5, .h5 | Keras; a directory is a keras-hub preset | h5py |
| .params | MXNet: GluonCV | NumPy |
| .npz | NumPy | NumPy |
"""

import os
import pathlib
from collections.abc import Callable

import numpy as np

from keras_bot.errors import MisuseError, unknown
from keras_bot.interop.keras_file import read_keras
from keras_bot.interop.mxnet_file import read_params

_PRESET = ("model.weights.h5", "task.weights.h5")  # keras-hub's backbone and head
_NESTED = ("state_dict", "model")  # checkpoint keys under which PyTorch training scripts store the state_dict


def read_tensors(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Reads the arrays of a file by name, with the file's shapes and dtypes; bfloat16 of .pth files becomes float32.

    If all names in a PyTorch file share a prefix, such as `module.` from DataParallel, it is removed.

    Raises:
        MisuseError: if the file is missing, damaged or of an unknown format, or the package that reads it is missing.
    """
    path = pathlib.Path(path)
    if not path.exists():
        raise MisuseError(f"The weight file {path} does not exist.")
    read = _read_preset if path.is_dir() else _READERS.get(path.suffix)
    if read is None:
        raise unknown("file format", path.suffix or path.name, _READERS)
    try:
        return read(path)
    except MisuseError:
        raise
    except ImportError as error:
        raise MisuseError(
            f"Reading {path.suffix} files needs {error.name}, which is not installed. Run `pip install {error.name}`."
        ) from None
    except Exception as error:  # for a damaged file, each library raises different exceptions
        reason = " ".join(str(error).split())[:200].rstrip(".") or type(error).__name__
        raise MisuseError(
            f"Cannot read {path}: it is damaged, or not a {path.suffix} weight file ({reason})."
        ) from None


def read_metadata(path: str | os.PathLike) -> dict[str, str]:
    """Returns the metadata of a .safetensors file, or {} for other formats."""
    if pathlib.Path(path).suffix != ".safetensors":
        return {}
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        return file.metadata() or {}


def _read_safetensors(path):
    import ml_dtypes  # noqa: F401  # registers bfloat16 with NumPy
    from safetensors.numpy import load_file

    return _unwrapped(load_file(path))


def _read_torch(path):
    import pickle

    import torch

    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise MisuseError(
            f"{path} is damaged, or contains pickled Python objects, whose loading would run code from the file. If "
            "you trust it, load it in PyTorch and save its state_dict()."
        ) from None
    content = next((content[key] for key in _NESTED if isinstance(content, dict) and key in content), content)
    if not isinstance(content, dict) or not all(isinstance(value, torch.Tensor) for value in content.values()):
        raise MisuseError(
            f"{path} contains a {type(content).__name__}. Save a state_dict instead: a dictionary of tensors by name."
        )
    return _unwrapped({k: (t.float() if t.dtype == torch.bfloat16 else t).detach().numpy() for k, t in content.items()})


def _unwrapped(tensors):
    """Removes prefixes that all names share: `module.` from DataParallel, `backbone.` from an enclosing module."""
    outer = {name.partition(".")[0] for name in tensors}
    if len(outer) != 1 or not all("." in name for name in tensors):
        return tensors
    return _unwrapped({name.partition(".")[2]: array for name, array in tensors.items()})


def _read_preset(path):
    present = [path / name for name in _PRESET if (path / name).is_file()]
    if not present:
        raise MisuseError(f"The directory {path} is not a keras-hub preset: it does not contain {_PRESET[0]}.")
    return {name: array for file in present for name, array in read_keras(file).items()}


def _read_npz(path):
    with np.load(path, allow_pickle=False) as file:
        return dict(file)


_READERS: dict[str, Callable] = {
    ".safetensors": _read_safetensors,
    ".pth": _read_torch,
    ".pt": _read_torch,
    ".bin": _read_torch,
    ".keras": read_keras,
    ".h5": read_keras,
    ".params": read_params,
    ".npz": _read_npz,
}
