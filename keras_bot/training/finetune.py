"""Fine-tuning: initial weights from a trained network, frozen layers and layer-wise learning rates.

The parts of a `models.create_model` network are numbered: the stem is 0, the stages are 1 … 4, the head is 5.
"""

import dataclasses
import os
import pathlib
import sys
from collections.abc import Sequence

import keras

from keras_bot import models
from keras_bot.errors import MisuseError, first_few, unknown
from keras_bot.interop.architecture import same_network
from keras_bot.model_files import class_names_of, read_network
from keras_bot.recipe import Recipe

HEAD = 5


def load_weights_from(model: keras.Model, path: str | os.PathLike, class_names: Sequence[str] = ()) -> None:
    """Copies the weights of a trained network to `model`, including the head if the class names are the same.

    Args:
        model: network from `models.create_model`.
        path: any path that `model_files.read_network` reads.
        class_names: classes of `model`'s head, in label order; () leaves the head as it is.

    Raises:
        MisuseError: if it cannot be read, or is another network than `model`, which is then unchanged.
    """
    source, description = read_network(pathlib.Path(path))
    source_classes = class_names_of(description)
    source_layers = {layer.name: layer for layer in source.layers if layer.weights}
    layers = [layer for layer in model.layers if layer.weights]
    if tuple(source_classes) != tuple(class_names) or not class_names:
        layers = [layer for layer in layers if part_of(layer) != HEAD]
        if class_names:
            counts = len(source_classes), len(class_names)
            difference = "with other names" if counts[0] == counts[1] else f"{counts[0]}, here {counts[1]}"
            reason = f"was trained on other classes ({difference})" if source_classes else "does not name its classes"
            print(f"keras-bot: the head is initialised randomly, since {path} {reason}.", file=sys.stderr, flush=True)
    _check_same_network(model, source, path)
    for layer in layers:
        needed, found = (_weight_shapes(each) for each in (layer, source_layers.get(layer.name)))
        if needed != found:
            is_same = source.name == model.name
            difference = "of another width" if is_same else f"but --model is {model.name}"
            raise MisuseError(
                f"{path} contains a {source.name}{' ' if is_same else ', '}{difference}: the weights of layer "
                f"{layer.name} have shapes {found} instead of {needed}. Set --model and --width to match."
            )
    for layer in layers:
        layer.set_weights(source_layers[layer.name].get_weights())


def _weight_shapes(layer):
    return [tuple(weight.shape) for weight in layer.weights] if layer else None


def _check_same_network(model, source, path):
    """Raises MisuseError if `source` is another network, by its name if that is in `models.names()`.

    Layers alone are not enough: variants A and B, or two depths, may agree in every layer of one of them.
    """
    extra = {layer.name for layer in source.layers if layer.weights and part_of(layer) != HEAD}
    extra -= {layer.name for layer in model.layers}
    if source.name in models.names() and not same_network(source.name, model.name):
        raise MisuseError(f"{path} contains a {source.name}, but --model is {model.name}. Use --model={source.name}.")
    if extra:
        raise MisuseError(
            f"{path} contains another network than --model={model.name}: it also has the layers "
            f"{first_few(sorted(extra))}. Set --model to match."
        )


def with_source_settings(recipe: Recipe, explicit: set[str]) -> Recipe:
    """Returns the recipe with the model and width of `init_from`; for classification also image size and preprocessing.

    Args:
        recipe: the user's recipe.
        explicit: names of the fields that the user set, which stay unchanged.

    Raises:
        MisuseError: if `init_from` cannot be read, or is not a network of `models.names()`.
    """
    source, description = read_network(recipe.init_from)
    stored = description.get("recipe", {})
    names = ("width", "image_size", "transform", "eval_crop") if recipe.task == "classification" else ("width",)
    settings = {**{name: stored.get(name) for name in names}, "model": stored.get("model", source.name)}
    if settings["model"] not in models.names():
        found = unknown(f"network in --init_from={recipe.init_from}:", settings["model"], models.names())
        raise MisuseError(f"{found} Convert another library's file first: keras-bot import-weights.")
    changes = {name: value for name, value in settings.items() if value and name not in explicit}
    for name in ("width", "eval_crop", "image_size"):
        if name in changes:
            changes[name] = (int if name == "image_size" else float)(changes[name])
    return dataclasses.replace(recipe, **changes)


def part_of(layer: keras.layers.Layer) -> int:
    """Returns the number of the part that contains a layer."""
    if layer.name.startswith("stem"):
        return 0
    return int(layer.name[5]) if layer.name.startswith("stage") else HEAD


def freeze(model: keras.Model, *, stages: int = 0, batch_norm: bool = False) -> None:
    """Freezes the weights and batch norm statistics of layers of a `models.create_model` network or a backbone.

    Args:
        model: modified in place. Compile it afterwards.
        stages: 0 for none, 1 for the stem, 2 for the stem and the first stage, … 5 for the stem and all four.
        batch_norm: freeze every batch norm layer, in all parts.
    """
    for layer in model.layers:
        if part_of(layer) < stages:
            layer.trainable = False
        if batch_norm and isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = False


def layer_multipliers(model: keras.Model, layer_decay: float) -> dict[str, float]:
    """Returns learning rate factors by variable path: layer_decay ** n in the nth part below the head."""
    return {
        variable.path: layer_decay ** (HEAD - part_of(layer))
        for layer in model.layers
        for variable in layer.trainable_variables
    }
