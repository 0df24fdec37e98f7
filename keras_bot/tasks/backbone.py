"""Backbones: Keras models that output the features C2 … C5 of a trained classifier, for detectors and segmenters.

    backbone = load_backbone("savedmodels/mine", freeze_bn=True)     # or a .keras, a run directory, "resnet50_d"
    features = backbone(images)                                      # {"C2": …, "C3": …, "C4": …, "C5": …}

A backbone is a functional model of built-in Keras layers, so it can be a layer of any other model. keras-cv accepts it
as a backbone (`pyramid_level_inputs`), and keras-hub as an image encoder (`pyramid_outputs`, P2 … P5). Their networks
can train with it directly, but they can only be loaded from a .keras file if built with `as_image_encoder(backbone)`.
DeepLabV3 in both libraries requires output stride 32.
"""

import os
import pathlib
from collections.abc import Sequence

import keras

from keras_bot import models
from keras_bot.errors import MisuseError
from keras_bot.model_files import read_network
from keras_bot.models.dilate import OUTPUT_STRIDES, dilate
from keras_bot.models.networks import covers_the_image
from keras_bot.recipe import Recipe
from keras_bot.training.finetune import freeze, load_weights_from

LEVELS = ("C2", "C3", "C4", "C5")


def load_backbone(
    path: str | os.PathLike,
    *,
    trainable: bool = True,
    freeze_bn: bool = False,
    levels: Sequence[str] = LEVELS,
    output_stride: int = 32,
    width: float = 1.0,
) -> keras.Model:
    """Loads a backbone from an exported keras_bot SavedModel, run directory or .keras file, or builds one by name.

    Only weights and configuration are read; no code from the files is run.

    Args:
        path: a path, or one of `models.names()` for fresh weights. An existing path takes precedence.
        trainable: False freezes all weights and the batch norm statistics.
        freeze_bn: freezes batch norm in inference mode with its weights, as usual for small batches.
        levels: which of C2 … C5 to output.
        output_stride: 32, or 16 or 8 through dilation (see `models.dilate`). No level has a larger stride.
        width: channel multiplier of a fresh network.

    Returns:
        A model from images (B, H, W, 3), normalised as by `keras_bot.data`, to a dict of levels of shape (B,
        ceil(H / stride), ceil(W / stride), channels) with strides 4, 8, 16, 32. `pyramid_level_inputs` maps P2 … P5
        to layer names, and `pyramid_outputs` maps them to outputs.

    Raises:
        MisuseError: the path cannot be read, the network lacks C2 … C5, or an argument is out of range.
    """
    if output_stride not in OUTPUT_STRIDES:
        raise MisuseError(f"output_stride must be 8, 16 or 32, received {output_stride!r}.")
    if not levels or not set(levels) <= set(LEVELS):
        raise MisuseError(f"levels must be among C2, C3, C4 and C5, at least one, received {list(levels)}.")
    model = _network(path, width)
    if not set(LEVELS) <= {layer.name for layer in model.layers}:
        raise MisuseError(
            f"The network {model.name!r} in {path} has no features C2 … C5. Networks for ImageNet have them; those for "
            "CIFAR end at stride 4."
        )
    check_covers(model, path)
    if output_stride != 32:
        model = dilate(model, output_stride)
    return as_backbone(model, trainable=trainable, freeze_bn=freeze_bn, levels=levels)


def check_covers(model: keras.Model, name: str | os.PathLike) -> None:
    """Raises MisuseError unless the network's features cover the whole image, as detection and segmentation require.

    The error message refers to the network as `name`.
    """
    if not covers_the_image(model):
        raise MisuseError(
            f"{name} cannot be a backbone: Inception-V3's features do not cover the image to its border, so their "
            "positions do not match the pixels. Use a ResNet or MobileNet."
        )


def _network(path, width):
    if not pathlib.Path(path).exists() and str(path) in models.names():
        return models.create_model(str(path), include_top=False, width=width)
    if not pathlib.Path(path).exists():
        raise MisuseError(
            f"{path} is not a path or the name of a network. Pass an exported SavedModel, a run directory, a .keras "
            "file, or a name listed by `keras-bot models`."
        )
    return read_network(path)[0]


