"""Inception-V3 (Szegedy et al., 2016) as in GluonCV, which the paper trains: no auxiliary head, dropout 0.5.

    stem: 3x3/2, 3x3, 3x3, 3x3/2 max pool -> 1x1, 3x3 -> 3x3/2 max pool, three blocks A -> B, four C -> D, two E

A block concatenates the outputs of parallel branches; B and D halve height and width. The stages end in the layers
C2 … C5, with heights 71, 35, 17 and 8 for images of 299.

Differences from the ResNets in this package follow GluonCV's network, whose accuracy the paper reports: convolutions in
the stem and those with a stride aren't padded, as in the original, and batch norm's epsilon is 1e-3. The average pools
include the zero padding in the mean, as in GluonCV and PyTorch. Those of `inception_v3_tf` don't, as in TF-slim and
keras.applications, whose weights it is for.
"""

from keras import layers

from keras_bot.models.layers import conv_bn, scale_channels, zero_pad

EPSILON = 1e-3
DROPOUT = 0.5
SMALLEST_IMAGE = 75  # leaves 1x1 after the last stage
COUNTS_ZEROS = {"inception_v3": True, "inception_v3_tf": False}  # whether average pools include the padding in the mean

AVERAGE, MAXIMUM = "pool", "max"  # branches that begin with a pool; the second is only a pool
ROW, COLUMN = (1, 3), (3, 1)
BOTH = (ROW, COLUMN)  # two parallel convolutions, concatenated

# A branch is a list of convolutions (filters, kernel) or (filters, kernel, stride).


def _a(pool):
    return {
        "1x1": [(64, 1)],
        "5x5": [(48, 1), (64, 5)],
        "3x3dbl": [(64, 1), (96, 3), (96, 3)],
        AVERAGE: [(pool, 1)],
    }


def _c(narrow):
    row, column = (1, 7), (7, 1)
    return {
        "1x1": [(192, 1)],
        "7x7": [(narrow, 1), (narrow, row), (192, column)],
        "7x7dbl": [(narrow, 1), (narrow, column), (narrow, row), (narrow, column), (192, row)],
        AVERAGE: [(192, 1)],
    }


B = {"3x3": [(384, 3, 2)], "3x3dbl": [(64, 1), (96, 3), (96, 3, 2)], MAXIMUM: []}
D = {
    "3x3": [(192, 1), (320, 3, 2)],
    "7x7x3": [(192, 1), (192, (1, 7)), (192, (7, 1)), (192, 3, 2)],
    MAXIMUM: [],
}
E = {
    "1x1": [(320, 1)],
    "3x3": [(384, 1), (384, BOTH)],
    "3x3dbl": [(448, 1), (384, 3), (384, BOTH)],
    AVERAGE: [(192, 1)],
}
BLOCKS = {  # stage: its blocks
    2: (_a(32), _a(64), _a(64)),
    3: (B, _c(128), _c(160), _c(160), _c(192)),
    4: (D, E, E),
}


def stages(x, counts_zeros: bool, *, width: float):
    """Builds the stages, from images (B, H, W, 3) of at least 75x75 to (B, ~H / 32 - 1, ~W / 32 - 1, 2048 * width).

    Args:
        x: images.
        counts_zeros: whether average pools also divide by 9 at the border.
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
            ends = [end for kind in branches for end in _branch(x, kind, branches[kind], counts_zeros, conv, name)]
            end = f"C{stage + 1}" if number == len(blocks) else f"{name}_concat"
            x = layers.Concatenate(name=end)(ends)
    return x


def _branch(x, kind, steps, counts_zeros, conv, block) -> list:
    """Builds a branch and returns its outputs: one, or two if it ends in parallel convolutions."""
    ends = [_pool(x, kind, counts_zeros, block)]
    for names, (filters, kernel, *strides) in zip(_names(kind, steps), steps, strict=True):
        kernels = kernel if kernel == BOTH else [kernel]
        options = {"padding": "valid"} if strides else {}
        pairs = zip(names, kernels, strict=True)
        ends = [conv(ends[0], filters, each, *strides, **options, name=f"{block}_{name}") for name, each in pairs]
    return ends


def _names(kind, steps) -> list[tuple[str, ...]]:
    """Returns the names of a branch's convolutions, one or two per step."""
    numbered = [f"{kind}_{number}" if len(steps) > 1 else kind for number in range(1, len(steps) + 1)]
    sides = [("a", "b") if kernel == BOTH else ("",) for _, kernel, *_ in steps]
    return [tuple(name + side for side in both) for name, both in zip(numbered, sides, strict=True)]


def convolution_names() -> list[str]:
    """Returns the names of all convolutions, without `_conv`, in the order that every library stores them in."""
    found = ["stem_1", "stem_2", "stem_3", "stage1_1", "stage1_2"]
    for stage, blocks in BLOCKS.items():
        for number, branches in enumerate(blocks, start=1):
            steps = [names for kind, steps in branches.items() for names in _names(kind, steps)]
            found += [f"stage{stage}_block{number}_{name}" for names in steps for name in names]
    return found


def _pool(x, kind, counts_zeros, block):
    """Returns the input of a branch's convolutions, after its pool if it has one."""
    if kind == MAXIMUM:
        return layers.MaxPooling2D(3, 2, name=f"{block}_max")(x)
    if kind != AVERAGE:
        return x
    if not counts_zeros:
        return layers.AveragePooling2D(3, 1, "same", name=f"{block}_average")(x)
    return layers.AveragePooling2D(3, 1, name=f"{block}_average")(zero_pad(x, f"{block}_average"))
