"""ResNet-A (He et al., 2016) and its tweaks B, C and D (section 4 of the paper) at all depths, as tables.

    stem -> stages of residual blocks -> average pool -> dense

A residual block is relu(path A + path B): path A is `bottleneck` or `basic`, path B the shortcut. Every
stage but the first halves height and width in its first block. The layer `Ck` is the output of the stage whose
stride is 2**k: C2 … C5 in ImageNet's networks, C0 … C2 in CIFAR's.
"""

from collections.abc import Callable
from dataclasses import dataclass

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
    """Parts that a tweak changes: the stem, the kernel with the stride in a bottleneck, and the shortcuts.

    Without `project_first`, the first block has a projection only if it changes the number of channels.
    """

    stem: Callable
    strided_kernel: int
    shortcut: Callable
    project_first: bool = False


@dataclass(frozen=True)
class Depth:
    """Residual path and number of blocks per stage."""

    block: Callable
    blocks: tuple[int, ...]


VARIANTS = {
    "a": Variant(stem_7x7, 1, shortcut_conv),
    "b": Variant(stem_7x7, 3, shortcut_conv),
    "c": Variant(stem_deep, 3, shortcut_conv),
    "d": Variant(stem_deep, 3, shortcut_pool),
}
DEPTHS = {
    10: Depth(basic, (1, 1, 1, 1)),
    14: Depth(bottleneck, (1, 1, 1, 1)),
    18: Depth(basic, (2, 2, 2, 2)),
    26: Depth(bottleneck, (2, 2, 2, 2)),
    34: Depth(basic, (3, 4, 6, 3)),
    50: Depth(bottleneck, (3, 4, 6, 3)),
    101: Depth(bottleneck, (3, 4, 23, 3)),
    152: Depth(bottleneck, (3, 8, 36, 3)),
}
# CIFAR's networks have basic blocks and a 3x3 stem, so variants B and C would be identical to A.
CIFAR_VARIANTS = {
    "a": Variant(stem_3x3, 1, shortcut_conv),
    "d": Variant(stem_3x3, 1, shortcut_pool),
}
# D with a projection in the first block, too: ResNet-vd of PaddlePaddle and keras-hub. Bottlenecks always have this
# projection.
VD = Variant(stem_deep, 3, shortcut_pool, project_first=True)
CIFAR_DEPTHS = {depth: Depth(basic, (depth // 6,) * 3) for depth in (8, 20, 32, 56)}

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


def stages(x, variant: Variant, depth: Depth, channels: int, level: int, *, width: float, gamma: str):
    """Builds the stages: images (B, H, W, 3) to (B, ceil(H / 2**k), ceil(W / 2**k), C). See ARCHITECTURES.

    Args:
        x: images.
        width: multiplier of the number of channels.
        gamma: initializer of gamma in the last batch norm of every path A.
    """
    x = variant.stem(x, scale_channels(channels, width))
    for stage, blocks in enumerate(depth.blocks):
        for block in range(blocks):
            x = _residual_block(
                x,
                depth.block,
                variant,
                scale_channels(channels * 2**stage, width),
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
