"""Software versions that a run's results depend on."""

import importlib

import keras


def versions() -> dict[str, str]:
    """Returns the backend, its version and those of keras_bot, Keras and TensorFlow, which runs the input pipeline."""
    backend = keras.backend.backend()
    names = dict.fromkeys(("keras_bot", "keras", "tensorflow", backend))
    return {**{name: importlib.import_module(name).__version__ for name in names}, "backend": backend}
