"""TensorFlow without the log lines of its start, which tell a user nothing."""

import os
import sys
import tempfile


def import_tensorflow():
    """Imports TensorFlow and finds the devices; what the C++ side writes meanwhile is shown only if that fails."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    sys.stderr.flush()
    shown = os.dup(2)
    with tempfile.TemporaryFile() as kept:
        os.dup2(kept.fileno(), 2)
        try:
            import tensorflow as tf
            from absl import logging

            if os.environ.get("KERAS_BACKEND", "tensorflow") != "tensorflow":
                tf.config.set_visible_devices([], "GPU")  # the input pipeline needs none, and would fill them
            tf.config.list_physical_devices()
            if "TF_CONFIG" not in os.environ:  # several workers must be known to TensorFlow before it starts
                tf.config.list_logical_devices()
            logging.set_verbosity(logging.ERROR)  # TFDS warns of its own deprecations
        except BaseException:
            kept.seek(0)
            os.write(shown, kept.read())
            raise
        finally:
            os.dup2(shown, 2)
            os.close(shown)
