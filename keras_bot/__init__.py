"""keras_bot: the Bag of Tricks for Image Classification (He et al., CVPR 2019) in Keras 3.

The names below are imported on first use, so that `import keras_bot` is fast and doesn't import TensorFlow.
"""

import importlib
import sys

from keras_bot.moved import MovedModules

__version__ = "0.1.0"

_HOME = {
    "Recipe": "keras_bot.recipe",
    "train": "keras_bot.trainer",
    "evaluate": "keras_bot.training.evaluate",
    "export_savedmodel": "keras_bot.export.savedmodel",
    "create": "keras_bot.models",
}
_PACKAGES = ("models", "tricks", "data", "training", "export", "interop")

__all__ = [*_HOME, *_PACKAGES, "__version__"]


def __getattr__(name):
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    if name in _PACKAGES:
        return importlib.import_module(f"keras_bot.{name}")
    raise AttributeError(f"module 'keras_bot' has no attribute {name!r}")


def __dir__():
    return sorted(__all__)


sys.meta_path.append(MovedModules())  # last, so that it only sees names that nothing else finds
