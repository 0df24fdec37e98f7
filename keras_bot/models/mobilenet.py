"""MobileNet (Howard et al., 2017): depthwise and pointwise convolutions instead of full ones.

    3x3/2 to 32 -> block to 64 -> four stages of blocks: 2 to 128, 2 to 256, 6 to 512, 2 to 1024

A block is a 3x3 depthwise convolution and a 1x1 convolution, each with batch norm and ReLU. Every stage halves height
and width in its first block. The stages end in the layers C2 … C5.

`mobilenet_v1` is GluonCV's network, which the paper trains: ReLU, symmetric padding. The others are for weights of
other libraries. timm's network has ReLU6. Those of TF-slim and keras.applications also have another epsilon and, with a
stride and even height and width, pad only the bottom and the right.
"""

import dataclasses

import keras

from keras_bot.models.layers import BN_EPSILON, conv_bn, depthwise_bn, scale_channels

STEM = (32, 64)  # channels of the first convolution and of the block after it
STAGES = ((128, 2), (256, 2), (512, 6), (1024, 2))  # (channels, number of blocks) of each stage


@dataclasses.dataclass(frozen=True)
class Architecture:
    """Differences between the networks: maximum of the ReLUs, padding of strided convolutions, batch norm's epsilon."""

    ceiling: float | None = None
    padding: str = "symmetric"
    epsilon: float = BN_EPSILON


ARCHITECTURES = {
    "mobilenet_v1": Architecture(),
    "mobilenet_v1_relu6": Architecture(ceiling=6.0),
    "mobilenet_v1_tf": Architecture(ceiling=6.0, padding="same", epsilon=1e-3),
}


def stages(x: keras.KerasTensor, architecture: Architecture, *, width: float) -> keras.KerasTensor:
    """Builds the stages: images (B, H, W, 3) to (B, ceil(H / 32), ceil(W / 32), 1024 * width)."""
    options = dataclasses.asdict(architecture)
    first, second = (scale_channels(channels, width) for channels in STEM)
    x = conv_bn(x, first, 3, strides=2, name="stem", **options)
    x = _block(x, second, 1, name="stem_block", end=None, **options)
    for stage, (channels, blocks) in enumerate(STAGES, start=1):
        for block in range(1, blocks + 1):
            x = _block(
                x,
                scale_channels(channels, width),
                strides=2 if block == 1 else 1,
                name=f"stage{stage}_block{block}",
                end=f"C{stage + 1}" if block == blocks else None,
                **options,
            )
    return x


def block_names() -> list[str]:
    """Returns the names of all blocks in order."""
    stages = [f"stage{stage}_block{block + 1}" for stage, (_, n) in enumerate(STAGES, start=1) for block in range(n)]
    return ["stem_block", *stages]


def _block(x, channels, strides, *, name, end, **options):
    x = depthwise_bn(x, strides=strides, name=f"{name}_depthwise", **options)
    return conv_bn(x, channels, 1, name=f"{name}_pointwise", end=end, **options)
