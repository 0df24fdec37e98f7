"""Backend errors become user errors with a remedy; other errors are not changed."""

import keras
import pytest
import tensorflow as tf

from keras_bot.data.corrupt import CorruptLog
from keras_bot.errors import MisuseError, RunError
from keras_bot.training.failures import user_errors


def user_error(error, corrupt=None, workers=1) -> str:
    """Returns the message of the RunError that replaces a backend error."""
    with pytest.raises(RunError) as raised, user_errors(corrupt, workers=workers):
        raise error
    return str(raised.value)


def test_no_error_is_no_error():
    with user_errors(None):
        pass


def test_out_of_memory_names_the_flags_to_lower():
    message = user_error(tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor\nmore"), workers=2)
    assert message == "Out of memory: OOM when allocating tensor Lower --batch_size or --image_size."


def test_too_many_corrupt_images_are_reported_instead_of_the_backend_error():
    corrupt = CorruptLog(0)
    error = tf.errors.InvalidArgumentError(None, None, "wrapped")
    assert user_error(error, corrupt) == "TensorFlow failed: wrapped"
    with pytest.raises(RunError):
        corrupt.report("broken.jpg")
    assert "broken.jpg" in user_error(error, corrupt)


def test_a_user_error_raised_inside_a_data_set_is_unwrapped():
    def fail(_):
        raise RunError("The disk is on fire.")

    batches = tf.data.Dataset.range(2).map(lambda i: tf.numpy_function(fail, [i], tf.int64))
    with pytest.raises(RunError, match=r"^The disk is on fire\.$"), user_errors(None):
        list(batches)


@pytest.mark.parametrize(
    "kind",
    [tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError, tf.errors.InternalError],
)
def test_a_lost_worker_is_reported_only_with_several_workers(kind):
    error = kind(None, None, "Connection reset by peer.")
    expected = (
        "Another worker was lost: Connection reset by peer. Check its log, then restart all workers with --resume."
    )
    assert user_error(error, workers=2) == expected
    assert user_error(error) == "TensorFlow failed: Connection reset by peer."


def test_the_name_of_a_graph_node_is_not_a_reason():
    error = tf.errors.UnavailableError(None, None, "Graph execution error:\n\nDetected at node Collective defined at …")
    assert user_error(error, workers=2).startswith(
        "Another worker was lost: the connection between the workers was lost. Check"
    )


@pytest.mark.parametrize("error", [MisuseError("wrong flag"), KeyError("name"), ValueError("INVALID_ARGUMENT: shape")])
def test_other_errors_are_not_changed(error):
    with pytest.raises(type(error)) as raised, user_errors(None, workers=2):
        raise error
    assert raised.value is error


@pytest.mark.parametrize("kind", ["JaxRuntimeError", "ValueError"])
def test_jax_errors_are_converted_on_its_backend(kind, monkeypatch):
    jax = pytest.importorskip("jax", reason="JAX is not installed")
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    error = jax.errors.JaxRuntimeError if kind == "JaxRuntimeError" else ValueError
    assert user_error(error("RESOURCE_EXHAUSTED: out of memory.")).startswith("Out of memory: RESOURCE_EXHAUSTED")
    assert user_error(error("INTERNAL: failed.")) == "JAX failed: INTERNAL: failed."
    assert user_error(error("UNAVAILABLE: no heartbeat"), workers=2).startswith(
        "Another worker was lost: UNAVAILABLE: no heartbeat. Check"
    )
    with pytest.raises(ValueError, match=r"^not from JAX$"), user_errors(None):
        raise ValueError("not from JAX")
