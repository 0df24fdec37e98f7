"""Every network by its name: one table of the three families, and what makes a network of a row of it.

    net = create("resnet50_d", num_classes=10)

A family builds its stages; the image before them, the pooling and the dense layer after them are the same for all.
"""

import contextlib
import math
from collections.abc import Callable
from dataclasses import dataclass

import keras
from keras import layers

from keras_bot.errors import MisuseError, unknown
from keras_bot.models import inception, mobilenet, resnet
from keras_bot.models.layers import classifier


@dataclass(frozen=True)
class Network:
    """A row of the table.

    Args:
        stages: of a family: images, what `form` holds, `width` and, of residual blocks, `gamma` -> the last stage.
        form: what tells the network from others of its family.
        image_size: what it was designed for.
        smallest_image: height and width of which the last stage still has something.
        residual: whether it has residual blocks.
        tweak: of a ResNet, in capitals; None for another.
        dropout: before the dense layer, in training.
    """

    stages: Callable
    form: tuple
    image_size: int = 224
    smallest_image: int = 1
    residual: bool = False
    tweak: str | None = None
    dropout: float = 0.0


def _resnet(name):
    form = resnet.ARCHITECTURES[name]
    size, tweak = (224 if form[-1] else 32), name.rsplit("_", 1)[1].upper()
    return Network(resnet.stages, form, size, residual=True, tweak=tweak)


def _inception(counts_zeros):
    options = {"smallest_image": inception.SMALLEST_IMAGE, "dropout": inception.DROPOUT}
    return Network(inception.stages, (counts_zeros,), 299, **options)


NETWORKS = {
    **{name: _resnet(name) for name in resnet.ARCHITECTURES},
    **{name: _inception(counts_zeros) for name, counts_zeros in inception.COUNTS_ZEROS.items()},
    **{name: Network(mobilenet.stages, (form,)) for name, form in mobilenet.FORMS.items()},
}
POOLINGS = {"avg": layers.GlobalAveragePooling2D, "max": layers.GlobalMaxPooling2D}


def names() -> list[str]:
    """The names that `create` knows: ResNets by depth and variant, then Inception-V3 and MobileNet."""
    return list(NETWORKS)


def variant(name: str) -> str | None:
    """Which tweak a ResNet of `names()` has: "A" … "D" or "VD", which is D but for one projection; None for others."""
    return _find(name).tweak


def usual_image_size(name: str) -> int:
    """What a network of `names()` was designed for: 224 for ImageNet's, 299 for Inception-V3, 32 for CIFAR's."""
    return _find(name).image_size


def smallest_image_size(name: str) -> int:
    """The least height and width of images for a network of `names()`: 75 for Inception-V3, 1 for those that pad."""
    return _find(name).smallest_image


def create(
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
    """A network with fresh weights, as a functional Keras model of Keras' own layers.

    It takes normalised float images (B, H, W, C) of any size from `smallest_image_size(name)` on and gives float32
    logits (B, num_classes). Without the top it gives its last stage, (B, ceil(H / 32), ceil(W / 32), channels), of
    CIFAR's networks by 4 for 32, less at the border for Inception-V3, or when pooled (B, channels) in float32.

    Args:
        name: one of `names()`, such as "resnet50_d" or "cifar_resnet20_a". For basic blocks (10, 18, 34) B is A.
        num_classes: width of the dense layer, from 1.
        input_shape: height, width (None is any) and channels of an image.
        include_top: average pool, for Inception-V3 dropout, and dense layer, in float32 whatever `dtype`.
        pooling: "avg", "max" or None, how the features are pooled without the top.
        classifier_activation: None for logits, or a Keras activation such as "softmax".
        zero_gamma: start the last batch norm of every path A at gamma 0, so that it adds nothing yet (3.1). A
            network without residual blocks, Inception-V3 or MobileNet, has none and refuses it.
        width: factor on every channel count but the input's and the classes'.
        dtype: dtype policy of the layers; None is the global one.

    Raises:
        MisuseError: for an unknown name; it suggests the nearest. For zero gamma without residual blocks, and images
            that are too small.
        ValueError: for another argument out of its range.
    """
    network = _find(name)
    _check_fits(network, name, input_shape, zero_gamma)
    _check(num_classes, input_shape, include_top, pooling, width)
    with _dtype_policy(dtype):
        image = keras.Input(input_shape, name="image")
        gamma = {"gamma": "zeros" if zero_gamma else "ones"} if network.residual else {}
        x = network.stages(image, *network.form, width=width, **gamma)
        pooling = "avg" if include_top else pooling
        if pooling:
            x = POOLINGS[pooling](name=f"{pooling}_pool", dtype="float32")(x)
        if include_top and network.dropout:
            x = layers.Dropout(network.dropout, dtype="float32", name="dropout")(x)
        if include_top:
            x = classifier(x, num_classes, classifier_activation, name="predictions")
    return keras.Model(image, x, name=name)


def features(model: keras.Model) -> keras.Model:
    """The ends of `model`'s stages, as a model with the outputs {"C2": (B, ceil(H / 4), ceil(W / 4), C), …}.

    Inception-V3's are smaller by what it leaves out at the border. It shares the weights of `model`. The dtype is the
    compute dtype.

    Raises:
        ValueError: when the model has no layer named C0 … C5.
    """
    present = {layer.name for layer in model.layers}
    ends = [level for level in (f"C{i}" for i in range(6)) if level in present]
    if not ends:
        raise ValueError(
            f"Expected a model with layers among C0 … C5, as create() makes, received {model.name!r} without."
        )
    outputs = {level: model.get_layer(level).output for level in ends}
    return keras.Model(model.input, outputs, name=f"{model.name}_features")


def covers_the_image(model: keras.Model) -> bool:
    """Whether C2 of `model` has a place for every 4x4 pixels, border included, as detectors and segmenters need it."""
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
    """Makes `dtype` the global policy for the layers built inside; None leaves the one there is."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(dtype or before)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def _check_fits(network, name, input_shape, zero_gamma):
    if zero_gamma and not network.residual:
        raise MisuseError(
            f"Expected zero_gamma for a network with residual blocks, received it for {name}, which has none. Drop it."
        )
    smallest = network.smallest_image
    if any(size is not None and size < smallest for size in tuple(input_shape)[:2]) and smallest > 1:
        raise MisuseError(f"Expected images from {smallest}x{smallest} on for {name}, received {input_shape}.")


def _check(num_classes, input_shape, include_top, pooling, width):
    if num_classes < 1:
        raise ValueError(f"Expected num_classes of at least 1, received {num_classes}.")
    if not 0 < width < math.inf:
        raise ValueError(f"Expected width above 0 and finite, received {width}.")
    if pooling not in (None, *POOLINGS):
        raise ValueError(f"Expected pooling to be None, {', '.join(map(repr, POOLINGS))}, received {pooling!r}.")
    if include_top and pooling:
        raise ValueError(
            f"pooling={pooling!r} has no effect with the top, which pools. Pass include_top=False or drop it."
        )
    sizes = tuple(input_shape)
    if len(sizes) != 3 or sizes[2] is None or any(size is not None and size < 1 for size in sizes):
        raise ValueError(f"Expected input_shape as (height, width, channels) from 1 on, received {input_shape}.")
    if keras.config.image_data_format() != "channels_last":
        raise ValueError("Expected Keras' image_data_format to be channels_last, received channels_first.")
