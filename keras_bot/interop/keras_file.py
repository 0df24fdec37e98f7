"""Reader of Keras 2 and 3 weight files: arrays named LAYER/WEIGHT, as `conv1_conv/kernel`, `conv1_bn/moving_mean`.

No model is built, so the libraries that wrote the files need not be installed. Layers of a nested model (keras-hub's
backbone in a classifier) are named as if they were in the outer model.
"""

import io
import os
import zipfile

import numpy as np

# Weights in Keras 3's numbering, by the layer class that the group's name starts with.
_WEIGHTS = {
    "conv2d": ("kernel", "bias"),
    "depthwise_conv2d": ("kernel", "bias"),
    "dense": ("kernel", "bias"),
    "batch_normalization": ("gamma", "beta", "moving_mean", "moving_variance"),
}
_NO_WEIGHTS = ("optimizer", "seed_generator")  # other groups in a file


def read_keras(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Reads the arrays of a `.keras`, `.weights.h5` or `.h5` file.

    Raises:
        ValueError: if it has no layer weights or no layer names.
        OSError: if HDF5 cannot read it.
    """
    import h5py

    content: str | os.PathLike | io.BytesIO = path
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            content = io.BytesIO(archive.read("model.weights.h5"))
    with h5py.File(content, "r") as file:
        root = file.get("model_weights", file)
        return _read_keras_2(root) if "layer_names" in root.attrs else _read_keras_3(file)


def _read_keras_2(root):
    """Reads Keras 2's HDF5 layout: each layer's group lists the paths of its weights."""
    arrays = {}
    for layer in root.attrs["layer_names"]:
        group = root[_text(layer)]
        for name in group.attrs["weight_names"]:
            owner, weight = _text(name).removesuffix(":0").split("/")[-2:]
            arrays[f"{owner}/{weight}"] = np.asarray(group[_text(name)])
    return arrays


def _read_keras_3(file):
    """Reads Keras 3's HDF5 layout: CLASS_NUMBER/vars/0, 1, …; an attribute of `vars` is the layer's name."""
    import h5py

    arrays = {}

    def visit(path, entry):
        parts = path.split("/")
        if not isinstance(entry, h5py.Dataset) or len(parts) < 3 or any(part.startswith(_NO_WEIGHTS) for part in parts):
            return
        kind, _, place = parts[-3:]
        known = next((names for start, names in _WEIGHTS.items() if kind.startswith(start)), ())
        known = known[1:] if known[:1] == ("gamma",) and len(entry.parent) == 3 else known  # scale=False
        owner = entry.parent.attrs.get("name")
        if owner is None:
            raise ValueError("it does not contain layer names, because Keras before 3.4 saved it; save it again")
        weight = known[int(place)] if place.isdigit() and int(place) < len(known) else place
        arrays[f"{_text(owner)}/{weight}"] = np.asarray(entry)

    file.visititems(visit)
    if not arrays:
        raise ValueError("it contains no layer weights")
    return arrays


def _text(name):
    return name.decode() if isinstance(name, bytes) else str(name)
