"""ResNet-A (He et al., 2016) and its tweaks B, C and D (section 4 of the paper) at every depth, as tables.

    stem -> stages of residual blocks -> average pool -> dense

A residual block is relu(path A + path B): path A is `bottleneck` or `basic`, path B the shortcut. Every
stage but the first halves height and width in its first block. The layer `Ck` is the end of the stage whose
stride is 2**k: C2 … C5 in ImageNet's networks, C0 … C2 in CIFAR's.
"""

import contextlib
import math
from collections.abc import Callable
from dataclasses import dataclass

import keras
from keras import layers

from keras_bot.errors import unknown
from keras_bot.models.layers import (
    basic,
    bottleneck,
    classifier,
    shortcut_conv,
    shortcut_pool,
    stem_3x3,
    stem_7x7,
    stem_deep,
)


@dataclass(frozen=True)
class Variant:
    """What a tweak changes: the stem, the kernel that has a bottleneck's stride, the shortcut, and the first one.

    Without `project_first` the first block has a projection only where it changes the number of channels.
    """

    stem: Callable
    strided_kernel: int
    shortcut: Callable
    project_first: bool = False


@dataclass(frozen=True)
class Depth:
    """The residual path and the number of blocks of each stage."""

    block: Callable
    blocks: tuple[int, ...]


VARIANTS = {
    "a": Variant(stem_7x7, 1, shortcut_conv),
    "b": Variant(stem_7x7, 3, shortcut_conv),
    "c": Variant(stem_deep, 3, shortcut_conv),
    "d": Variant(stem_deep, 3, shortcut_pool),
}
DEPTHS = {
    18: Depth(basic, (2, 2, 2, 2)),
    26: Depth(bottleneck, (2, 2, 2, 2)),
    34: Depth(basic, (3, 4, 6, 3)),
    50: Depth(bottleneck, (3, 4, 6, 3)),
    101: Depth(bottleneck, (3, 4, 23, 3)),
    152: Depth(bottleneck, (3, 8, 36, 3)),
}
# CIFAR's networks have basic blocks and no stem to tweak, so B and C would be A: only D's shortcut is left.
CIFAR_VARIANTS = {
    "a": Variant(stem_3x3, 1, shortcut_conv),
    "d": Variant(stem_3x3, 1, shortcut_pool),
}
# D with a projection in the first block too: what PaddlePaddle, and keras-hub after it, train as ResNet-vd. A
# bottleneck has that one anyway.
VD = Variant(stem_deep, 3, shortcut_pool, project_first=True)
CIFAR_DEPTHS = {depth: Depth(basic, (depth // 6,) * 3) for depth in (20, 32, 56)}

# name: (variant, depth, channels of the first stage, level of the stem: its stride is 2**level)
ARCHITECTURES = {
    **{f"resnet{n}_{v}": (VARIANTS[v], DEPTHS[n], 64, 2) for n in DEPTHS for v in VARIANTS},
    **{f"resnet{n}_vd": (VD, DEPTHS[n], 64, 2) for n in DEPTHS if DEPTHS[n].block is basic},
    **{
        f"cifar_resnet{n}_{v}": (CIFAR_VARIANTS[v], CIFAR_DEPTHS[n], 16, 0)
        for n in CIFAR_DEPTHS
        for v in CIFAR_VARIANTS
    },
}
POOLINGS = {"avg": layers.GlobalAveragePooling2D, "max": layers.GlobalMaxPooling2D}


def names() -> list[str]:
    """The names that `create` knows, by family, depth and variant."""
    return list(ARCHITECTURES)


def variant(name: str) -> str:
    """Which tweak a network of `names()` has: "A", "B", "C", "D" or "VD", which is D but for one projection."""
    _check_name(name)
    return name.rsplit("_", 1)[1].upper()


def usual_image_size(name: str) -> int:
    """The size that a network of `names()` was designed for: 224 for ImageNet's, 32 for CIFAR's."""
    _check_name(name)
    stem_level = ARCHITECTURES[name][3]
    return 224 if stem_level else 32


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

    It takes normalised float images (B, H, W, C) of any size from 1x1 on and gives float32 logits
    (B, num_classes). Without the top it gives its last stage, (B, ceil(H / 32), ceil(W / 32), channels), or
    when pooled (B, channels) in float32.

    Args:
        name: one of `names()`, such as "resnet50_d" or "cifar_resnet20_a". For basic blocks (18, 34) B is A.
        num_classes: width of the dense layer, from 1.
        input_shape: height, width (None is any) and channels of an image.
        include_top: average pool and dense layer, both in float32 whatever `dtype`.
        pooling: "avg", "max" or None, how the features are pooled without the top.
        classifier_activation: None for logits, or a Keras activation such as "softmax".
        zero_gamma: start the last batch norm of every path A at gamma 0, so that it adds nothing yet (3.1).
        width: factor on every channel count but the input's and the classes'.
        dtype: dtype policy of the layers; None is the global one.

    Raises:
        MisuseError: for an unknown name; it suggests the nearest.
        ValueError: for another argument out of its range.
    """
    _check_name(name)
    _check(num_classes, input_shape, include_top, pooling, width)
    with _dtype_policy(dtype):
        image = keras.Input(input_shape, name="image")
        x = _stages(image, *ARCHITECTURES[name], gamma="zeros" if zero_gamma else "ones", width=width)
        pooling = "avg" if include_top else pooling
        if pooling:
            x = POOLINGS[pooling](name=f"{pooling}_pool", dtype="float32")(x)
        if include_top:
            x = classifier(x, num_classes, classifier_activation, name="predictions")
    return keras.Model(image, x, name=name)


def features(model: keras.Model) -> keras.Model:
    """The ends of `model`'s stages, as a model with the outputs {"C2": (B, ceil(H / 4), ceil(W / 4), C), …}.

    It shares the weights of `model`. The dtype is the compute dtype.

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


def _stages(x, variant, depth, channels, level, *, gamma, width):
    x = variant.stem(x, _scale(channels, width))
    for stage, blocks in enumerate(depth.blocks):
        for block in range(blocks):
            x = _residual_block(
                x,
                depth.block,
                variant,
                _scale(channels * 2**stage, width),
                strides=2 if stage > 0 and block == 0 else 1,
                project=variant.project_first and stage == block == 0,
                gamma=gamma,
                name=f"stage{stage + 1}_block{block + 1}",
                end=f"C{level + stage}" if block == blocks - 1 else None,
            )
    return x


def _residual_block(x, path, variant, channels, *, strides, project, gamma, name, end):
    residual = path(x, channels, strides, strided_kernel=variant.strided_kernel, gamma=gamma, name=name)
    if project or strides > 1 or x.shape[-1] != residual.shape[-1]:
        x = variant.shortcut(x, residual.shape[-1], strides, name=f"{name}_shortcut")
    return layers.ReLU(name=end or f"{name}_relu")(layers.Add(name=f"{name}_add")([residual, x]))


def _scale(channels, width):
    return max(1, round(channels * width))


@contextlib.contextmanager
def _dtype_policy(dtype):
    """Makes `dtype` the global policy for the layers built inside; None leaves the one there is."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(dtype or before)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def _check_name(name):
    if name not in ARCHITECTURES:
        raise unknown("model", name, ARCHITECTURES)


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
