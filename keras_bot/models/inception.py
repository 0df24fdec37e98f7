"""Inception-V3 (Szegedy et al., 2016) as in GluonCV, which the paper trains: no auxiliary head, dropout 0.5.

    stem: 3x3/2, 3x3, 3x3, 3x3/2 max pool -> 1x1, 3x3 -> 3x3/2 max pool, three blocks A -> B, four C -> D, two E

A block concatenates the outputs of parallel branches; B and D halve height and width. The stages end in the layers
C2 … C5, with heights 71, 35, 17 and 8 for images of 299.

Differences from the ResNets in this package follow GluonCV's network, whose accuracy the paper reports: convolutions in
the stem and those with a stride aren't padded, as in the original, and batch norm's epsilon is 1e-3. The average pools
include the zero padding in the mean, as in GluonCV and PyTorch. Those of `inception_v3_tf` don't, as in TF-slim and
keras.applications, whose weights it is for.
"""

from dataclasses import dataclass

import keras
from keras import layers

from keras_bot.models.layers import conv_bn, scale_channels, zero_pad

EPSILON = 1e-3
DROPOUT = 0.5
SMALLEST_IMAGE = 75  # leaves 1x1 after the last stage


@dataclass(frozen=True)
class Architecture:
    """Difference between the two networks: whether the average pools include the zero padding in the mean."""

    counts_padding: bool


ARCHITECTURES = {"inception_v3": Architecture(True), "inception_v3_tf": Architecture(False)}


@dataclass(frozen=True)
class Convolution:
    """Convolution with batch norm and ReLU. With two kernels: two parallel ones, concatenated."""

    filters: int
    kernels: tuple[tuple[int, int], ...]
    strides: int = 1


@dataclass(frozen=True)
class Branch:
    """Branch of a block: convolutions, after an "average" or "max" pool if it has one. Layer names contain `name`."""

    name: str
    convolutions: tuple[Convolution, ...]
    pool: str | None = None

    def names(self) -> list[tuple[str, ...]]:
        """Returns the names of the convolutions within the block, one or two per element of `convolutions`."""
        count = len(self.convolutions)
        numbered = [f"{self.name}_{number}" if count > 1 else self.name for number in range(1, count + 1)]
        suffixes = [("a", "b") if len(convolution.kernels) > 1 else ("",) for convolution in self.convolutions]
        return [tuple(name + suffix for suffix in each) for name, each in zip(numbered, suffixes, strict=True)]


def _conv(filters, *kernels, strides=1):
    sides = [(kernel, kernel) if isinstance(kernel, int) else kernel for kernel in kernels]
    return Convolution(filters, tuple(sides), strides)


def _branch(name, *convolutions, pool=None):
    return Branch(name, convolutions, pool)


def _a(pool_filters):
    return (
        _branch("1x1", _conv(64, 1)),
        _branch("5x5", _conv(48, 1), _conv(64, 5)),
        _branch("3x3dbl", _conv(64, 1), _conv(96, 3), _conv(96, 3)),
        _branch("pool", _conv(pool_filters, 1), pool="average"),
    )


def _c(narrow):
    row, column = (1, 7), (7, 1)
    double = (_conv(narrow, column), _conv(narrow, row), _conv(narrow, column), _conv(192, row))
    return (
        _branch("1x1", _conv(192, 1)),
        _branch("7x7", _conv(narrow, 1), _conv(narrow, row), _conv(192, column)),
        _branch("7x7dbl", _conv(narrow, 1), *double),
        _branch("pool", _conv(192, 1), pool="average"),
    )


B = (
    _branch("3x3", _conv(384, 3, strides=2)),
    _branch("3x3dbl", _conv(64, 1), _conv(96, 3), _conv(96, 3, strides=2)),
    _branch("max", pool="max"),
)
D = (
    _branch("3x3", _conv(192, 1), _conv(320, 3, strides=2)),
    _branch("7x7x3", _conv(192, 1), _conv(192, (1, 7)), _conv(192, (7, 1)), _conv(192, 3, strides=2)),
    _branch("max", pool="max"),
)
E = (
    _branch("1x1", _conv(320, 1)),
    _branch("3x3", _conv(384, 1), _conv(384, (1, 3), (3, 1))),
    _branch("3x3dbl", _conv(448, 1), _conv(384, 3), _conv(384, (1, 3), (3, 1))),
    _branch("pool", _conv(192, 1), pool="average"),
)
BLOCKS = {  # stage: its blocks
    2: (_a(32), _a(64), _a(64)),
    3: (B, _c(128), _c(160), _c(160), _c(192)),
    4: (D, E, E),
}


def stages(x: keras.KerasTensor, architecture: Architecture, *, width: float) -> keras.KerasTensor:
    """Builds the stages, from images (B, H, W, 3) of at least 75x75 to (B, ~H / 32 - 1, ~W / 32 - 1, 2048 * width).

    Args:
        x: images.
        architecture: one of `ARCHITECTURES`.
        width: multiplier of the number of channels.
    """

    def conv(x, filters, kernel, strides=1, *, padding="symmetric", **names):
        filters = scale_channels(filters, width)
        return conv_bn(x, filters, kernel, strides=strides, padding=padding, epsilon=EPSILON, **names)

    x = conv(x, 32, 3, 2, padding="valid", name="stem_1")
    x = conv(x, 32, 3, padding="valid", name="stem_2")
    x = conv(x, 64, 3, name="stem_3")
    x = layers.MaxPooling2D(3, 2, name="stem_pool")(x)
    x = conv(x, 80, 1, name="stage1_1")
    x = conv(x, 192, 3, padding="valid", name="stage1_2", end="C2")
    x = layers.MaxPooling2D(3, 2, name="stage2_pool")(x)
    for stage, blocks in BLOCKS.items():
        for number, branches in enumerate(blocks, start=1):
            name = f"stage{stage}_block{number}"
            outputs = [output for branch in branches for output in _apply(branch, x, conv, architecture, name)]
            end = f"C{stage + 1}" if number == len(blocks) else f"{name}_concat"
            x = layers.Concatenate(name=end)(outputs)
    return x


def _apply(branch, x, conv, architecture, block) -> list:
    """Applies a branch and returns its outputs: one, or two if it ends in parallel convolutions."""
    outputs = [_pool(x, branch.pool, architecture, block)]
    for convolution, names in zip(branch.convolutions, branch.names(), strict=True):
        options = {"padding": "valid"} if convolution.strides > 1 else {}
        outputs = [
            conv(outputs[0], convolution.filters, kernel, convolution.strides, **options, name=f"{block}_{name}")
            for kernel, name in zip(convolution.kernels, names, strict=True)
        ]
    return outputs


def _pool(x, kind, architecture, block):
    """Returns the input of a branch's convolutions, after its pool if it has one."""
    if kind is None:
        return x
    if kind == "max":
        return layers.MaxPooling2D(3, 2, name=f"{block}_max")(x)
    if not architecture.counts_padding:
        return layers.AveragePooling2D(3, 1, "same", name=f"{block}_average")(x)
    return layers.AveragePooling2D(3, 1, name=f"{block}_average")(zero_pad(x, f"{block}_average"))


def convolution_names() -> list[str]:
    """Returns the names of all convolutions, without `_conv`, in the order that every library stores them in."""
    found = ["stem_1", "stem_2", "stem_3", "stage1_1", "stage1_2"]
    for stage, blocks in BLOCKS.items():
        for number, branches in enumerate(blocks, start=1):
            names = [name for branch in branches for each in branch.names() for name in each]
            found += [f"stage{stage}_block{number}_{name}" for name in names]
    return found
