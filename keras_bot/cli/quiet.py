"""The backend without the log lines of its start, which tell a user nothing."""

import contextlib
import importlib.util
import os
import sys
import tempfile

from keras_bot.errors import MisuseError, unknown

BACKENDS = ("tensorflow", "jax")  # that train and evaluate


def import_tensorflow():
    """Starts TensorFlow, and Keras on it whatever KERAS_BACKEND says: for what is the same on every backend."""
    os.environ["KERAS_BACKEND"] = "tensorflow"
    start_backend()


def start_backend():
    """Imports Keras on the user's backend, and TensorFlow for the data; finds the devices.

    Raises:
        MisuseError: if KERAS_BACKEND is another than those that train, or isn't installed.
    """
    backend = os.environ.get("KERAS_BACKEND") or BACKENDS[0]
    if backend not in BACKENDS:  # before an import: PyTorch after TensorFlow crashes
        raise unknown("KERAS_BACKEND", backend, BACKENDS)
    if importlib.util.find_spec(backend) is None:
        raise MisuseError(f"Expected {backend} to be installed, as KERAS_BACKEND names it. Install it, or unset that.")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    with _kept_quiet():
        import keras
        import tensorflow as tf
        from absl import logging

        if keras.backend.backend() != "tensorflow":
            tf.config.set_visible_devices([], "GPU")  # the input pipeline needs none, and would fill them
        tf.config.list_physical_devices()
        # Several workers must be known to TensorFlow before it starts.
        if os.environ.get("TF_CONFIG", "").strip() in ("", "{}"):
            tf.config.list_logical_devices()
        logging.set_verbosity(logging.ERROR)  # TFDS warns of its own deprecations


@contextlib.contextmanager
def _kept_quiet():
    """What the C++ side writes meanwhile is shown only if this fails."""
    sys.stderr.flush()
    shown = os.dup(2)
    with tempfile.TemporaryFile() as kept:
        os.dup2(kept.fileno(), 2)
        try:
            yield
        except BaseException:
            kept.seek(0)
            os.write(shown, kept.read())
            raise
        finally:
            os.dup2(shown, 2)
            os.close(shown)