def as_backbone(
    model: keras.Model, *, trainable: bool = True, freeze_bn: bool = False, levels: Sequence[str] = LEVELS
) -> keras.Model:
    """Returns the backbone of a network from `models.create_model`, sharing its layers. See `load_backbone`."""
    outputs = {level: model.get_layer(level).output for level in levels}
    backbone = keras.Model(model.input, outputs, name=f"{model.name}_backbone")
    freeze(backbone, batch_norm=freeze_bn, stages=len(LEVELS) + 1 if not trainable else 0)
    backbone.pyramid_level_inputs = {level.replace("C", "P"): level for level in levels}
    backbone.pyramid_outputs = {level.replace("C", "P"): outputs[level] for level in levels}
    return backbone


@keras.saving.register_keras_serializable(package="keras_bot")
class ImageEncoder(keras.Model):
    """A backbone that keeps its pyramid levels when loaded from a file; see `as_image_encoder`."""

    @property
    def pyramid_outputs(self) -> dict:
        """Outputs by level P2 … P5, for keras-hub."""
        return {level.replace("C", "P"): output for level, output in self.output.items()}

    @property
    def pyramid_level_inputs(self) -> dict[str, str]:
        """Layer names by level P2 … P5, for keras-cv."""
        return {level.replace("C", "P"): level for level in self.output}


def as_image_encoder(backbone: keras.Model) -> ImageEncoder:
    """Wraps a backbone from `load_backbone`, sharing its layers, so that saved keras-hub and keras-cv models load.

    `keras_bot.tasks.backbone` must be imported before loading such a network, because the class is not built in.
    """
    return ImageEncoder(backbone.input, backbone.output, name=backbone.name)


def build_backbone(recipe: Recipe, output_stride: int = 32) -> keras.Model:
    """Builds the recipe's backbone with outputs C2 … C5, initialised from `init_from` and frozen as the recipe sets.

    Args:
        recipe: its `output_stride`, if set, takes precedence.
        output_stride: default of the task.

    Raises:
        MisuseError: If the network lacks these features or `init_from` can't be loaded into it.
    """
    stride = recipe.output_stride or output_stride
    if stride not in OUTPUT_STRIDES:
        raise MisuseError(f"--output_stride must be {', '.join(map(str, OUTPUT_STRIDES))}, received {stride}.")
    model = models.create_model(recipe.model, include_top=False, width=recipe.width, zero_gamma=recipe.zero_gamma)
    if not set(LEVELS) <= {layer.name for layer in model.layers}:
        raise MisuseError(f"--model={recipe.model} has no features C2 … C5. Use a network for ImageNet.")
    check_covers(model, f"--model={recipe.model}")
    if recipe.init_from:
        load_weights_from(model, recipe.init_from)
    model = model if stride == 32 else dilate(model, stride)
    freeze(model, stages=recipe.frozen_stages, batch_norm=recipe.freeze_bn)
    return as_backbone(model)


def check_recipe(recipe: Recipe, heads: tuple[str, ...]) -> None:
    """Raises MisuseError for a backend other than TensorFlow and for flags that the task does not support."""
    if keras.backend.backend() != "tensorflow":
        raise MisuseError(f"--task={recipe.task} needs KERAS_BACKEND=tensorflow, not {keras.backend.backend()}.")
    if recipe.head not in ("", *heads):
        choices = f"{', '.join(heads[:-1])} or {heads[-1]}"
        raise MisuseError(f"--head must be {choices} for --task={recipe.task}, received {recipe.head}.")
    classifiers = {
        "teacher": recipe.teacher,
        "mixup_alpha": recipe.mixup_alpha,
        "label_smoothing": recipe.label_smoothing,
        "accumulation_steps": recipe.accumulation_steps > 1,
        "augment_on": recipe.augment_on == "device",
        "shard_by": recipe.shard_by == "file",
        "cache": recipe.cache,
        "scaled_eval": recipe.scaled_eval,
    }
    for name, wanted in classifiers.items():
        if wanted:
            raise MisuseError(f"--{name} is only supported for --task=classification.")
    if not recipe.min_zoom <= recipe.max_zoom:
        raise MisuseError(f"--min_zoom must be at most --max_zoom, received {recipe.min_zoom} and {recipe.max_zoom}.")
