"""Networks by name: a table of the three families, and the function that builds a network from a row.

    net = create_model("resnet50_d", num_classes=10)

Each family builds its stages. The input, the pooling and the dense layer are the same for all.
"""

import contextlib
import math
from collections.abc import Callable
from dataclasses import dataclass

import keras
from keras import layers

from keras_bot.deprecation import renamed_names
from keras_bot.errors import MisuseError, unknown
from keras_bot.models import inception, mobilenet, resnet
from keras_bot.models.layers import classifier


@dataclass(frozen=True)
class ModelInfo:
    """Facts about a network, without building it.

    Attributes:
        name: one of `names()`.
        family: "resnet", "cifar_resnet", "inception" or "mobilenet".
        variant: "A" … "D" for a ResNet, or "VD", which is D with one more projection; None for other networks.
        image_size: image size that it was designed for: 299 for Inception-V3, 32 for CIFAR's networks, else 224.
        smallest_image_size: minimum height and width: 75 for Inception-V3, 1 for the others, which pad.
        has_residual_blocks: whether `zero_gamma` applies.
    """

    name: str
    family: str
    variant: str | None = None
    image_size: int = 224
    smallest_image_size: int = 1
    has_residual_blocks: bool = False


@dataclass(frozen=True)
class Network:
    """Row of the table.

    Args:
        info: facts about the network, returned by `info`.
        stages: builds the family's stages from images, `architecture`, `width` and, with residual blocks, `gamma`.
        architecture: distinguishes the network from others of its family.
        dropout: dropout rate before the dense layer.
    """

    info: ModelInfo
    stages: Callable
    architecture: resnet.Architecture | inception.Architecture | mobilenet.Architecture
    dropout: float = 0.0


def _resnet(name, architecture):
    family, _, variant = name.rpartition("_")
    facts = ModelInfo(
        name,
        family.rstrip("0123456789"),
        variant.upper(),
        image_size=224 if architecture.stem_level else 32,
        has_residual_blocks=True,
    )
    return Network(facts, resnet.stages, architecture)


def _inception(name, architecture):
    facts = ModelInfo(name, "inception", image_size=299, smallest_image_size=inception.SMALLEST_IMAGE)
    return Network(facts, inception.stages, architecture, inception.DROPOUT)


def _mobilenet(name, architecture):
    return Network(ModelInfo(name, "mobilenet"), mobilenet.stages, architecture)


NETWORKS = {
    **{name: _resnet(name, architecture) for name, architecture in resnet.ARCHITECTURES.items()},
    **{name: _inception(name, architecture) for name, architecture in inception.ARCHITECTURES.items()},
    **{name: _mobilenet(name, architecture) for name, architecture in mobilenet.ARCHITECTURES.items()},
}
POOLINGS = {"avg": layers.GlobalAveragePooling2D, "max": layers.GlobalMaxPooling2D}


def names() -> list[str]:
    """Returns the names that `create_model` accepts: ResNets by depth and variant, then Inception-V3 and MobileNet."""
    return list(NETWORKS)


def info(name: str) -> ModelInfo:
    """Returns facts about a network: variant and image sizes. Raises MisuseError if the name is unknown."""
    return _find(name).info


def create_model(
    name: str,
    *,
    num_classes: int = 1000,
    input_shape: tuple[int | None, int | None, int] = (None, None, 3),
    include_top: bool = True,
    pooling: str | None = None,
    classifier_activation: str | None = None,
    zero_gamma: bool = False,
    width: float = 1.0,
    dtype: str | keras.DTypePolicy | None = None,
) -> keras.Model:
    """Builds a network with new weights, as a functional Keras model of Keras' own layers.

    The input is normalized float images (B, H, W, C) of any size from `info(name).smallest_image_size`, the output
    float32 logits (B, num_classes). Without the top, the output is the last stage, (B, ceil(H / 32), ceil(W / 32),
    channels), or with pooling (B, channels) in float32. CIFAR's networks have stride 4 instead of 32, and the output of
    Inception-V3 is slightly smaller, because some of its convolutions are unpadded.

    Args:
        name: one of `names()`, such as "resnet50_d" or "cifar_resnet20_a". With basic blocks (10, 18, 34) B equals A.
        num_classes: number of classes, at least 1.
        input_shape: height, width (None is any) and channels of an image.
        include_top: add average pooling, dropout (Inception-V3 only) and the dense layer, in float32 for any `dtype`.
        pooling: pooling of the features without the top: "avg", "max" or None.
        classifier_activation: None for logits, or a Keras activation such as "softmax".
        zero_gamma: initialize gamma to 0 in the last batch norm of every path A, so that it adds nothing at first
            (3.1). Not supported by networks without residual blocks (Inception-V3 and MobileNet).
        width: multiplier of all channel counts except those of the input and the classes.
        dtype: dtype policy of the layers; None is the global one.

    Raises:
        MisuseError: if the name is unknown (the message suggests similar ones), zero_gamma is set without residual
            blocks, or the images are too small.
        ValueError: if another argument is out of range.
    """
    network = _find(name)
    _check_fits(network.info, input_shape, zero_gamma)
    _check(num_classes, input_shape, include_top, pooling, width)
    with _dtype_policy(dtype):
        image = keras.Input(input_shape, name="image")
        gamma = {"gamma": "zeros" if zero_gamma else "ones"} if network.info.has_residual_blocks else {}
        x = network.stages(image, network.architecture, width=width, **gamma)
        pooling = "avg" if include_top else pooling
        if pooling:
            x = POOLINGS[pooling](name=f"{pooling}_pool", dtype="float32")(x)
        if include_top and network.dropout:
            x = layers.Dropout(network.dropout, dtype="float32", name="dropout")(x)
        if include_top:
            x = classifier(x, num_classes, classifier_activation, name="predictions")
    return keras.Model(image, x, name=name)


