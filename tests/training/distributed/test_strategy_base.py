"""What all strategies share: messages between workers, restoring, and the choice of the strategy for a backend."""

import contextlib
import threading

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_bot.errors import MisuseError
from keras_bot.recipe import Recipe
from keras_bot.training.distributed import on_tensorflow, selection
from keras_bot.training.distributed.cluster import Cluster
from keras_bot.training.distributed.on_tensorflow import TensorFlowStrategy
from keras_bot.training.distributed.selection import build_strategy
from keras_bot.training.distributed.strategy import Strategy, match_replicas


class FakeStrategy(Strategy):
    """One of several workers in threads: `sum_of_workers` waits for all of them."""

    replicas = 2

    def __init__(self, worker, workers, barrier, values):
        self.worker, self.workers, self._barrier, self._values = worker, workers, barrier, values

    def sum_of_workers(self, value):
        self._values[self.worker] = np.asarray(value)
        self._barrier.wait()
        total = sum(self._values)
        self._barrier.wait()
        return total

    scope = fitting = contextlib.nullcontext
    use_jit = prepare_step = spread = build_from_spec = per_replica_values = None


def on_workers(function, workers=3):
    """Runs a function of the strategy in one thread per worker; returns the results and errors in order."""
    barrier, values, results = threading.Barrier(workers, timeout=30), [0] * workers, [None] * workers

    def run(worker):
        try:
            results[worker] = function(FakeStrategy(worker, workers, barrier, values))
        except MisuseError as error:
            results[worker] = error

    threads = [threading.Thread(target=run, args=(worker,)) for worker in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


@pytest.mark.parametrize("workers", [1, 3])
def test_a_message_reaches_every_worker(workers):
    text = "größe".encode() * 3
    assert on_workers(lambda one: one.broadcast(text if one.worker == 0 else b"ignored"), workers) == [text] * workers


def test_any_worker_can_send():
    messages = [b"a", bytes(range(256)), b""]
    for source, message in enumerate(messages):
        assert on_workers(lambda one, source=source: one.broadcast(messages[one.worker], source)) == [message] * 3


@pytest.mark.parametrize(
    ("flags", "result"),
    [((False, False, False), False), ((False, True, False), True), ((True, True, True), True)],
)
def test_a_flag_of_any_worker_counts(flags, result):
    assert on_workers(lambda one: one.any_worker(flags[one.worker])) == [result] * 3


def test_a_single_worker_needs_no_communication():
    one = FakeStrategy(0, 1, None, None)
    assert one.any_worker(True) is True and one.any_worker(False) is False and one.broadcast(b"x") == b"x"
    one.check_same_data({"classes": "a"})


@pytest.mark.parametrize("workers", [1, 3])
def test_the_chiefs_arrays_are_restored_everywhere(workers):
    arrays = {"a": np.array([1.5, -2.0], "float32"), "b": np.array(7, "int64")}
    variables = [
        {"a": keras.Variable(np.ones(2, "float32")), "b": keras.Variable(3, dtype="int64", trainable=False)}
        for _ in range(workers)
    ]
    on_workers(lambda one: one.restore(variables[one.worker], arrays if one.worker == 0 else {}), workers)
    for own in variables:
        np.testing.assert_array_equal(own["a"], [1.5, -2.0])
        assert int(own["b"]) == 7 and own["b"].dtype == "int64"


def test_workers_with_other_data_are_all_told():
    facts = [{"classes": "a, b", "images": "8"}, {"classes": "a, b", "images": "8"}, {"classes": "a, c", "images": "8"}]
    assert on_workers(lambda one: one.check_same_data(facts[0])) == [None] * 3
    errors = on_workers(lambda one: one.check_same_data(facts[one.worker]))
    assert len({str(error) for error in errors}) == 1
    message = str(errors[0])
    assert "classes" in message and "a, c" in message and "images" not in message.removesuffix("on all workers.")
    assert message.endswith(" Use the same data on all workers.")


@pytest.mark.parametrize(
    ("values", "replicas", "expected"),
    [
        ([[1.0, 2.0]], 1, [[1, 2]]),
        ([[1.0, 2.0], [3.0, 4.0]], 2, [[1, 2], [3, 4]]),
        ([[1.0, 2.0], [3.0, 4.0]], 1, [[4, 6]]),
        ([[1.0, 2.0], [3.0, 4.0]], 3, [[4, 6], [0, 0], [0, 0]]),
        ([[1.0, 2.0]], 2, [[1, 2], [0, 0]]),
    ],
)
def test_values_of_another_number_of_replicas_keep_their_sum(values, replicas, expected):
    matched = match_replicas(values, replicas)
    assert matched.dtype == np.float64
    np.testing.assert_array_equal(matched, expected)


def test_by_default_a_worker_can_create_networks_anywhere():
    one = FakeStrategy(0, 1, None, None)
    with one.outside_distribution():
        pass
    assert one.sync_state(None) is None and (Strategy.workers, Strategy.worker) == (1, 0)


def test_the_strategy_is_built_for_the_backend_and_checked(monkeypatch):
    strategy = build_strategy(Recipe(strategy="one_device", batch_size=8))
    assert type(strategy) is TensorFlowStrategy and (strategy.replicas, strategy.workers, strategy.worker) == (1, 1, 0)
    with pytest.raises(MisuseError, match="--batch_size=8 is not divisible by 3"):
        build_strategy(Recipe(strategy="one_device", batch_size=8, accumulation_steps=3))
    monkeypatch.setattr(selection.keras.backend, "backend", lambda: "torch")
    with pytest.raises(MisuseError) as raised:
        build_strategy(Recipe())
    assert str(raised.value) == "Training needs the TensorFlow or JAX backend, but Keras uses torch. Set KERAS_BACKEND."


@pytest.mark.parametrize(
    ("strategy", "gpus", "in_cluster", "devices"),
    [
        ("one_device", 2, False, None),
        ("auto", 0, False, None),
        ("auto", 1, False, None),
        ("auto", 2, False, ("GPU:0", "GPU:1")),
        ("mirrored", 0, False, ("CPU:0", "CPU:1")),
        ("mirrored", 1, False, ("GPU:0",)),
        ("multi_worker", 1, True, None),  # a cluster of one worker is chosen like auto
        ("multi_worker", 2, True, ("GPU:0", "GPU:1")),
        ("mirrored", 1, True, None),
    ],
)
def test_the_devices_of_one_worker(strategy, gpus, in_cluster, devices, monkeypatch):
    class Device:
        def __init__(self, name):
            self.name = name

    names = {"GPU": [f"GPU:{i}" for i in range(gpus)], "CPU": ["CPU:0", "CPU:1"]}
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind: [Device(name) for name in names[kind]])
    monkeypatch.setattr(on_tensorflow, "mirrored_strategy", lambda devices: devices)
    found = on_tensorflow._one_worker(Recipe(strategy=strategy), in_cluster)
    assert found == devices if devices else found is tf.distribute.get_strategy()


def test_several_workers_have_their_own_strategy(monkeypatch):
    class Several:
        num_replicas_in_sync = 6

    monkeypatch.setattr(on_tensorflow, "_several_workers", Several)
    strategy = TensorFlowStrategy(Recipe(), Cluster(("a:1", "b:2", "c:3"), 2))
    assert (strategy.replicas, strategy.workers, strategy.worker) == (6, 3, 2)


def test_workers_that_cannot_be_connected_are_a_run_error(monkeypatch):
    def fail():
        raise RuntimeError("Collective ops must be configured at program startup\nmore")

    monkeypatch.setattr(tf.distribute, "MultiWorkerMirroredStrategy", fail)
    with pytest.raises(RuntimeError) as raised:
        on_tensorflow._several_workers()
    assert str(raised.value) == (
        "TensorFlow cannot connect the workers: Collective ops must be configured at program startup"
    )
