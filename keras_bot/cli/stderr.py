"""Start of the backend without its log lines, which are of no use to a user."""

import contextlib
import importlib.util
import os
import sys
import tempfile

from keras_bot.errors import MisuseError, unknown
from keras_bot.training.distributed.cluster import names_workers

BACKENDS = ("tensorflow", "jax")  # those that train and evaluate


def import_tensorflow():
    """Starts Keras on TensorFlow regardless of KERAS_BACKEND, for commands that don't depend on the backend."""
    os.environ["KERAS_BACKEND"] = "tensorflow"
    start_backend()


def start_backend():
    """Imports Keras on the user's backend, and TensorFlow for the data; initializes the devices.

    Raises:
        MisuseError: if KERAS_BACKEND is not one of `BACKENDS` or is not installed.
    """
    backend = os.environ.get("KERAS_BACKEND") or BACKENDS[0]
    if backend not in BACKENDS:  # before any import: PyTorch crashes if imported after TensorFlow
        raise unknown("KERAS_BACKEND", backend, BACKENDS)
    if importlib.util.find_spec(backend) is None:
        raise MisuseError(f"Expected {backend} to be installed, as KERAS_BACKEND names it. Install it, or unset that.")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    with _kept_quiet():
        import keras
        import tensorflow as tf
        from absl import logging

        if keras.backend.backend() != "tensorflow":
            # The input pipeline needs no GPUs, and TensorFlow would fill their memory.
            tf.config.set_visible_devices([], "GPU")
        tf.config.list_physical_devices()
        # With several workers, the cluster must be configured before the devices are initialized.
        if not names_workers():
            tf.config.list_logical_devices()
        logging.set_verbosity(logging.ERROR)  # TFDS logs warnings about its own deprecations


@contextlib.contextmanager
def _kept_quiet():
    """Captures stderr, including that of C++ code, and shows it only if the block raises."""
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
