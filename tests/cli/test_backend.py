"""The backend is checked before it is imported, and its log lines appear only if the import fails."""

import importlib.util
import os

import pytest

from keras_bot.cli import backend
from keras_bot.cli.backend import start_backend, start_tensorflow
from keras_bot.errors import MisuseError


def test_an_unknown_backend_is_refused(monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    with pytest.raises(MisuseError, match=r"^Unknown KERAS_BACKEND 'torch'\. Known: jax, tensorflow\.$"):
        start_backend()


@pytest.mark.parametrize(("name", "shown"), [("jax", "jax"), ("", "tensorflow"), (None, "tensorflow")])
def test_a_backend_that_is_not_installed_is_refused(name, shown, monkeypatch):
    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    if name is not None:
        monkeypatch.setenv("KERAS_BACKEND", name)
    asked = []
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: asked.append(name))
    with pytest.raises(MisuseError) as raised:
        start_backend()
    message = f"KERAS_BACKEND is {shown}, which is not installed. Install it or unset KERAS_BACKEND."
    assert str(raised.value) == message and asked == [shown]


@pytest.fixture
def tensorflow(monkeypatch):
    """Records the calls of TensorFlow's device functions."""
    import tensorflow as tf

    calls = []
    for name in ("list_physical_devices", "list_logical_devices", "set_visible_devices"):
        monkeypatch.setattr(tf.config, name, lambda *arguments, name=name: calls.append((name, *arguments)))
    monkeypatch.delenv("TF_CONFIG", raising=False)
    return calls


@pytest.mark.parametrize(
    ("keras_backend", "tf_config", "calls"),
    [
        ("tensorflow", "", [("list_physical_devices",), ("list_logical_devices",)]),
        ("tensorflow", '{"cluster": {}}', [("list_physical_devices",)]),  # the cluster comes before the devices
        ("jax", "", [("set_visible_devices", [], "GPU"), ("list_physical_devices",), ("list_logical_devices",)]),
    ],
)
def test_the_devices_are_initialised(keras_backend, tf_config, calls, tensorflow, monkeypatch):
    import keras

    monkeypatch.setattr(keras.backend, "backend", lambda: keras_backend)
    monkeypatch.setenv("TF_CONFIG", tf_config)
    monkeypatch.setenv("KERAS_BACKEND", "tensorflow")
    start_backend()
    assert tensorflow == calls


@pytest.mark.parametrize(("before", "after"), [(None, "2"), ("0", "0")])
def test_tensorflows_log_is_quiet_unless_the_user_set_it(before, after, tensorflow, monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "tensorflow")
    monkeypatch.delenv("TF_CPP_MIN_LOG_LEVEL", raising=False)
    if before:
        monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", before)
    start_backend()
    assert os.environ["TF_CPP_MIN_LOG_LEVEL"] == after


def test_tensorflow_can_be_started_whatever_the_users_backend(monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    started = []
    monkeypatch.setattr(backend, "start_backend", lambda: started.append(os.environ["KERAS_BACKEND"]))
    start_tensorflow()
    assert started == ["tensorflow"]


def test_stderr_is_hidden_unless_the_block_raises(capfd):
    with backend._captured_stderr():
        os.write(2, b"from C++\n")
    assert capfd.readouterr().err == ""
    with pytest.raises(ValueError, match="x"), backend._captured_stderr():
        os.write(2, b"the reason\n")
        raise ValueError("x")
    assert capfd.readouterr().err == "the reason\n"
    os.write(2, b"afterwards\n")
    assert capfd.readouterr().err == "afterwards\n"
