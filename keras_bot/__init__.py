"""keras_bot: the Bag of Tricks for Image Classification (He et al., CVPR 2019) in Keras 3.

The names below are imported on first use, so that `import keras_bot` is fast and doesn't import TensorFlow.
"""

import importlib
import sys

from keras_bot.deprecation import renamed_names
from keras_bot.moved import MovedModules

__version__ = "0.2.0"

_MODULE_OF = {
    "Recipe": "keras_bot.recipe",
    "create_model": "keras_bot.models",
    "evaluate": "keras_bot.training.evaluate",
    "export_model": "keras_bot.export.model",
    "load_backbone": "keras_bot.tasks.backbone",
    "load_weights_from": "keras_bot.training.finetune",
    "train": "keras_bot.trainer",
}
_MODULES = ("data", "detection", "export", "interop", "models", "segmentation", "training", "tricks")

__all__ = [*_MODULE_OF, *_MODULES, "__version__"]

_old_name = renamed_names(
    __name__, {"create": "keras_bot.create_model", "export_savedmodel": "keras_bot.export.savedmodel.export_savedmodel"}
)


def __getattr__(name):
    if name in _MODULE_OF:
        return getattr(importlib.import_module(_MODULE_OF[name]), name)
    if name in _MODULES:
        return importlib.import_module(f"keras_bot.{name}")
    return _old_name(name, stacklevel=3)


def __dir__():
    return sorted(__all__)


sys.meta_path.append(MovedModules())  # last, so that it only sees names that nothing else finds
