"""Conversion of other libraries' ResNets, Inception-V3 and MobileNet to our networks, and of ours to timm.

The converted network has the same outputs. Conversion needs Keras on any backend, NumPy, and the packages that read the
files (see `files`).

model, report = interop.load("resnet50d.safetensors", source="timm")
result = interop.save_timm(model, "ours.safetensors")
"""

from keras_bot.deprecation import renamed_names
from keras_bot.interop.files import read_tensors
from keras_bot.interop.loading import load
from keras_bot.interop.names import NAMINGS
from keras_bot.interop.report import Report
from keras_bot.interop.timm_file import save_timm, timm_name
from keras_bot.interop.weights import assign_tensors

SOURCES = tuple(NAMINGS)

__all__ = ["SOURCES", "Report", "assign_tensors", "load", "read_tensors", "save_timm", "timm_name"]

__getattr__ = renamed_names(__name__, {"into": "keras_bot.interop.weights.assign_tensors"})
