"""Names and layouts of each library's weights, mapped to ours.

A `Place` is a layer and a weight of our networks: ("stage1_block1_2_conv", "kernel"). A `Naming` maps each name in a
file to its place. It also identifies the network, or for a ResNet the variant as far as the names show it; the shapes
determine the rest. ResNet variants are identified by:

| source | variants | identified by |
|---|---|---|
| timm, torchvision | B, C, D | the deep stem `conv1.0`; D's pooling, which makes `downsample.1` a convolution |
| gluoncv | A (v1), B (v1b), C (v1c), D (v1d) | v1's own names, `features.…`; otherwise as for timm |
| keras_applications | A | always A: the stride is in a bottleneck's first convolution |
| keras_hub | B (resnet), D (resnet_vd) | the deep stem |
| paddleclas | D (ResNet_vd) | the deep stem |

Weights don't show where a network pools or strides, so one that differs only in this would be misidentified. For this
reason tf-models is not a source: its D also pools, with stride 1, in the first stage. Nor do weights show the upper
bound of MobileNet's ReLUs, so only one MobileNet per library is supported. For Inception-V3 and MobileNet, see
`inception_names` and `mobilenet_names`.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

from keras_bot.interop import inception_names, mobilenet_names


class Place(NamedTuple):
    """A weight of our networks: the layer's name and the weight's."""

    layer: str
    weight: str


# {theirs: ours}. Not `weight` and `bias`, which are either gamma and beta or a kernel and its bias.
_WEIGHTS = {
    **{name: name for name in ("kernel", "gamma", "beta", "moving_mean", "moving_variance")},
    "depthwise_kernel": "kernel",
    **{"running_mean": "moving_mean", "running_var": "moving_variance"},
    **{"_mean": "moving_mean", "_variance": "moving_variance"},
}
_CONVOLUTION, _DENSE = (2, 3, 1, 0), (1, 0)  # our axes in (out, in, height, width) and (out, in)
_DEPTHWISE = (2, 3, 0, 1)  # our axes in (in, 1, height, width)


@dataclass(frozen=True)
class Naming:
    """A library's names for a family of networks.

    Args:
        layers: maps the layer names in a file to {theirs: ours}, without layers that no network of the family has.
        network: the library's only network of the family; None for ResNets.
        variant: maps the layer names in a ResNet's file to "a", "b", "c" or "d", or "" for any other.
        separator: separator between the names of a layer and its weight.
        convolution: permutation of a convolution kernel's axes to (height, width, in, out); None if not needed.
        depthwise: permutation of a depthwise kernel's axes to (height, width, in, 1); None if not needed.
        dense: permutation of a dense kernel's axes to (in, out); None if not needed.
        ignored: names of weights that have no counterpart here.
        auxiliary: prefix of the names of an auxiliary head used only in training, which is ignored.
        scaled: whether batch norms have a gamma; if not, gamma is 1.
    """

    layers: Callable[[Iterable[str]], dict[str, str]]
    network: str | None = None
    variant: Callable[[Iterable[str]], str] = lambda names: ""
    separator: str = "."
    convolution: tuple[int, ...] | None = _CONVOLUTION
    depthwise: tuple[int, ...] | None = _DEPTHWISE
    dense: tuple[int, ...] | None = _DENSE
    ignored: tuple[str, ...] = ()
    auxiliary: str | None = None
    scaled: bool = True

    def places(self, names: Iterable[str]) -> dict[str, Place]:
        """Returns {their name: our place}, without unknown names."""
        split = {name: name.rpartition(self.separator)[::2] for name in names}
        layers = self.layers({layer for layer, _ in split.values()})
        found = {name: _place(layers[layer], weight) for name, (layer, weight) in split.items() if layer in layers}
        return {name: place for name, place in found.items() if place.weight}


def _place(layer, weight):
    of_norm = layer.endswith("_bn")
    meanings = _WEIGHTS | {"weight": "gamma" if of_norm else "kernel", "bias": "beta" if of_norm else "bias"}
    return Place(layer, meanings.get(weight, ""))


def _torch_layers(names):
    deep = {f"conv1.{i}": f"stem_{1 + i // 3}_{'bn' if i % 3 else 'conv'}" for i in (0, 1, 3, 4, 6)}
    known = {**deep, "bn1": "stem_3_bn"} if "conv1.0" in names else {"conv1": "stem_conv", "bn1": "stem_bn"}
    known["fc"] = "predictions"
    first = 1 if _pools(names) else 0
    for name in names:
        if block := re.fullmatch(r"layer([1-4])\.(\d+)\.(?:(conv|bn)([1-3])|downsample\.([0-2]))", name):
            stage, number, kind, place, shortcut = block.groups()
            start = f"stage{stage}_block{int(number) + 1}"
            kinds = {first: "shortcut_conv", first + 1: "shortcut_bn"}
            ours = kinds.get(int(shortcut)) if shortcut else f"{place}_{kind}"
            known |= {name: f"{start}_{ours}"} if ours else {}
    return known


def _pools(names):
    shortcuts = {name.rpartition(".")[2] for name in names if ".downsample." in name}
    return bool(shortcuts) and "0" not in shortcuts


def _torch_variant(names):
    if "conv1.0" in names:
        return "d" if _pools(names) else "c"
    return "" if _pools(names) else "b"


def _gluon_layers(names):
    """Returns GluonCV's names: PyTorch's for v1b, v1c and v1d, positions for v1."""
    if "features.0" not in names:
        return _torch_layers(names)
    known = {"features.0": "stem_conv", "features.1": "stem_bn", "output": "predictions"}
    for name in names:
        if block := re.fullmatch(r"features\.([4-7])\.(\d+)\.(body|downsample)\.([013467])", name):
            stage, number, path, place = int(block[1]) - 3, int(block[2]) + 1, block[3], int(block[4])
            kind = "bn" if place % 3 else "conv"
            ours = f"{1 + place // 3}_{kind}" if path == "body" else f"shortcut_{kind}"
            known[name] = f"stage{stage}_block{number}_{ours}"
    return known


def _keras_layers(pattern, first_stage, first_block):
    """Returns `layers` for names as in keras.applications: a block's convolutions are 1, 2, 3, its shortcut is 0."""

    def layers(names):
        deep = "conv3_conv" in names
        known = {"predictions": "predictions"}
        for name in names:
            if stem := re.fullmatch(r"conv([1-3])_(conv|bn)", name):
                known[name] = f"stem_{stem[1]}_{stem[2]}" if deep else f"stem_{stem[2]}"
            elif block := re.fullmatch(pattern + r"(\d)_block(\d+)_([0-3])_(conv|bn)", name):
                start = f"stage{int(block[1]) + 1 - first_stage}_block{int(block[2]) + 1 - first_block}"
                known[name] = f"{start}_{'shortcut' if block[3] == '0' else block[3]}_{block[4]}"
        return known

    return layers


