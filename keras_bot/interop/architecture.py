"""Identification of our networks by their layers."""

import collections
from collections.abc import Iterable

import keras

from keras_bot.models import inception, mobilenet
from keras_bot.models.resnet import DEPTHS


def find_resnet(layers: Iterable[str], variant: str) -> str | None:
    """Returns the name of the ResNet with these layers, or None if it is not one of ours.

    Args:
        layers: our names of the layers with weights.
        variant: "a", "b", "c", "d", or "" for any other.
    """
    layers = set(layers)
    blocks, deep = _blocks(layers), variant in ("c", "d")
    for number, depth in DEPTHS.items():
        same_path = depth.has_bottlenecks == ("stage1_block1_3_conv" in layers)
        if variant and depth.blocks == blocks and same_path and ("stem_1_conv" in layers) == deep:
            projects = not depth.has_bottlenecks and "stage1_block1_shortcut_conv" in layers
            return f"resnet{number}_{'v' if projects and variant == 'd' else ''}{variant}"
    return None


def identify(model: keras.Model) -> str | None:
    """Returns a model's network name, ignoring `model.name` and width, or None if it is not one of ours."""
    layers = {layer.name: layer for layer in model.layers}
    if "stage4_block3_3x3dbl_3b_conv" in layers:
        counts_padding = layers["stage2_block1_average"].padding == "valid"
        return next(name for name, known in inception.ARCHITECTURES.items() if known.counts_padding == counts_padding)
    if "stem_block_depthwise_conv" in layers:
        uneven = layers["stage1_block1_depthwise_conv"].padding == "same"
        padding = "same" if uneven else "symmetric"
        inside = mobilenet.Architecture(layers["stem_relu"].max_value, padding, layers["stem_bn"].epsilon)
        return next((name for name, known in mobilenet.ARCHITECTURES.items() if known == inside), None)
    return _identify_resnet(layers)


def _identify_resnet(layers):
    first = layers.get("stage2_block1_1_conv")
    if first is None:
        return None
    deep = "stem_1_conv" in layers
    if "stage2_block1_shortcut_pool" in layers:
        variant = "d" if deep else ""
    elif "stage2_block1_3_conv" in layers and first.strides != (1, 1):
        variant = "" if deep else "a"
    else:
        variant = "c" if deep else "b"
    return find_resnet([name for name, layer in layers.items() if layer.weights], variant)


def same_network(one: str | None, other: str | None) -> bool:
    """Returns whether two names denote the same network: with basic blocks, variants A and B are equal."""
    basic = [number for number, depth in DEPTHS.items() if not depth.has_bottlenecks]
    return one == other or {one, other} in [{f"resnet{number}_a", f"resnet{number}_b"} for number in basic]


def describe_resnet(layers: Iterable[str], variant: str) -> str:
    """Describes a ResNet that may not be one of ours."""
    layers = set(layers)
    path = "bottleneck" if "stage1_block1_3_conv" in layers else "basic"
    stem = "a deep stem" if "stem_1_conv" in layers else "a 7x7 stem"
    shortcuts = "" if variant else " and pooled shortcuts"
    return f"a ResNet of {', '.join(map(str, _blocks(layers)))} {path} blocks with {stem}{shortcuts}"


def _blocks(layers):
    """Returns the number of blocks in each stage."""
    blocks = {tuple(layer.split("_")[:2]) for layer in layers if layer.startswith("stage")}
    counts = collections.Counter(stage for stage, _ in blocks)
    return tuple(counts[stage] for stage in sorted(counts))
