"""Backbones: the features C2 … C5 of a trained classifier, as a Keras model to build detectors and segmenters on.

    backbone = load_backbone("savedmodels/mine", freeze_bn=True)     # or a .keras, a run directory, "resnet50_d"
    features = backbone(images)                                      # {"C2": …, "C3": …, "C4": …, "C5": …}

It is a functional model of Keras' own layers, so it is a layer in any other model. keras-cv takes it as a backbone
(`pyramid_level_inputs`), keras-hub as an image encoder (`pyramid_outputs`, P2 … P5): their networks train on it as it
is, but to be loaded from a .keras file they need `as_image_encoder(backbone)` instead. Both libraries' DeepLabV3 wants
the output stride 32.
"""

import os
import pathlib
from collections.abc import Sequence

import keras

from keras_bot import models
from keras_bot.errors import MisuseError
from keras_bot.models.dilate import OUTPUT_STRIDES, dilate
from keras_bot.models.networks import covers_the_image
from keras_bot.training.network import read_network
from keras_bot.training.start import freeze

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
    """The backbone of a SavedModel that keras_bot exported, a run directory, a .keras file, or fresh of a name.

    Files are read without running code from them: weights and configuration alone.

    Args:
        path: where, or one of `models.names()` for fresh weights. A path wins if it exists.
        trainable: False freezes everything: weights and batch norm's statistics.
        freeze_bn: batch norm stays in inference mode and its weights as they are, usual for batches of few images.
        levels: which of C2 … C5 to give.
        output_stride: 32, or 16 or 8 by dilation (see `models.dilate`), which C5 and C4 then have instead.
        width: factor on the channels of a fresh network.

    Returns:
        A model from normalised images (B, H, W, 3), as `keras_bot.data` gives them, to a dict of the levels, (B,
        ceil(H / stride), ceil(W / stride), channels) with strides 4, 8, 16, 32. `pyramid_level_inputs` names its
        layers by level P2 … P5; `pyramid_outputs` holds its outputs by them.

    Raises:
        MisuseError: if nothing can be read there, the network has no such levels, or for an argument out of its range.
    """
    if output_stride not in OUTPUT_STRIDES:
        raise MisuseError(f"Expected output_stride as 8, 16 or 32, received {output_stride!r}.")
    if not levels or not set(levels) <= set(LEVELS):
        raise MisuseError(f"Expected levels among C2, C3, C4 and C5, received {list(levels)}.")
    model = _network(path, width)
    if not set(LEVELS) <= {layer.name for layer in model.layers}:
        raise MisuseError(
            f"Expected a network with features C2 … C5, received {path}, whose network {model.name!r} has none. "
            "CIFAR's networks end at stride 4; ImageNet's have them."
        )
    check_covers(model, path)
    if output_stride != 32:
        model = dilate(model, output_stride)
    return as_backbone(model, trainable=trainable, freeze_bn=freeze_bn, levels=levels)


def check_covers(model: keras.Model, name: str | os.PathLike):
    """MisuseError, which calls the network `name`, unless its features cover the image, as boxes and masks need it."""
    if not covers_the_image(model):
        raise MisuseError(
            f"Expected a network whose features cover the image to its border, received {name}: Inception-V3 leaves "
            "some of it out, so that places don't lie where detectors and segmenters take them. Take a ResNet or "
            "MobileNet."
        )


def _network(path, width):
    if not pathlib.Path(path).exists() and str(path) in models.names():
        return models.create(str(path), include_top=False, width=width)
    if not pathlib.Path(path).exists():
        raise MisuseError(
            "Expected an exported SavedModel, a run directory, a .keras file or the name of a network, received "
            f"{path}. `keras-bot models` lists the names."
        )
    return read_network(path)[0]


def as_backbone(
    model: keras.Model, *, trainable: bool = True, freeze_bn: bool = False, levels: Sequence[str] = LEVELS
) -> keras.Model:
    """The backbone in a network of `models.create`, sharing its layers. Arguments and result as in `load_backbone`."""
    outputs = {level: model.get_layer(level).output for level in levels}
    backbone = keras.Model(model.input, outputs, name=f"{model.name}_backbone")
    freeze(backbone, batch_norm=freeze_bn, stages=len(LEVELS) + 1 if not trainable else 0)
    backbone.pyramid_level_inputs = {level.replace("C", "P"): level for level in levels}
    backbone.pyramid_outputs = {level.replace("C", "P"): outputs[level] for level in levels}
    return backbone


@keras.saving.register_keras_serializable(package="keras_bot")
class ImageEncoder(keras.Model):
    """A backbone that knows its levels after it was loaded from a file, too; see `as_image_encoder`."""

    @property
    def pyramid_outputs(self) -> dict:
        """The outputs by level P2 … P5, for keras-hub."""
        return {level.replace("C", "P"): output for level, output in self.output.items()}

    @property
    def pyramid_level_inputs(self) -> dict[str, str]:
        """The names of the layers by level, for keras-cv."""
        return {level.replace("C", "P"): level for level in self.output}


def as_image_encoder(backbone: keras.Model) -> ImageEncoder:
    """What `load_backbone` gives, sharing its layers, for a keras-hub or keras-cv network that is to be saved.

    To load that one `keras_bot.transfer.backbone` must have been imported, as the model is no longer Keras' alone.
    """
    return ImageEncoder(backbone.input, backbone.output, name=backbone.name)
