"""ResNet-A (He et al., 2016) and its tweaks B, C and D (section 4 of the paper) at all depths, as tables.

    stem -> stages of residual blocks -> average pool -> dense

A residual block is relu(path A + path B): path A is `bottleneck` or `basic`, path B the shortcut. Every
stage but the first halves height and width in its first block. The layer `Ck` is the output of the stage whose
stride is 2**k: C2 … C5 in ImageNet's networks, C0 … C2 in CIFAR's.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import keras
from keras import layers

from keras_bot.models.layers import (
    basic,
    bottleneck,
    scale_channels,
    shortcut_conv,
    shortcut_pool,
    stem_3x3,
    stem_7x7,
    stem_deep,
)


@dataclass(frozen=True)
class Variant:
    """Parts that a tweak changes: the stem, the bottleneck's convolution with the stride, and the shortcuts.

    Without `project_first`, the first block has a projection only if it changes the number of channels.
    """

    stem: Callable
    bottleneck: Callable
    shortcut: Callable
    project_first: bool = False


@dataclass(frozen=True)
class Depth:
    """Number of blocks per stage, and whether they are bottlenecks or basic blocks."""

    blocks: tuple[int, ...]
    has_bottlenecks: bool


@dataclass(frozen=True)
class Architecture:
    """A ResNet without its head: variant, depth, channels of the first stage; the stem's stride is 2**stem_level."""

    variant: Variant
    depth: Depth
    channels: int
    stem_level: int

    @property
    def path(self) -> Callable:
        """The residual path A of its blocks."""
        return self.variant.bottleneck if self.depth.has_bottlenecks else basic


STRIDE_ON_FIRST = partial(bottleneck, strided_convolution=1)
STRIDE_ON_SECOND = partial(bottleneck, strided_convolution=2)
VARIANTS = {
    "a": Variant(stem_7x7, STRIDE_ON_FIRST, shortcut_conv),
    "b": Variant(stem_7x7, STRIDE_ON_SECOND, shortcut_conv),
    "c": Variant(stem_deep, STRIDE_ON_SECOND, shortcut_conv),
    "d": Variant(stem_deep, STRIDE_ON_SECOND, shortcut_pool),
}
DEPTHS = {
    10: Depth((1, 1, 1, 1), has_bottlenecks=False),
    14: Depth((1, 1, 1, 1), has_bottlenecks=True),
    18: Depth((2, 2, 2, 2), has_bottlenecks=False),
    26: Depth((2, 2, 2, 2), has_bottlenecks=True),
    34: Depth((3, 4, 6, 3), has_bottlenecks=False),
    50: Depth((3, 4, 6, 3), has_bottlenecks=True),
    101: Depth((3, 4, 23, 3), has_bottlenecks=True),
    152: Depth((3, 8, 36, 3), has_bottlenecks=True),
}
# CIFAR's networks have basic blocks and a 3x3 stem, so variants B and C would be identical to A.
CIFAR_VARIANTS = {
    "a": Variant(stem_3x3, STRIDE_ON_FIRST, shortcut_conv),
    "d": Variant(stem_3x3, STRIDE_ON_FIRST, shortcut_pool),
}
# D with a projection in the first block, too: ResNet-vd of PaddlePaddle and keras-hub. Bottlenecks always have this
# projection.
VD = Variant(stem_deep, STRIDE_ON_SECOND, shortcut_pool, project_first=True)
CIFAR_DEPTHS = {depth: Depth((depth // 6,) * 3, has_bottlenecks=False) for depth in (8, 20, 32, 56)}

ARCHITECTURES = {
    **{f"resnet{n}_{v}": Architecture(VARIANTS[v], DEPTHS[n], 64, 2) for n in DEPTHS for v in VARIANTS},
    **{f"resnet{n}_vd": Architecture(VD, depth, 64, 2) for n, depth in DEPTHS.items() if not depth.has_bottlenecks},
    **{
        f"cifar_resnet{n}_{v}": Architecture(CIFAR_VARIANTS[v], CIFAR_DEPTHS[n], 16, 0)
        for n in CIFAR_DEPTHS
        for v in CIFAR_VARIANTS
    },
}


def stages(x: keras.KerasTensor, architecture: Architecture, *, width: float, gamma: str) -> keras.KerasTensor:
    """Builds the stages: images (B, H, W, 3) to (B, ceil(H / 2**k), ceil(W / 2**k), C), where k is the last level.

    Args:
        x: images.
        architecture: one of `ARCHITECTURES`.
        width: multiplier of the number of channels.
        gamma: initializer of gamma in the last batch norm of every path A.
    """
    variant, level = architecture.variant, architecture.stem_level
    x = variant.stem(x, scale_channels(architecture.channels, width))
    for stage, blocks in enumerate(architecture.depth.blocks):
        channels = scale_channels(architecture.channels * 2**stage, width)
        for block in range(blocks):
            name = f"stage{stage + 1}_block{block + 1}"
            strides = 2 if stage > 0 and block == 0 else 1
            residual = architecture.path(x, channels, strides, gamma=gamma, name=name)
            project = variant.project_first and stage == block == 0
            if project or strides > 1 or x.shape[-1] != residual.shape[-1]:
                x = variant.shortcut(x, residual.shape[-1], strides, name=f"{name}_shortcut")
            end = f"C{level + stage}" if block == blocks - 1 else f"{name}_relu"
            x = layers.ReLU(name=end)(layers.Add(name=f"{name}_add")([residual, x]))
    return x