def features(model: keras.Model) -> keras.Model:
    """Returns a model of the stage outputs, {"C2": (B, ceil(H / 4), ceil(W / 4), C), …}, that shares `model`'s weights.

    Inception-V3's outputs are slightly smaller, because some of its convolutions are unpadded. The outputs have the
    compute dtype.

    Raises:
        ValueError: if the model has no layer named C0 … C5.
    """
    present = {layer.name for layer in model.layers}
    ends = [level for level in (f"C{i}" for i in range(6)) if level in present]
    if not ends:
        raise ValueError(f"{model.name!r} has no layer named C0 … C5. Pass a network from `create_model`.")
    outputs = {level: model.get_layer(level).output for level in ends}
    return keras.Model(model.input, outputs, name=f"{model.name}_features")


def covers_the_image(model: keras.Model) -> bool:
    """Returns whether C2 has one position per 4x4 pixels, border included, as detection and segmentation require."""
    sizes = [size or 65 for size in model.input_shape[1:3]]
    end = keras.Model(model.input, model.get_layer("C2").output)
    shape = end.compute_output_shape((1, *sizes, model.input_shape[-1]))
    return tuple(shape[1:3]) == tuple(-(-size // 4) for size in sizes)


def _find(name) -> Network:
    if name not in NETWORKS:
        raise unknown("model", name, NETWORKS)
    return NETWORKS[name]


@contextlib.contextmanager
def _dtype_policy(dtype):
    """Sets the global dtype policy for layers created inside the `with` block; None leaves it unchanged."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(dtype or before)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def _check_fits(facts, input_shape, zero_gamma):
    if zero_gamma and not facts.has_residual_blocks:
        raise MisuseError(
            f"zero_gamma needs residual blocks, but {facts.name} has none. Use --nozero_gamma or zero_gamma=False."
        )
    smallest = facts.smallest_image_size
    if any(size is not None and size < smallest for size in tuple(input_shape)[:2]) and smallest > 1:
        raise MisuseError(
            f"{facts.name} needs images of at least {smallest}x{smallest}, but input_shape is {input_shape}."
        )


def _check(num_classes, input_shape, include_top, pooling, width):
    if num_classes < 1:
        raise ValueError(f"num_classes must be at least 1, received {num_classes}.")
    if not 0 < width < math.inf:
        raise ValueError(f"width must be above 0 and finite, received {width}.")
    if pooling not in (None, *POOLINGS):
        raise ValueError(f"pooling must be None, {' or '.join(map(repr, POOLINGS))}, received {pooling!r}.")
    if include_top and pooling:
        raise ValueError(
            f"pooling={pooling!r} is only supported with include_top=False, because the top pools the features itself."
        )
    sizes = tuple(input_shape)
    if len(sizes) != 3 or sizes[2] is None or any(size is not None and size < 1 for size in sizes):
        raise ValueError(f"input_shape must be (height, width, channels), each at least 1, received {input_shape}.")
    if keras.config.image_data_format() != "channels_last":
        raise ValueError(
            "keras_bot's networks need Keras' image_data_format channels_last, but it is channels_first. "
            'Call keras.config.set_image_data_format("channels_last").'
        )


__getattr__ = renamed_names(__name__, {"create": "keras_bot.models.networks.create_model"})
