"""Starts the Keras backend and hides the log lines that it prints to stderr."""

import contextlib
import importlib.util
import os
import sys
import tempfile

from keras_bot.errors import MisuseError, unknown
from keras_bot.training.distributed.cluster import is_tf_config_set

BACKENDS = ("tensorflow", "jax")  # backends that can train and evaluate


def start_tensorflow() -> None:
    """Starts Keras on TensorFlow regardless of KERAS_BACKEND, for commands that need no particular backend."""
    os.environ["KERAS_BACKEND"] = "tensorflow"
    start_backend()


def start_backend() -> None:
    """Imports Keras on the user's backend, and TensorFlow for the input pipeline; initialises the devices.

    Raises:
        MisuseError: if KERAS_BACKEND is not one of `BACKENDS` or is not installed.
    """
    backend = os.environ.get("KERAS_BACKEND") or BACKENDS[0]
    if backend not in BACKENDS:  # before any import: PyTorch crashes if imported after TensorFlow
        raise unknown("KERAS_BACKEND", backend, BACKENDS)
    if importlib.util.find_spec(backend) is None:
        raise MisuseError(f"KERAS_BACKEND is {backend}, which is not installed. Install it or unset KERAS_BACKEND.")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    with _captured_stderr():
        import keras
        import tensorflow as tf
        from absl import logging

        if keras.backend.backend() != "tensorflow":
            # The input pipeline needs no GPUs, and TensorFlow would fill their memory.
            tf.config.set_visible_devices([], "GPU")
        tf.config.list_physical_devices()
        # With several workers, the cluster must be configured before the devices are initialised.
        if not is_tf_config_set():
            tf.config.list_logical_devices()
        logging.set_verbosity(logging.ERROR)  # TFDS logs warnings about its own deprecations


@contextlib.contextmanager
def _captured_stderr():
    """Captures stderr, including that of C++ code, and prints it only if the block raises."""
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as captured:
        os.dup2(captured.fileno(), 2)
        try:
            yield
        except BaseException:
            captured.seek(0)
            os.write(stderr, captured.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
