"""Keras' files of weights, old and new, as arrays named LAYER/WEIGHT: `conv1_conv/kernel`, `conv1_bn/moving_mean`.

No model is built from them, so the libraries that they come from needn't be installed. The layers of a model within a
model (keras-hub's backbone in a classifier) are named as if they were its own.
"""

import io
import os
import zipfile

import numpy as np

# In the order that Keras 3 numbers a layer's weights, by the class that it names the layer's group after.
_WEIGHTS = {
    "conv2d": ("kernel", "bias"),
    "depthwise_conv2d": ("kernel", "bias"),
    "dense": ("kernel", "bias"),
    "batch_normalization": ("gamma", "beta", "moving_mean", "moving_variance"),
}
_NO_WEIGHTS = ("optimizer", "seed_generator")  # what else a file may hold


def read_keras(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """The arrays of a `.keras`, `.weights.h5` or `.h5` file.

    Raises:
        ValueError: if it isn't one of these, or tells no layers' names.
        OSError: if HDF5 can't read it.
    """
    import h5py

    content = path
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            content = io.BytesIO(archive.read("model.weights.h5"))
    with h5py.File(content, "r") as file:
        root = file.get("model_weights", file)
        return _old(root) if "layer_names" in root.attrs else _new(file)


def _old(root):
    """HDF5 as Keras 2 had it: each layer's group tells the paths of its weights."""
    arrays = {}
    for layer in root.attrs["layer_names"]:
        group = root[_text(layer)]
        for name in group.attrs["weight_names"]:
            owner, weight = _text(name).removesuffix(":0").split("/")[-2:]
            arrays[f"{owner}/{weight}"] = np.asarray(group[_text(name)])
    return arrays


def _new(file):
    """HDF5 as Keras 3 has it: CLASS_NUMBER/vars/0, 1, …; `vars` tells the layer's name."""
    import h5py

    arrays = {}

    def visit(path, entry):
        parts = path.split("/")
        if not isinstance(entry, h5py.Dataset) or len(parts) < 3 or any(part.startswith(_NO_WEIGHTS) for part in parts):
            return
        kind, _, place = parts[-3:]
        known = next((names for start, names in _WEIGHTS.items() if kind.startswith(start)), ())
        known = known[1:] if known[:1] == ("gamma",) and len(entry.parent) == 3 else known  # of scale=False
        owner = entry.parent.attrs.get("name")
        if owner is None:
            raise ValueError("it doesn't tell its layers' names: it was saved by Keras before 3.4; save it anew")
        weight = known[int(place)] if place.isdigit() and int(place) < len(known) else place
        arrays[f"{_text(owner)}/{weight}"] = np.asarray(entry)

    file.visititems(visit)
    if not arrays:
        raise ValueError("it holds no layers' weights")
    return arrays


def _text(name):
    return name.decode() if isinstance(name, bytes) else str(name)
