"""MobileNet layer names of each library, as {theirs: ours}.

| source | network | names |
|---|---|---|
| timm | mobilenet_v1_relu6 | by stage and block, where the first stage is our stem's block: `blocks.1.0.conv_dw` |
| gluoncv | mobilenet_v1 | by position, each convolution followed by its batch norm and ReLU: `features.3` |
| keras_applications | mobilenet_v1_tf | by number through all stages: `conv_dw_2` |
"""

import re
from collections.abc import Iterable

from keras_bot.models.mobilenet import block_names


def torch_layers(names: Iterable[str] = ()) -> dict[str, str]:
    """Returns timm's names, which don't depend on the file."""
    del names
    known = {"conv_stem": "stem_conv", "bn1": "stem_bn", "classifier": "predictions"}
    for block in block_names():
        stage, number = re.findall(r"\d+", block) or (0, 1)
        start = f"blocks.{stage}.{int(number) - 1}"
        known |= {f"{start}.conv_dw": f"{block}_depthwise_conv", f"{start}.bn1": f"{block}_depthwise_bn"}
        known |= {f"{start}.conv_pw": f"{block}_pointwise_conv", f"{start}.bn2": f"{block}_pointwise_bn"}
    return known


def gluon_layers(names: Iterable[str] = ()) -> dict[str, str]:
    """Returns GluonCV's names, which don't depend on the file."""
    del names
    ours = ["stem", *(f"{block}_{kind}" for block in block_names() for kind in ("depthwise", "pointwise"))]
    known = {"output": "predictions"}
    for place, name in enumerate(ours):
        known |= {f"features.{3 * place}": f"{name}_conv", f"features.{3 * place + 1}": f"{name}_bn"}
    return known


def keras_layers(names: Iterable[str] = ()) -> dict[str, str]:
    """Returns the names in keras.applications, which don't depend on the file."""
    del names
    known = {"conv1": "stem_conv", "conv1_bn": "stem_bn", "conv_preds": "predictions"}
    for number, block in enumerate(block_names(), start=1):
        for theirs, kind in (("dw", "depthwise"), ("pw", "pointwise")):
            start = f"conv_{theirs}_{number}"
            known |= {start: f"{block}_{kind}_conv", f"{start}_bn": f"{block}_{kind}_bn"}
    return known
