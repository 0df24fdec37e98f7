"""The TensorFlow strategy patches Keras only where it must, and reads and writes each replica's metric values."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras.src.backend.tensorflow import trainer as keras_trainer

from keras_bot.recipe import Recipe
from keras_bot.training.distributed import on_tensorflow
from keras_bot.training.distributed.on_tensorflow import TensorFlowStrategy
from keras_bot.training.distributed.selection import build_strategy


@pytest.fixture
def one_device():
    return build_strategy(Recipe(strategy="one_device", batch_size=4))


@pytest.fixture
def mirrored(two_replicas):
    return build_strategy(Recipe(strategy="mirrored", batch_size=4))


@pytest.mark.parametrize(("sync_bn", "accumulation_steps"), [(False, 1), (True, 1), (False, 4)])
def test_the_step_is_patched_in_order(sync_bn, accumulation_steps, one_device, monkeypatch):
    calls = []
    names = (
        "fuse_batch_norm",
        "subsample_before_convolving",
        "accumulate_in_step",
        "average_moving_statistics_in_step",
    )
    for name in names:
        monkeypatch.setattr(
            on_tensorflow, name, lambda *args, name=name, **options: calls.append((name, args, options))
        )
    one_device.prepare_step("trainee", "network", sync_bn=sync_bn, accumulation_steps=accumulation_steps)
    assert calls == [
        ("fuse_batch_norm", ("network",), {"synchronized": sync_bn}),
        ("subsample_before_convolving", ("network",), {}),
        ("accumulate_in_step", ("trainee", accumulation_steps), {}),
        ("average_moving_statistics_in_step", ("trainee", "network"), {}),
    ]


def test_one_worker_fits_its_batches_as_they_are(one_device):
    batches = tf.data.Dataset.range(4).batch(4)
    assert one_device.spread(batches, 2) is batches
    before = keras_trainer.reduce_per_replica
    with one_device.fitting():
        assert keras_trainer.reduce_per_replica is before


def test_several_workers_distribute_batches_of_a_replica(one_device, monkeypatch):
    class Distributing:
        def distribute_datasets_from_function(self, function):
            return function("context")

    one_device.workers, one_device._tf_strategy = 2, Distributing()
    found = one_device.spread(tf.data.Dataset.range(8).batch(8), 2)
    assert [batch.tolist() for batch in found.as_numpy_iterator()] == [[0, 1], [2, 3], [4, 5], [6, 7]]


def test_the_logs_of_several_workers_are_averaged_without_an_axis(one_device, monkeypatch):
    class Reducing:
        def reduce(self, kind, value, axis):
            return kind, value, axis

    def before(*arguments):
        return "Keras' own", *arguments

    monkeypatch.setattr(keras_trainer, "reduce_per_replica", before)
    one_device.workers = 2
    with pytest.raises(KeyError), one_device.fitting():
        for reduction in ("auto", "mean"):
            found = keras_trainer.reduce_per_replica({"loss": 1.0}, Reducing(), reduction)
            assert found == {"loss": ("MEAN", 1.0, None)}
        assert keras_trainer.reduce_per_replica(1.0, "strategy", "first") == ("Keras' own", 1.0, "strategy", "first")
        raise KeyError
    assert keras_trainer.reduce_per_replica is before


def test_loss_and_metrics_are_built_from_the_spec(one_device):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse", weighted_metrics=["mae"], jit_compile=False)
    batches = tf.data.Dataset.from_tensors(
        (np.zeros((2, 3), "float32"), np.zeros((2, 1), "float32"), np.ones(2, "float32"))
    )
    one_device.build_from_spec(model, batches)
    assert [metric.name for metric in model.metrics] == ["loss", "compile_metrics"]
    assert model._compile_metrics.built and model._compile_loss.built
    assert model._maybe_symbolic_build(data_batch=None) is None


@pytest.mark.parametrize("dtype", ["float32", "int32"])
def test_the_sum_of_one_worker_is_its_value(dtype, one_device, mirrored):
    value = np.arange(6, dtype=dtype).reshape(2, 3)
    for strategy in (one_device, mirrored):  # of several replicas, only the first of a worker counts
        for each in (value, value[:1], value[0, 2]):
            total = strategy.sum_of_workers(each)
            np.testing.assert_array_equal(total, each)
            assert total.dtype == each.dtype and total.shape == np.shape(each)


def test_each_replicas_values_are_read_and_written(mirrored):
    with mirrored.scope():
        variables = [
            keras.Variable(np.zeros((2, 2), "float32"), synchronization="on_read", aggregation="sum", trainable=False),
            keras.Variable(0.0, synchronization="on_read", aggregation="sum", trainable=False),
        ]
    values = mirrored.per_replica_values(variables)
    rows = [[1.0, 2.0, 3.0, 4.0, 5.0], [10.0, 20.0, 30.0, 40.0, 50.0]]
    values.write(rows)
    assert values.read() == rows
    np.testing.assert_array_equal(variables[0].value.values[1], [[10, 20], [30, 40]])
    values.write([[1.0, 1.0, 1.0, 1.0, 1.0]])  # of a run on one device
    assert values.read() == [[1.0] * 5, [0.0] * 5]


def test_values_on_one_device(one_device):
    variables = [keras.Variable(2.0, trainable=False), keras.Variable([3, 4], dtype="int32", trainable=False)]
    values = one_device.per_replica_values(variables)
    assert values.read() == [[2.0, 3.0, 4.0]]
    values.write([[1.0, 1.0, 1.0], [4.0, 5.0, 6.0]])  # of a run on two replicas
    assert values.read() == [[5.0, 6.0, 7.0]] and variables[1].dtype == "int32"


def test_the_strategy_checks_batch_and_options(mirrored):
    assert (mirrored.replicas, mirrored.workers) == (2, 1) and type(mirrored) is TensorFlowStrategy
    with pytest.raises(ValueError, match="--batch_size=5 is not divisible by 2"):
        mirrored.check(Recipe(batch_size=5))
    with pytest.raises(ValueError, match="--jit_compile=on works on one replica only"):
        mirrored.check(Recipe(batch_size=4, jit_compile="on"))
