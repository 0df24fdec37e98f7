"""Feature pyramid and the two stages of Faster R-CNN, as functional models on a backbone.

The pyramid turns C2 … C5 into maps P_k of equal width, each with information from the coarser maps:

    P_k = conv3x3(conv1x1(C_k) + upsampled(M_{k+1})),  M_k = the input of the 3x3 convolution

Levels above 5 are computed from C5 by 3x3 convolutions of stride 2 ("conv", RetinaNet), or from P5 by dropping every
other position ("pool", Faster R-CNN). Source: Lin et al. 2017, Feature Pyramid Networks; RetinaNet, section 4.
"""

from collections.abc import Mapping, Sequence

import keras
from keras import layers, ops

from keras_bot.errors import MisuseError


@keras.saving.register_keras_serializable("keras_bot")
class AddUpsampled(layers.Layer):
    """Sum of fine (B, h, w, C) and coarse (B, ceil(h / 2), ceil(w / 2), C), nearest-upsampled 2x and cut to h x w."""

    def call(self, fine, coarse):
        """Returns the sum, with the shape of `fine`."""
        coarse = ops.repeat(ops.repeat(coarse, 2, axis=1), 2, axis=2)
        height, width = ops.shape(fine)[1:3]
        return fine + coarse[:, :height, :width]

    def compute_output_shape(self, fine_shape, coarse_shape):
        """Returns the shape of `fine`."""
        return fine_shape


def check_backbone(backbone: keras.Model, levels: Sequence[str]) -> None:
    """Raises MisuseError unless `backbone` outputs a dictionary with all `levels`."""
    outputs = getattr(backbone, "output", None)
    given = sorted(outputs) if isinstance(outputs, Mapping) else []
    if not set(levels) <= set(given):
        raise MisuseError(
            f"Expected a backbone with the outputs {', '.join(levels)}, received {backbone.name!r} with "
            f"{', '.join(given) or 'no dictionary of outputs'}. Take one from load_backbone or models.features."
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


def _normal(deviation):
    return keras.initializers.RandomNormal(stddev=deviation)


def region_head(maps, shapes, channels):
    """Adds the RPN head, shared by all `maps`, to a functional model: objectness (B, A) and deltas (B, A, 4)."""
    inputs = keras.Input((None, None, next(iter(maps)).shape[-1]))
    options = {"padding": "same", "activation": "relu", "kernel_initializer": "he_normal"}
    hidden = layers.Conv2D(channels, 3, **options, name="rpn_conv")(inputs)
    ends = [
        layers.Conv2D(shapes * width, 1, kernel_initializer=_normal(0.01), name=f"rpn_{name}")(hidden)
        for name, width in (("objectness", 1), ("deltas", 4))
    ]
    head = keras.Model(inputs, ends, name="rpn_head")
    found = [head(x) for x in maps]
    scores = [layers.Reshape((-1,), dtype="float32")(objectness) for objectness, _ in found]
    deltas = [layers.Reshape((-1, 4), dtype="float32")(delta) for _, delta in found]

    def join(parts, name):
        return layers.Concatenate(axis=1, dtype="float32", name=name)(parts) if len(parts) > 1 else parts[0]

    return {"objectness": join(scores, "objectness"), "deltas": join(deltas, "deltas")}


def _ends(x, num_classes):
    """Adds class logits (n, K + 1) and class-wise deltas (n, 4 K) for region features (n, C)."""
    return {
        name: layers.Dense(width, kernel_initializer=_normal(dev), dtype="float32", name=f"roi_{name}")(x)
        for name, width, dev in (("logits", num_classes + 1, 0.01), ("deltas", num_classes * 4, 0.001))
    }


def fpn_parts(backbone, num_classes, shapes, channels, units) -> tuple[keras.Model, keras.Model]:
    """Builds both stages on a pyramid: images -> objectness, deltas, P2 … P6; regions (n, 7, 7, C) -> logits, deltas.

    Args:
        backbone: images -> C2 … C5.
        num_classes: K.
        shapes: anchors per position of a map.
        channels: channels of the pyramid and the RPN.
        units: units of the second stage's two dense layers.
    """
    image = keras.Input((None, None, 3), name="image")
    maps = pyramid(backbone(image), first=2, last=6, channels=channels, coarser="pool")
    network = keras.Model(image, {**region_head(maps.values(), shapes, channels), **maps}, name="first_stage")
    inputs = keras.Input((7, 7, channels))
    x = layers.Flatten()(inputs)
    for place in range(2):
        x = layers.Dense(units, activation="relu", kernel_initializer="he_normal", name=f"roi_dense{place}")(x)
    return network, keras.Model(inputs, _ends(x, num_classes), name="roi_head")


def c4_parts(backbone, num_classes, shapes, channels, _units=None) -> tuple[keras.Model, keras.Model]:
    """Builds both stages on C4: images -> objectness, deltas, C4; regions (n, 14, 14, C) -> logits, deltas.

    The second stage is the part of the backbone that computes C5 from C4. Arguments as in `fpn_parts`.

    Raises:
        MisuseError: If the backbone can't be split at C4.
    """
    try:
        trunk = keras.Model(backbone.input, backbone.output["C4"], name="trunk")
        stage = keras.Model(backbone.output["C4"], backbone.output["C5"], name="last_stage")
    except ValueError as error:
        raise MisuseError(
            f"Expected a functional backbone in which C5 is computed from C4, received {backbone.name!r} that can't be "
            f"cut there. Take the neck 'fpn'. {error}"
        ) from error
    image = keras.Input((None, None, 3), name="image")
    c4 = trunk(image)
    network = keras.Model(image, {**region_head([c4], shapes, channels), "C4": c4}, name="first_stage")
    inputs = keras.Input((14, 14, c4.shape[-1]))
    x = layers.GlobalAveragePooling2D()(stage(inputs))
    return network, keras.Model(inputs, _ends(x, num_classes), name="roi_head")
