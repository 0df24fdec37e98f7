"""Inception-V3 layer names of each library, as {theirs: ours}. All have the same layers in the same order.

| source | network | names |
|---|---|---|
| timm, torchvision | inception_v3 | by stage, block and branch, as here: `Mixed_5b.branch5x5_1.conv` |
| gluoncv | inception_v3 | by position: `features.7.1.0.0` |
| keras_applications | inception_v3_tf | by number in creation order, from any first number: `conv2d_9` |
"""

import re
from collections.abc import Iterable

from keras_bot.models.inception import convolution_names

_FIRST = {
    "stem_1": "Conv2d_1a_3x3",
    "stem_2": "Conv2d_2a_3x3",
    "stem_3": "Conv2d_2b_3x3",
    "stage1_1": "Conv2d_3b_1x1",
    "stage1_2": "Conv2d_4a_3x3",
}
_BLOCKS = {2: ("5", "bcd"), 3: ("6", "abcde"), 4: ("7", "abc")}  # stage: number and letters of its blocks


def torch_layers(names: Iterable[str] = ()) -> dict[str, str]:
    """Returns timm's and torchvision's names, which don't depend on the file."""
    del names
    pairs = [
        (f"{_torch_name(name)}.{kind}", f"{name}_{kind}") for name in convolution_names() for kind in ("conv", "bn")
    ]
    return dict([*pairs, ("fc", "predictions")])


def _torch_name(name):
    if name in _FIRST:
        return _FIRST[name]
    stage, block, branch = name.split("_", 2)
    number, letters = _BLOCKS[int(stage.removeprefix("stage"))]
    letter = letters[int(block.removeprefix("block")) - 1]
    return f"Mixed_{number}{letter}.branch{'_' if branch == 'pool' else ''}{branch}"


def gluon_layers(names: Iterable[str]) -> dict[str, str]:
    """Returns GluonCV's names: a convolution's position ends in 0, its batch norm's in 1."""
    places = sorted(_numbers(name) for name in names if re.fullmatch(r"features(\.\d+){2,}", name))
    known = {"output": "predictions"}
    for ending, kind in ((0, "conv"), (1, "bn")):
        of_kind = [place for place in places if place[-1] == ending]
        for place, ours in zip(of_kind, convolution_names(), strict=False):
            known["features." + ".".join(map(str, place))] = f"{ours}_{kind}"
    return known


def _numbers(name):
    return tuple(int(part) for part in name.split(".")[1:])


def keras_layers(names: Iterable[str]) -> dict[str, str]:
    """Returns the names in keras.applications, where the first layer of a session has no number."""
    known = {"predictions": "predictions"}
    for start, kind in (("conv2d", "conv"), ("batch_normalization", "bn")):
        numbered = {name: re.fullmatch(start + r"(?:_(\d+))?", name) for name in names}
        found = sorted((int(match[1] or 0), name) for name, match in numbered.items() if match)
        for (_, name), ours in zip(found, convolution_names(), strict=False):
            known[name] = f"{ours}_{kind}"
    return known
