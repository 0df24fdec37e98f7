"""The two stages of Faster R-CNN as functional models on a backbone.

The first stage maps images to region proposals and feature maps, the second maps pooled regions to classes and boxes.
"""

import keras
from keras import layers

from keras_bot.errors import MisuseError
from keras_bot.tasks.detection.fpn import pyramid


def fpn_stages(
    backbone: keras.Model, num_classes: int, *, shapes: int, channels: int, units: int
) -> tuple[keras.Model, keras.Model]:
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
    first = keras.Model(image, {**_proposal_head(maps.values(), shapes, channels), **maps}, name="first_stage")
    inputs = keras.Input((7, 7, channels))
    x = layers.Flatten()(inputs)
    for i in range(2):
        x = layers.Dense(units, activation="relu", kernel_initializer="he_normal", name=f"roi_dense{i}")(x)
    return first, keras.Model(inputs, _region_outputs(x, num_classes), name="roi_head")


def c4_stages(
    backbone: keras.Model, num_classes: int, *, shapes: int, channels: int
) -> tuple[keras.Model, keras.Model]:
    """Builds both stages on C4: images -> objectness, deltas, C4; regions (n, 14, 14, C) -> logits, deltas.

    The second stage is the part of the backbone that computes C5 from C4. Arguments as in `fpn_stages`.

    Raises:
        MisuseError: If the backbone can't be split at C4.
    """
    try:
        trunk = keras.Model(backbone.input, backbone.output["C4"], name="trunk")
        last_stage = keras.Model(backbone.output["C4"], backbone.output["C5"], name="last_stage")
    except ValueError as error:
        raise MisuseError(
            f"The neck 'c4' needs a functional backbone that computes C5 from C4. {backbone.name!r} cannot be split "
            f"there: {error} Use the neck 'fpn'."
        ) from error
    image = keras.Input((None, None, 3), name="image")
    c4 = trunk(image)
    first = keras.Model(image, {**_proposal_head([c4], shapes, channels), "C4": c4}, name="first_stage")
    inputs = keras.Input((14, 14, c4.shape[-1]))
    x = layers.GlobalAveragePooling2D()(last_stage(inputs))
    return first, keras.Model(inputs, _region_outputs(x, num_classes), name="roi_head")


def _proposal_head(maps, shapes, channels):
    """Adds the RPN head, shared by all `maps`, to a functional model: objectness (B, A) and deltas (B, A, 4)."""
    inputs = keras.Input((None, None, next(iter(maps)).shape[-1]))
    options = {"padding": "same", "activation": "relu", "kernel_initializer": "he_normal"}
    hidden = layers.Conv2D(channels, 3, **options, name="rpn_conv")(inputs)
    outputs = [
        layers.Conv2D(shapes * width, 1, kernel_initializer=_normal(0.01), name=f"rpn_{name}")(hidden)
        for name, width in (("objectness", 1), ("deltas", 4))
    ]
    head = keras.Model(inputs, outputs, name="rpn_head")
    levels = [head(x) for x in maps]
    scores = [layers.Reshape((-1,), dtype="float32")(objectness) for objectness, _ in levels]
    deltas = [layers.Reshape((-1, 4), dtype="float32")(delta) for _, delta in levels]

    def join(parts, name):
        return layers.Concatenate(axis=1, dtype="float32", name=name)(parts) if len(parts) > 1 else parts[0]

    return {"objectness": join(scores, "objectness"), "deltas": join(deltas, "deltas")}


def _region_outputs(x, num_classes):
    """Adds class logits (n, K + 1) and class-wise deltas (n, 4 K) for region features (n, C)."""
    return {
        name: layers.Dense(width, kernel_initializer=_normal(deviation), dtype="float32", name=f"roi_{name}")(x)
        for name, width, deviation in (("logits", num_classes + 1, 0.01), ("deltas", num_classes * 4, 0.001))
    }


def _normal(deviation):
    return keras.initializers.RandomNormal(stddev=deviation)
