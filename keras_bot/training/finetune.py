"""Fine-tuning: initial weights from a trained network, frozen layers and layer-wise learning rates.

The parts of a `models.create` network are numbered: the stem is 0, the stages are 1 … 4, the head is 5.
"""

import dataclasses
import sys

import keras

from keras_bot import models
from keras_bot.errors import MisuseError, first_few, unknown
from keras_bot.interop.architecture import same
from keras_bot.model_files import class_names_of, read_network
from keras_bot.recipe import Recipe

HEAD = 5


def start_from(model: keras.Model, path: str, class_names: tuple[str, ...] = ()):
    """Copies the weights of a trained network to `model`, including the head if the class names are the same.

    Args:
        model: network from `models.create`.
        path: any path that `network.read_network` reads.
        class_names: classes of `model`'s head.

    Raises:
        MisuseError: if it can't be read, or is another network than `model`, which is then unchanged.
    """
    source, known = read_network(path)
    theirs = class_names_of(known)
    names = {layer.name: layer for layer in source.layers if layer.weights}
    pairs = [(layer, names.get(layer.name)) for layer in model.layers if layer.weights]
    if tuple(theirs) != tuple(class_names) or not class_names:
        pairs = [(ours, other) for ours, other in pairs if part_of(ours) != HEAD]
        if theirs and class_names:
            told = f"{len(theirs)} classes there, {len(class_names)} here, or of other names"
            print(f"keras-bot: the head is new, not that of {path}: {told}.", file=sys.stderr, flush=True)
    _check_same_network(model, source, path)
    for ours, other in pairs:
        shapes = [[tuple(v.shape) for v in layer.weights] if layer else None for layer in (ours, other)]
        if shapes[0] != shapes[1]:
            raise MisuseError(
                f"Expected in {path} the network {model.name}, but its layer {ours.name} has the weights {shapes[1]} "
                f"where {shapes[0]} are needed; it looks like {_looks(source, model)}. Set --model and "
                "--width to what it is."
            )
    for ours, other in pairs:
        ours.set_weights(other.get_weights())


def _check_same_network(model, source, path):
    """Raises MisuseError if `source` is another network, by its name if that is in `models.names()`.

    Layers alone are not enough: variants A and B, or two depths, may agree in every layer of one of them.
    """
    others = {layer.name for layer in source.layers if layer.weights and part_of(layer) != HEAD}
    others -= {layer.name for layer in model.layers}
    another = source.name in models.names() and not same(source.name, model.name)
    if another or others:
        has = source.name if another else f"one with {first_few(sorted(others))} too"
        raise MisuseError(f"Expected in {path} the network {model.name}, received {has}. Set --model to what it is.")


def _looks(source, model):
    return f"{source.name} of another width" if source.name == model.name else source.name


def like_source(recipe: Recipe, given: set[str]) -> Recipe:
    """Returns the recipe with the model and width of `init_from`; for classification also image size and preprocessing.

    Args:
        recipe: the user's recipe.
        given: names of the fields to leave unchanged.

    Raises:
        MisuseError: if `init_from` can't be read, or isn't a network of `models.names()`.
    """
    source, known = read_network(recipe.init_from)
    names = ("width", "image_size", "transform", "eval_crop") if recipe.task == "classification" else ("width",)
    theirs = {name: known.get("recipe", {}).get(name) for name in names}
    theirs["model"] = known.get("recipe", {}).get("model", source.name)
    if theirs["model"] not in models.names():
        raise unknown(f"network, of --init_from={recipe.init_from},", theirs["model"], models.names())
    changes = {name: value for name, value in theirs.items() if value and name not in given}
    for name in ("width", "eval_crop", "image_size"):
        if name in changes:
            changes[name] = (int if name == "image_size" else float)(changes[name])
    return dataclasses.replace(recipe, **changes)


def part_of(layer: keras.layers.Layer) -> int:
    """Returns the number of the part that contains a layer."""
    if layer.name.startswith("stem"):
        return 0
    return int(layer.name[5]) if layer.name.startswith("stage") else HEAD


def freeze(model: keras.Model, *, stages: int = 0, batch_norm: bool = False):
    """Freezes the weights and batch norm statistics of layers of a `models.create` network or a backbone.

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


def rates(model: keras.Model, layer_decay: float) -> dict[str, float]:
    """Returns learning rate factors by variable path: layer_decay ** n in the nth part below the head."""
    return {
        variable.path: layer_decay ** (HEAD - part_of(layer))
        for layer in model.layers
        for variable in layer.trainable_variables
    }
