"""What computed a run: the versions that its numbers depend on."""

import importlib

import keras


def versions() -> dict[str, str]:
    """Of keras_bot, Keras, TensorFlow (the input pipeline's at least) and, on another backend, of that; the backend."""
    backend = keras.backend.backend()
    names = dict.fromkeys(("keras_bot", "keras", "tensorflow", backend))
    return {**{name: importlib.import_module(name).__version__ for name in names}, "backend": backend}
