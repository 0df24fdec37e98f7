"""Assignment of a file's tensors to a network's weights: each tensor used once, each weight filled, or an error."""

from collections.abc import Mapping
from dataclasses import dataclass

import keras
import numpy as np

from keras_bot.errors import MisuseError, first_few, unknown
from keras_bot.interop.architecture import describe_resnet, find_resnet, identify, same_network
from keras_bot.interop.names import NAMINGS, Naming, Place

HEAD = "predictions"


@dataclass(frozen=True)
class Content:
    """Network that a file contains.

    Args:
        network: our name of the network; None if it is not one of ours.
        classes: number of classes of the head; None without a head.
        description: both in words.
    """

    network: str | None
    classes: int | None
    description: str


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
        """Use of the file's head: "kept", "new" (not used) or "none" (the network has no head)."""
        return "none" if self.classes is None else "kept" if (HEAD, "kernel") in self.variables else "new"


def check_source(source: str) -> None:
    """Raises MisuseError if a source is unknown."""
    if source not in NAMINGS:
        raise unknown("source", source, NAMINGS)


def find_naming(source: str, tensors: Mapping[str, np.ndarray]) -> Naming:
    """Returns the source's naming that knows most of the tensors. Raises MisuseError if the source is unknown."""
    check_source(source)
    return max(NAMINGS[source], key=lambda naming: len(naming.places(tensors)))


def recognise(tensors: Mapping[str, np.ndarray], source: str) -> Content:
    """Identifies the network whose tensors these are. Raises MisuseError if the source is unknown."""
    naming = find_naming(source, tensors)
    places = naming.places(tensors)
    layers = {layer for layer, _ in places.values()}
    if not any(layer.startswith("stage") for layer in layers):
        return Content(None, None, f"no supported network of {source}, but {first_few(list(tensors)) or 'no tensors'}")
    variant = naming.variant({key.rpartition(naming.separator)[0] for key in tensors})
    name = naming.network or find_resnet(layers, variant)
    biases = [tensors[key] for key, place in places.items() if place == (HEAD, "bias")]
    classes = int(biases[0].size) if biases else None
    head = "without a head" if classes is None else f"with {classes} classes"
    return Content(name, classes, f"{name or describe_resnet(layers, variant)} {head}")


def check_network(content: Content, wanted: str | None, file: str, source: str) -> None:
    """Raises MisuseError unless the file contains the network `wanted`, or any network of ours if that is None."""
    if content.network is None or not same_network(wanted or content.network, content.network):
        network = f"the {source} weights of {wanted or 'a network of keras_bot'}"
        raise MisuseError(f"{file} does not contain {network}: it contains {content.description}.")


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
    naming, ours = find_naming(source, tensors), identify(model)
    if ours is None:
        raise MisuseError(f"The model {model.name!r} is not one of keras_bot's networks that can take weights.")
    content = recognise(tensors, source)
    check_network(content, ours, file, source)
    variables = {Place(layer.name, v.path.rpartition("/")[2]): v for layer in model.layers for v in layer.weights}
    bias = variables.get(Place(HEAD, "bias"))
    classes = None if bias is None else bias.shape[0]
    keeps = head == "keep" and classes is not None and classes == content.classes
    variables = {place: v for place, v in variables.items() if place.layer != HEAD or keeps}
    places = naming.places(tensors)
    dropped = tuple(key for key, place in places.items() if place.layer == HEAD and not keeps)
    auxiliary = tuple(key for key in tensors if naming.auxiliary and key.startswith(naming.auxiliary))
    counts = tuple(key for key in tensors if key.rpartition(naming.separator)[2] in naming.ignored)
    ignored = (*auxiliary, *(key for key in counts if key not in auxiliary))
    taken = {place: key for key, place in places.items() if key not in dropped and _has_place(place, variables)}
    arrays = {place: _in_our_layout(tensors[key], place, naming) for place, key in taken.items()}
    if not naming.scaled:
        ones = {place: np.ones(v.shape, "float32") for place, v in variables.items() if place.weight == "gamma"}
        arrays = ones | arrays
    used = {*taken.values(), *dropped, *ignored}
    if difference := _differences(arrays, variables, [key for key in tensors if key not in used]):
        raise MisuseError(f"{file} seems to contain {content.description}, but {difference}.")
    return Match(
        name=model.name if same_network(model.name, ours) else ours,
        variables=variables,
        names=taken,
        arrays=arrays,
        ignored=ignored,
        dropped=dropped,
        auxiliary=auxiliary,
        scaled=naming.scaled,
        classes=classes,
        file_classes=content.classes,
    )


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


def _differences(arrays, variables, unused):
    """Describes why the tensors don't fit the network; "" if they do."""
    needed = {place: tuple(v.shape) for place, v in variables.items()}
    needed |= {place: needed[place.layer, "kernel"][-1:] for place in arrays if place not in needed}
    missing = ["/".join(place) for place in needed if place not in arrays]
    shapes = [
        f"the shape for {'/'.join(place)} is {tuple(array.shape)} instead of {needed[place]}"
        for place, array in arrays.items()
        if tuple(array.shape) != needed[place]
    ]
    found = [f"has no tensor for {first_few(missing)}"] if missing else []
    found += [first_few(shapes)] if shapes else []
    found += [f"the network has no weight for {first_few(unused)}"] if unused else []
    return "; ".join(found)