def _paddle_layers(names):
    """Returns PaddleClas' names: blocks are numbered through all stages; in vd, each stage starts with a projection."""
    parts = [name.split(".") for name in names]
    blocks = sorted({int(part[1]) for part in parts if part[0] == "blocks" and part[1:2] and part[1].isdigit()})
    starts = [block for block in blocks if f"blocks.{block}.short.conv" in names]
    known = {"fc": "predictions"}
    known |= {f"stem.{i}.{kind}": f"stem_{i + 1}_{kind}" for i in range(3) for kind in ("conv", "bn")}
    for block in blocks:
        stage = sum(start <= block for start in starts)
        begin = max((start for start in starts if start <= block), default=0)
        for theirs, ours in (("conv0", "1"), ("conv1", "2"), ("conv2", "3"), ("short", "shortcut")):
            for kind in ("conv", "bn"):
                known[f"blocks.{block}.{theirs}.{kind}"] = f"stage{stage}_block{block - begin + 1}_{ours}_{kind}"
    return known


_TORCH: dict[str, Any] = {"ignored": ("num_batches_tracked",)}
_KERAS: dict[str, Any] = {"separator": "/", "convolution": None, "depthwise": None, "dense": None}
_RESNET = Naming(_torch_layers, variant=_torch_variant, **_TORCH)
_INCEPTION = Naming(inception_names.torch_layers, "inception_v3", auxiliary="AuxLogits.", **_TORCH)
# For each source, the naming that knows most of a file's names is used; ties go to the first.
NAMINGS: dict[str, tuple[Naming, ...]] = {
    "timm": (_RESNET, _INCEPTION, Naming(mobilenet_names.torch_layers, "mobilenet_v1_relu6", **_TORCH)),
    "torchvision": (_RESNET, _INCEPTION),
    "gluoncv": (
        Naming(_gluon_layers, variant=lambda names: "a" if "features.0" in names else _torch_variant(names)),
        Naming(inception_names.gluon_layers, "inception_v3"),
        Naming(mobilenet_names.gluon_layers, "mobilenet_v1"),
    ),
    "keras_applications": (
        Naming(_keras_layers("conv", 2, 1), variant=lambda names: "a", **_KERAS),
        Naming(inception_names.keras_layers, "inception_v3_tf", scaled=False, **_KERAS),
        Naming(mobilenet_names.keras_layers, "mobilenet_v1_tf", **_KERAS),
    ),
    "keras_hub": (
        Naming(_keras_layers("stack", 0, 0), variant=lambda names: "d" if "conv3_conv" in names else "b", **_KERAS),
    ),
    "paddleclas": (Naming(_paddle_layers, variant=lambda names: "d", dense=None),),
}
