"""Each library's preprocessing, and conversion of a network to images normalised by keras_bot.

Libraries and keras_bot normalise pixels p in 0 … 255 as (p - mean) / std. Their values are `scale` * ours + `shift`,
per channel:

- The scale goes into the kernel of the first convolution; BGR is a permutation of its input channels. This is exact.
- The shift adds sum(kernel * shift) to the output of the first convolution, which its batch norm's moving mean absorbs.
  This is exact except near a padded border: zero padding now represents our mean instead of theirs.

The error at the border is small if the means are close. For ResNets, the means of timm and torchvision differ from the
paper's by at most half a grey level, and those of keras.applications are the paper's.
"""

import json
import pathlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from keras_bot.errors import MisuseError

MEAN = (123.68, 116.779, 103.939)  # as in keras_bot.data.augment.color, which needs TensorFlow; a test compares them
STD = (58.393, 57.12, 57.375)

CHANNELS = ("RGB", "BGR")
_IMAGENET = {
    "mean": tuple(255 * m for m in (0.485, 0.456, 0.406)),
    "std": tuple(255 * s for s in (0.229, 0.224, 0.225)),
}
_USUAL: dict[str, Any] = {
    "image_size": 224,
    "eval_crop": 0.875,
    "interpolation": "bilinear",
    **_IMAGENET,
    "range": (0, 255),
    "channels": "RGB",
}
DEFAULTS = {
    "timm": _USUAL | {"interpolation": "bicubic"},
    "torchvision": _USUAL,
    "gluoncv": _USUAL,
    "keras_applications": _USUAL | {"mean": (103.939, 116.779, 123.68), "std": (1.0, 1.0, 1.0), "channels": "BGR"},
    "keras_hub": _USUAL | {"eval_crop": 1.0},
    "paddleclas": _USUAL,
}
_ONE: dict[str, Any] = {"mean": (127.5,) * 3, "std": (127.5,) * 3, "channels": "RGB"}  # pixels in -1 … 1
_OTHERS: dict[tuple[str, str | None], dict[str, Any]] = {  # (source, network): differences from the source's defaults
    ("timm", "inception_v3"): _ONE | {"image_size": 299},
    ("timm", "mobilenet_v1_relu6"): _ONE,
    ("torchvision", "inception_v3"): _ONE | {"image_size": 299, "eval_crop": 299 / 342},
    ("gluoncv", "inception_v3"): {"image_size": 299},
    ("keras_applications", "inception_v3_tf"): _ONE | {"image_size": 299},
    ("keras_applications", "mobilenet_v1_tf"): _ONE,
}
OWN_PREPROCESSING = _USUAL | {"mean": MEAN, "std": STD}  # keras_bot's


def default_preprocessing(source: str, network: str | None = None) -> dict:
    """Returns a source's default preprocessing for a network. `network` is our name of it; None for a ResNet."""
    return DEFAULTS[source] | _OTHERS.get((source, network), {})


def find_preprocessing(
    file: pathlib.Path, source: str, config: pathlib.Path | None = None, network: str | None = None
) -> tuple[dict, dict]:
    """Finds the preprocessing that belongs to a weight file.

    Args:
        file: path of the weights.
        source: the library.
        config: a JSON file with the settings, such as timm's `config.json` or keras-hub's `preprocessor.json`; None
            looks for it in the folder of `file`, and falls back to the library's usual preprocessing.
        network: keras_bot's name of the network; None for a ResNet of the source.

    Returns:
        image_size, eval_crop, interpolation, mean, std, range, channels ("RGB" or "BGR", the order of mean, std and the
        network's input); and the JSON file's `architecture` and `class_names`, if any.

    Raises:
        MisuseError: if the JSON file cannot be read or has an unknown format.
    """
    configs = {"timm": ("config.json", _read_timm), "keras_hub": ("preprocessor.json", _read_keras_hub)}
    if source not in configs and config is not None:
        raise MisuseError(f"config={config} is only supported for the sources {' and '.join(configs)}, not {source}.")
    if source not in configs:
        return default_preprocessing(source, network), {}
    name, read = configs[source]
    path = config or (file if file.is_dir() else file.parent) / name
    if config is None and not path.is_file():
        return default_preprocessing(source, network), {}
    try:
        settings, more = read(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        if config is None and isinstance(error, KeyError):  # another library's file of the same name
            return default_preprocessing(source, network), {}
        raise MisuseError(f"Cannot read {path} as a {name} of {source}: {type(error).__name__} {error}.") from None
    return default_preprocessing(source, network) | settings, more


def _read_timm(config):
    cfg = config["pretrained_cfg"]
    settings = {
        "image_size": int(cfg["input_size"][-1]),
        "eval_crop": float(cfg["crop_pct"]),
        "interpolation": str(cfg["interpolation"]),
        "mean": tuple(255 * float(value) for value in cfg["mean"]),
        "std": tuple(255 * float(value) for value in cfg["std"]),
    }
    names = config.get("label_names") or cfg.get("label_names")
    more = {"architecture": config.get("architecture"), "class_names": names if isinstance(names, list) else None}
    return settings, {key: value for key, value in more.items() if value}


def _read_keras_hub(config):
    converter = config["config"]["image_converter"]["config"]
    settings = {"image_size": int(converter["image_size"][0]), "interpolation": str(converter["interpolation"])}
    if converter.get("scale") is not None:
        scale = np.broadcast_to(np.asarray(converter["scale"], "float64"), 3)
        offset = np.broadcast_to(np.asarray(converter.get("offset") or 0.0, "float64"), 3)
        settings |= {"mean": tuple((-offset / scale).tolist()), "std": tuple((1 / scale).tolist())}
    return settings, {}


@dataclass(frozen=True)
class ChannelConversion:
    """Conversion between normalised images: theirs[..., i] = ours[..., order[i]] * scale[i] + shift[i], float64."""

    order: tuple[int, ...]
    scale: np.ndarray
    shift: np.ndarray


def convert_channels(preprocessing: dict) -> ChannelConversion:
    """Returns the conversion from images normalised by keras_bot to images of the given preprocessing."""
    order = (2, 1, 0) if preprocessing["channels"] == "BGR" else (0, 1, 2)
    mean, std = np.asarray(preprocessing["mean"], "float64"), np.asarray(preprocessing["std"], "float64")
    our_mean, our_std = np.asarray(MEAN)[list(order)], np.asarray(STD)[list(order)]
    return ChannelConversion(order, our_std / std, (our_mean - mean) / std)


def fold_normalisation(
    kernel: np.ndarray, moving_mean: np.ndarray, preprocessing: dict
) -> tuple[np.ndarray, np.ndarray]:
    """Converts the first kernel and its batch norm's moving mean to images normalised by keras_bot, in float64.

    Args:
        kernel: (height, width, 3, out), for images normalised by the library.
        moving_mean: (out,).
        preprocessing: the library's preprocessing, see `find_preprocessing`.
    """
    conversion = convert_channels(preprocessing)
    kernel = kernel.astype("float64")
    ours = np.empty_like(kernel)
    ours[:, :, list(conversion.order)] = kernel * conversion.scale[:, None]
    return ours, moving_mean.astype("float64") - np.einsum("hwio,i->o", kernel, conversion.shift)
