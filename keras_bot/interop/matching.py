"""Assignment of a file's tensors to a network's weights: each tensor used once, each weight filled, or an error."""

from collections.abc import Mapping
from dataclasses import dataclass

import keras
import numpy as np

from keras_bot.errors import MisuseError, first_few, unknown
from keras_bot.interop import architecture
from keras_bot.interop.names import NAMINGS, Naming, Place

HEAD = "predictions"


@dataclass(frozen=True)
class Match:
    """Match between a file's tensors and a network's weights.

    Args:
        name: the network's name, one of `models.names()`.
        variables: the network's weights that the file fills.
        names: place -> the tensor's name, for these weights and for convolution biases.
        arrays: place -> the tensor in our layout.
        ignored: tensors that have no counterpart here.
        dropped: tensors of a head that is not used.
        auxiliary: tensors of an auxiliary head used only in training; they are among the ignored.
        scaled: whether the file's batch norms have a gamma.
        classes: number of classes of the network's head; None without a head.
        file_classes: number of classes of the file's head; None without a head.
    """

    name: str
    variables: dict[Place, keras.Variable]
    names: dict[Place, str]
    arrays: dict[Place, np.ndarray]
    ignored: tuple[str, ...]
    dropped: tuple[str, ...]
    auxiliary: tuple[str, ...]
    scaled: bool
    classes: int | None
    file_classes: int | None

    @property
    def head(self) -> str:
        """ "kept", "new" or "none"."""
        return "none" if self.classes is None else "kept" if (HEAD, "kernel") in self.variables else "new"


def check_source(source: str):
    """Raises MisuseError if a source is unknown."""
    if source not in NAMINGS:
        raise unknown("source", source, NAMINGS)


def find_naming(source: str, tensors: Mapping[str, np.ndarray]) -> Naming:
    """Returns the source's naming that knows most of the tensors. Raises MisuseError if the source is unknown."""
    check_source(source)
    return max(NAMINGS[source], key=lambda naming: len(naming.places(tensors)))


def recognise(tensors: Mapping[str, np.ndarray], source: str) -> tuple[str | None, int | None, str]:
    """Returns our network's name or None, the number of classes in the head or None, and a description of both."""
    naming = find_naming(source, tensors)
    places = naming.places(tensors)
    layers = {layer for layer, _ in places.values()}
    if not any(layer.startswith("stage") for layer in layers):
        some = first_few(list(tensors)) or "no tensors"
        return None, None, f"no network that is taken from {source}: it has {some}"
    variant = naming.variant({key.rpartition(naming.separator)[0] for key in tensors})
    name = naming.network or architecture.find_name(layers, variant)
    biases = [tensors[key] for key, place in places.items() if place == (HEAD, "bias")]
    classes = int(biases[0].size) if biases else None
    head = "without a head" if classes is None else f"with {classes} classes"
    return name, classes, f"{name or architecture.describe(layers, variant)} {head}"


def match(model: keras.Model, tensors: Mapping[str, np.ndarray], source: str, head: str, file: str) -> Match:
    """Matches every tensor to a weight.

    Args:
        model: the network.
        tensors: the file's tensors by the library's names, in its layout.
        source: the library.
        head: "keep" or "new".
        file: name of the file in errors.

    Raises:
        MisuseError: if the file is of another network, or a tensor is missing, left over or of another shape.
    """
    naming, ours = find_naming(source, tensors), architecture.of_model(model)
    name, file_classes, looks = recognise(tensors, source)
    if name is None or not architecture.same(name, ours):
        wanted = ours or f"a network of keras_bot's, which {model.name} isn't"
        raise MisuseError(f"Expected in {file} the weights of {wanted}, as {source} has them; it looks like {looks}.")
    variables = {(layer.name, v.path.rpartition("/")[2]): v for layer in model.layers for v in layer.weights}
    classes = variables[HEAD, "bias"].shape[0] if (HEAD, "bias") in variables else None
    keeps = head == "keep" and classes is not None and classes == file_classes
    variables = {place: v for place, v in variables.items() if place[0] != HEAD or keeps}
    places = naming.places(tensors)
    dropped = tuple(key for key, place in places.items() if place[0] == HEAD and not keeps)
    auxiliary = tuple(key for key in tensors if naming.auxiliary and key.startswith(naming.auxiliary))
    counts = tuple(key for key in tensors if key.rpartition(naming.separator)[2] in naming.ignored)
    ignored = (*auxiliary, *(key for key in counts if key not in auxiliary))
    taken = {place: key for key, place in places.items() if key not in dropped and _has_place(place, variables)}
    arrays = {place: _in_our_layout(tensors[key], place, naming) for place, key in taken.items()}
    if not naming.scaled:
        ones = {place: np.ones(v.shape, "float32") for place, v in variables.items() if place[1] == "gamma"}
        arrays = ones | arrays
    left = set(tensors) - set(taken.values()) - set(dropped) - set(ignored)
    if wrong := _differences(arrays, variables, [key for key in tensors if key in left]):
        raise MisuseError(f"Expected in {file} the weights of {name}, as it looks like {looks}, but {wrong}.")
    called = model.name if architecture.same(model.name, ours) else ours
    told = {"ignored": ignored, "dropped": dropped, "auxiliary": auxiliary, "scaled": naming.scaled}
    return Match(called, variables, taken, arrays, **told, classes=classes, file_classes=file_classes)


def _has_place(place, variables):
    """Returns whether a place is a weight of the network, or a convolution's bias, which batch norm can absorb."""
    layer, weight = place
    return place in variables or (weight == "bias" and layer.endswith("_conv") and (layer, "kernel") in variables)


def _in_our_layout(array, place, naming):
    layer, weight = place
    if weight != "kernel":
        return array
    if layer == HEAD and array.ndim == 4:  # a 1x1 convolution after pooling is equivalent to a dense layer
        array = array.transpose(naming.convolution or (0, 1, 2, 3))
        return array.reshape(array.shape[2:]) if array.shape[:2] == (1, 1) else array
    depthwise = naming.depthwise if layer.endswith("_depthwise_conv") else naming.convolution
    axes = naming.dense if layer == HEAD else depthwise
    return array.transpose(axes) if axes and array.ndim == len(axes) else array


def _differences(arrays, variables, left):
    """Describes why the tensors don't fit the network; "" if they do."""
    needed = {place: tuple(v.shape) for place, v in variables.items()}
    needed |= {place: needed[place[0], "kernel"][-1:] for place in arrays if place not in needed}
    missing = ["/".join(place) for place in needed if place not in arrays]
    shapes = [
        f"{'/'.join(place)} is {tuple(array.shape)} where {needed[place]} is needed"
        for place, array in arrays.items()
        if tuple(array.shape) != needed[place]
    ]
    told = [f"it lacks what goes into {first_few(missing)}"] if missing else []
    told += [first_few(shapes)] if shapes else []
    told += [f"nothing takes its {first_few(left)}"] if left else []
    return "; ".join(told)
