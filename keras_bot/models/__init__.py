"""Networks of the paper: `create_model("resnet50_d")` or `ResNet50D()`; `names()` lists them."""

from keras_bot.deprecation import renamed_names, warn
from keras_bot.models import catalogue
from keras_bot.models.catalogue import *  # noqa: F403
from keras_bot.models.complexity import count_flops, count_parameters
from keras_bot.models.networks import ModelInfo, create_model, features, info, names

__all__ = [
    *(name for name in dir(catalogue) if not name.startswith("_")),
    "ModelInfo",
    "count_flops",
    "count_parameters",
    "create_model",
    "features",
    "info",
    "names",
]

__getattr__ = renamed_names(__name__, {"create": "keras_bot.models.create_model"})


def variant(name: str) -> str | None:
    """Deprecated: returns `info(name).variant`."""
    warn("models.variant(name) is now models.info(name).variant")
    return info(name).variant


def usual_image_size(name: str) -> int:
    """Deprecated: returns `info(name).image_size`."""
    warn("models.usual_image_size(name) is now models.info(name).image_size")
    return info(name).image_size


def smallest_image_size(name: str) -> int:
    """Deprecated: returns `info(name).smallest_image_size`."""
    warn("models.smallest_image_size(name) is now models.info(name).smallest_image_size")
    return info(name).smallest_image_size
