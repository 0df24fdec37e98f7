"""Other libraries' ResNets, Inception-V3 and MobileNet as ours, with equal outputs, and ours for timm.

Keras and NumPy only, on any backend.

model, report = interop.load("resnet50d.safetensors", source="timm")
told = interop.save_timm(model, "ours.safetensors")
"""

from keras_bot.interop.files import read_tensors
from keras_bot.interop.loading import load
from keras_bot.interop.names import NAMINGS
from keras_bot.interop.report import Report
from keras_bot.interop.timm_file import save_timm, timm_name
from keras_bot.interop.weights import into

SOURCES = tuple(NAMINGS)

__all__ = ["SOURCES", "Report", "into", "load", "read_tensors", "save_timm", "timm_name"]
