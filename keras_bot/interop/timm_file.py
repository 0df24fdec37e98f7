"""Export of our networks' weights under timm's names, as a `.safetensors` file that timm loads strictly."""

import json
import os
import pathlib
import tempfile

import keras
import numpy as np

from keras_bot import models
from keras_bot.errors import MisuseError, RunError, first_few
from keras_bot.interop import inception_names, mobilenet_names
from keras_bot.interop.architecture import identify, same_network
from keras_bot.interop.preprocessing import OWN_PREPROCESSING

METADATA = "keras_bot"  # metadata key of the preprocessing, as JSON
_WEIGHTS = {
    **{"kernel": "weight", "gamma": "weight", "beta": "bias", "bias": "bias"},
    **{"moving_mean": "running_mean", "moving_variance": "running_var"},
}


_RESNETS = {  # timm's suffix: our variant, and the depths that timm has
    "": ("b", (18, 26, 34, 50, 101, 152)),
    "c": ("c", (50, 101, 152)),
    "d": ("d", (18, 26, 34, 50, 101, 152)),
}
_OTHERS = {  # our name: timm's name, and its layer names
    "inception_v3": ("inception_v3", inception_names.torch_layers),
    "mobilenet_v1_relu6": ("mobilenetv1_100", mobilenet_names.torch_layers),
}


def timm_name(name: str) -> str | None:
    """Returns timm's name of a network in `models.names()`, such as resnet50d for resnet50_d; None if it has none."""
    if name in _OTHERS:
        return _OTHERS[name][0]
    for suffix, (variant, depths) in _RESNETS.items():
        for depth in depths:
            if same_network(name, f"resnet{depth}_{variant}"):
                return f"resnet{depth}{suffix}"
    return None


def save_timm(
    model: keras.Model,
    path: str | os.PathLike,
    *,
    image_size: int | None = None,
    eval_crop: float = 0.875,
    overwrite: bool = False,
) -> dict:
    """Atomically writes a network's unchanged weights for timm.

    To load them with the same logits for the same images: `timm.create_model(result["architecture"], num_classes=…,
    checkpoint_path=path, pretrained_cfg_overlay=result["pretrained_cfg"])`. `pretrained_cfg` has the normalisation.

    Args:
        model: ResNet-18 … 152 of variant B or D, ResNet-50 … 152 of C, inception_v3 or mobilenet_v1_relu6. It needs
            width 1 to fit timm's own networks. With basic blocks, A equals B.
        path: ends in .safetensors.
        image_size, eval_crop: values used in evaluation; image_size=None is the size that the network was designed for.
        overwrite: replace the file at `path`.

    Returns:
        `architecture` and `pretrained_cfg` as in timm's config.json, and `num_classes`.

    Raises:
        MisuseError: if timm has no such network, `path` has another suffix, or it exists and `overwrite` is false.
        RunError: if the tensors read back from the file differ from the network's.
    """
    path, name = pathlib.Path(path), identify(model)
    if name is None or not timm_name(name):
        known = f"a ResNet-18 … 152 of variant B or D, 50 … 152 of C, {' or '.join(_OTHERS)}"
        raise MisuseError(f"timm has no network like {name or model.name}. Export {known}.")
    if path.suffix != ".safetensors":
        raise MisuseError(f"The path must end in .safetensors, received {path}.")
    if path.is_dir() or (path.exists() and not overwrite):
        raise MisuseError(f"{path} already exists. Choose another path, or pass overwrite=True.")
    image_size = image_size or models.info(name).image_size
    tensors, head = _tensors(model, name), [layer for layer in model.layers if layer.name == "predictions"]
    classes = head[0].units if head else 0
    images = OWN_PREPROCESSING | {"image_size": image_size, "eval_crop": eval_crop}
    cfg = {
        "input_size": [3, image_size, image_size],
        "crop_pct": eval_crop,
        "interpolation": images["interpolation"],
        "mean": [value / 255 for value in images["mean"]],
        "std": [value / 255 for value in images["std"]],
    }
    metadata = {"format": "pt", "architecture": timm_name(name), METADATA: json.dumps(images)}
    _write(path, tensors, metadata)
    return {"architecture": timm_name(name), "num_classes": classes, "pretrained_cfg": cfg}


def _write(path, tensors, metadata):
    from safetensors.numpy import load_file, save

    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", suffix=".part", dir=path.parent) as folder:
        partial = pathlib.Path(folder) / path.name
        partial.write_bytes(save(tensors, metadata))  # its save_file makes files that only the owner can read
        written = load_file(partial)
        equal = {name for name in written if name in tensors and np.array_equal(written[name], tensors[name])}
        wrong = [name for name in tensors if name not in equal]
        if wrong or len(written) != len(tensors):
            raise RunError(
                f"{path} was not written: the tensors read back differ from the network's in "
                f"{first_few(wrong) or 'their number'}."
            )
        partial.replace(path)


def _tensors(model, network):
    others = {ours: theirs for theirs, ours in _OTHERS[network][1]().items()} if network in _OTHERS else None
    deep = any(layer.name == "stem_1_conv" for layer in model.layers)
    pooled = any(layer.name.endswith("_shortcut_pool") for layer in model.layers)
    tensors = {}
    for layer in model.layers:
        for variable in layer.weights:
            weight, array = variable.path.rpartition("/")[2], keras.ops.convert_to_numpy(variable)
            if weight == "kernel":
                array = array.transpose(_axes(layer))
            name = others[layer.name] if others else _layer(layer.name, deep, pooled)
            tensors[f"{name}.{_WEIGHTS[weight]}"] = np.ascontiguousarray(array, "float32")
            if weight == "gamma":
                tensors[f"{name}.num_batches_tracked"] = np.zeros((), "int64")
    return tensors


def _axes(layer):
    """Returns the permutation of a kernel's axes to PyTorch's order."""
    if isinstance(layer, keras.layers.Dense):
        return 1, 0
    return (2, 3, 0, 1) if isinstance(layer, keras.layers.DepthwiseConv2D) else (3, 2, 0, 1)


def _layer(name, deep, pooled):
    """Returns timm's name of one of our ResNet layers."""
    if name == "predictions":
        return "fc"
    part, _, kind = name.rpartition("_")
    if part.startswith("stem"):
        if part in ("stem", "stem_3") and kind == "bn":
            return "bn1"
        return f"conv1.{3 * int(part[-1]) - 3 + (kind == 'bn')}" if deep else "conv1"
    stage, block, place = part.split("_")
    ours = f"downsample.{(kind == 'bn') + pooled}" if place == "shortcut" else f"{kind}{place}"
    return f"layer{stage.removeprefix('stage')}.{int(block.removeprefix('block')) - 1}.{ours}"
