"""MobileNet (Howard et al., 2017): depthwise and pointwise convolutions in place of whole ones.

    3x3/2 to 32 -> block to 64 -> four stages of blocks: 2 to 128, 2 to 256, 6 to 512, 2 to 1024

A block is a 3x3 convolution of each channel by itself and a 1x1 convolution, each with batch norm and ReLU. Every stage
halves height and width in its first block, and ends in the layer C2 … C5.

`mobilenet_v1` is what the paper trains, GluonCV's: ReLU, symmetric padding. The others are for the weights of other
libraries: timm's network has ReLU6; TF-slim's and keras.applications' also pad the bottom and the right alone at a
stride, where height and width are even, and have another epsilon.
"""

from dataclasses import dataclass

from keras_bot.models.layers import BN_EPSILON, conv_bn, depthwise_bn, scale_channels

STEM = (32, 64)  # channels of the first convolution and of the block after it
STAGES = ((128, 2), (256, 2), (512, 6), (1024, 2))  # channels and blocks


@dataclass(frozen=True)
class Form:
    """What the networks differ in: where the ReLUs end, how strided convolutions are padded, batch norm's epsilon."""

    ceiling: float | None = None
    padding: str = "symmetric"
    epsilon: float = BN_EPSILON


FORMS = {
    "mobilenet_v1": Form(),
    "mobilenet_v1_relu6": Form(ceiling=6.0),
    "mobilenet_v1_tf": Form(ceiling=6.0, padding="same", epsilon=1e-3),
}


def stages(x, form: Form, *, width: float):
    """Images (B, H, W, 3) to the last stage, (B, ceil(H / 32), ceil(W / 32), 1024 * width)."""
    options = {"padding": form.padding, "epsilon": form.epsilon, "ceiling": form.ceiling}
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
    """The names of all blocks in order."""
    stages = [f"stage{stage}_block{block + 1}" for stage, (_, n) in enumerate(STAGES, start=1) for block in range(n)]
    return ["stem_block", *stages]


def _block(x, channels, strides, *, name, end, **options):
    x = depthwise_bn(x, strides=strides, name=f"{name}_depthwise", **options)
    return conv_bn(x, channels, 1, name=f"{name}_pointwise", end=end, **options)
