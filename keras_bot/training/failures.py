"""Conversion of TensorFlow and JAX errors into user errors."""

import contextlib
import re
from collections.abc import Iterator

import keras
import tensorflow as tf

from keras_bot.data.corrupt import CorruptLog
from keras_bot.data.sources.base import run_error
from keras_bot.errors import RunError, first_line


@contextlib.contextmanager
def user_errors(corrupt: CorruptLog | None, workers: int = 1) -> Iterator[None]:
    """Converts backend errors in its body to a RunError, or to `corrupt.error()` if too many images fail to decode.

    Args:
        corrupt: CorruptLog of the data set, or None.
        workers: number of workers. With several, errors that indicate a lost worker are reported as such.
    """
    try:
        yield
    except tf.errors.ResourceExhaustedError as error:
        raise _out_of_memory(error) from None
    except tf.errors.OpError as error:
        if corrupt is not None and corrupt.exceeded:
            raise corrupt.error() from None
        if user_error := run_error(error):
            raise user_error from None
        lost = (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError, tf.errors.InternalError)
        if workers > 1 and isinstance(error, lost):
            raise _lost_worker(error) from None
        raise RunError(f"TensorFlow failed: {first_line(error)}") from error
    except Exception as error:
        if not _is_jax_error(error):
            raise
        if "RESOURCE_EXHAUSTED" in str(error):
            raise _out_of_memory(error) from None
        if workers > 1:
            raise _lost_worker(error) from None
        raise RunError(f"JAX failed: {first_line(error)}") from error


def _is_jax_error(error: Exception) -> bool:
    """Returns whether JAX's runtime raised the error. Some JAX functions convert its errors to a ValueError."""
    if keras.backend.backend() != "jax":
        return False
    import jax

    is_converted = isinstance(error, ValueError) and re.match(r"[A-Z_]{5,}: ", str(error))
    return bool(is_converted) or isinstance(error, jax.errors.JaxRuntimeError)


def _out_of_memory(error):
    return RunError(f"Out of memory: {first_line(error)} Lower --batch_size or --image_size.")


def _lost_worker(error):
    reason = first_line(error).rstrip(".")
    if reason.startswith("Detected at node"):  # TensorFlow reports the graph node, not the reason
        reason = "the connection between the workers was lost"
    return RunError(f"Another worker was lost: {reason}. Check its log, then restart all workers with --resume.")
