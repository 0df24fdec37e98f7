"""Feature pyramid network (FPN) on a backbone.

It turns C2 … C5 into maps P_k of equal width, each with information from the coarser maps:

    P_k = conv3x3(conv1x1(C_k) + upsampled(M_{k+1})),  M_k = the input of the 3x3 convolution

Levels above 5 are computed from C5 by 3x3 convolutions of stride 2 ("conv", RetinaNet), or from P5 by dropping every
other position ("pool", Faster R-CNN). Source: Lin et al. 2017, Feature Pyramid Networks; RetinaNet, section 4.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import layers, ops

from keras_bot.errors import MisuseError


@keras.saving.register_keras_serializable("keras_bot")
class AddUpsampled(layers.Layer):
    """Sum of fine (B, h, w, C) and coarse (B, ceil(h / 2), ceil(w / 2), C), nearest-upsampled 2x and cut to h x w."""

    def call(self, fine: Any, coarse: Any) -> Any:
        """Returns the sum, with the shape of `fine`."""
        coarse = ops.repeat(ops.repeat(coarse, 2, axis=1), 2, axis=2)
        height, width = ops.shape(fine)[1:3]
        return fine + coarse[:, :height, :width]

    def compute_output_shape(
        self, fine_shape: tuple[int | None, ...], coarse_shape: tuple[int | None, ...]
    ) -> tuple[int | None, ...]:
        """Returns the shape of `fine`."""
        return fine_shape

    def get_config(self) -> dict[str, Any]:
        """Returns the base config. Without this override, Keras rejects a dtype policy, as in recast copies."""
        return super().get_config()


def check_backbone(backbone: keras.Model, levels: Sequence[str]) -> None:
    """Raises MisuseError unless `backbone` outputs a dictionary with all `levels`."""
    outputs = getattr(backbone, "output", None)
    names = sorted(outputs) if isinstance(outputs, Mapping) else []
    if not set(levels) <= set(names):
        raise MisuseError(
            f"The detector needs a backbone with the outputs {', '.join(levels)}, but {backbone.name!r} has "
            f"{', '.join(names) or 'no dictionary of outputs'}. Use load_backbone or models.features."
        )


def pyramid(
    features: Mapping[str, keras.KerasTensor],
    *,
    first: int,
    last: int,
    channels: int,
    coarser: str,
) -> dict[str, keras.KerasTensor]:
    """Adds a pyramid to a functional model: {"P3": …, …} with `channels` channels, P_k of stride 2**k.

    Args:
        features: "C2" … "C5"; each has half the height and width of the previous one, rounded up.
        first: finest level, 2 to 5.
        last: coarsest level, at least 5.
        channels: channels of every level.
        coarser: how levels above 5 are computed, "conv" or "pool".
    """

    def conv(x, kernel, name, strides=1):
        init = "glorot_uniform"
        return layers.Conv2D(channels, kernel, strides, "same", kernel_initializer=init, name=f"fpn_{name}")(x)

    inner = conv(features["C5"], 1, "lateral5")
    maps = {"P5": conv(inner, 3, "p5")}
    for level in range(4, first - 1, -1):
        lateral = conv(features[f"C{level}"], 1, f"lateral{level}")
        inner = AddUpsampled(name=f"fpn_merge{level}")(lateral, inner)
        maps[f"P{level}"] = conv(inner, 3, f"p{level}")
    coarse = features["C5"] if coarser == "conv" else maps["P5"]
    for level in range(6, last + 1):
        if coarser == "pool":
            coarse = layers.MaxPooling2D(1, 2, name=f"fpn_p{level}")(coarse)
        else:
            coarse = layers.ReLU(name=f"fpn_relu{level - 1}")(coarse) if level > 6 else coarse
            coarse = conv(coarse, 3, f"p{level}", strides=2)
        maps[f"P{level}"] = coarse
    return {f"P{level}": maps[f"P{level}"] for level in range(first, last + 1)}
