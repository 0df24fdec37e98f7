"""Checks of recipes against the replicas, and of Keras bugs that still need a workaround."""

import re

import pytest
from processes import python_command, start_process, worker_environment

from keras_bot.cli.commands.launch import free_ports
from keras_bot.cli.main import main
from keras_bot.errors import MisuseError, RunError
from keras_bot.recipe import Recipe
from keras_bot.training.distributed.cluster import Cluster, find_cluster
from keras_bot.training.distributed.on_tensorflow import check_replicas
from keras_bot.training.distributed.rendezvous_client import connect_workers
from keras_bot.training.distributed.selection import build_strategy
from keras_bot.training.distributed.strategy import check_batch


@pytest.mark.parametrize(
    ("changes", "replicas", "workers", "message"),
    [
        (
            {"batch_size": 10},
            4,
            1,
            "--batch_size=10 is not divisible by 4 (4 replicas). Use a multiple of 4, such as 8.",
        ),
        (
            {"batch_size": 12, "accumulation_steps": 4},
            2,
            1,
            "--batch_size=12 is not divisible by 8 (2 replicas x accumulation_steps 4). Use a multiple of 8",
        ),
        (
            {"batch_size": 6},
            2,
            2,
            "--batch_size=6 is not divisible by 4 (2 replicas, pairs of images on 2 workers). Use a multiple of 4",
        ),
        (
            {"batch_size": 10, "accumulation_steps": 3},
            1,
            1,
            "--batch_size=10 is not divisible by 3 (accumulation_steps 3). Use a multiple of 3, such as 9.",
        ),
        ({"jit_compile": "on"}, 2, 1, "--jit_compile=on works on one replica only, but there are 2."),
        (
            {"sync_bn": True, "accumulation_steps": 2},
            2,
            1,
            "--sync_bn does not support --accumulation_steps=2 on 2 replicas.",
        ),
    ],
)
def test_unsupported_recipes_are_rejected(changes, replicas, workers, message):
    with pytest.raises(MisuseError, match=re.escape(message)):
        check(Recipe(**changes), replicas, workers)


def test_supported_recipes_are_accepted():
    check(Recipe(batch_size=1024, accumulation_steps=4), 8, 2)
    check(Recipe(batch_size=10, jit_compile="on", sync_bn=True, accumulation_steps=2), 1, 1)


def check(recipe, replicas, workers):
    check_batch(recipe, replicas, workers)
    check_replicas(recipe, replicas)


def test_a_process_has_one_strategy_for_the_same_devices(two_replicas):
    """TensorFlow confuses the collectives of two strategies: training on one could make the other fail."""
    one, other = (build_strategy(Recipe(strategy="mirrored", batch_size=size)) for size in (2, 4))
    assert one._tf_strategy is other._tf_strategy is two_replicas and one.replicas == 2


@pytest.mark.parametrize(
    ("config", "message"),
    [("{nonsense", "TF_CONFIG is not JSON"), ("", "TF_CONFIG, which is not set")],
)
def test_the_command_reports_an_invalid_tf_config(config, message, tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("TF_CONFIG", config)
    command = ["train", "--dataset=digits", "--strategy=multi_worker", "--image_size=8", "--transform=plain"]
    code = main([*command, f"--run_dir={tmp_path / 'run'}"])
    error = capfd.readouterr().err
    assert code == 2 and message in error and "Traceback" not in error
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("config", ["", "{}", " { } "])
def test_an_empty_tf_config_counts_as_unset_like_in_tensorflow(config, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", config)
    assert find_cluster(Recipe(strategy="auto")) is None
    with pytest.raises(MisuseError, match="TF_CONFIG, which is not set"):
        find_cluster(Recipe(strategy="multi_worker"))


@pytest.mark.parametrize("seconds", ["abc", "5s", "nan", "inf", "-1", "0"])
def test_an_invalid_timeout_is_reported(seconds, monkeypatch):
    monkeypatch.setenv("KERAS_BOT_CONNECT_SECONDS", seconds)
    message = f"KERAS_BOT_CONNECT_SECONDS='{seconds}' is not a number of seconds above 0"
    with pytest.raises(MisuseError, match=message):
        connect_workers(Cluster(("127.0.0.1:1", "127.0.0.1:2"), 0), {})


def test_the_old_name_of_the_timeout_works_with_a_warning(monkeypatch, capfd):
    monkeypatch.delenv("KERAS_BOT_CONNECT_SECONDS", raising=False)
    monkeypatch.setenv("KERAS_BOT_MEETING_SECONDS", "0.3")
    chief, worker = (f"127.0.0.1:{port}" for port in free_ports(2))
    with pytest.raises(RunError, match=rf"No connection from worker 1 \({worker}\) within 0.3 s"):
        connect_workers(Cluster((chief, worker), 0), {})
    assert "KERAS_BOT_MEETING_SECONDS is now KERAS_BOT_CONNECT_SECONDS" in capfd.readouterr().err
    monkeypatch.setenv("KERAS_BOT_CONNECT_SECONDS", "0.2")
    with pytest.raises(RunError, match=r"within 0.2 s"):
        connect_workers(Cluster((chief, worker), 0), {})
    assert not capfd.readouterr().err


PLAIN = """
import keras, numpy as np, tensorflow as tf
strategy = tf.distribute.MultiWorkerMirroredStrategy()
data = tf.data.Dataset.from_tensor_slices((np.ones([16, 4], "float32"), np.ones([16, 1], "float32"))).batch(8)
options = tf.data.Options()
options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
with strategy.scope():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    model.optimizer.build(model.trainable_variables)
model.fit(data.with_options(options), epochs=1, verbose=0)
"""


@pytest.mark.thorough
def test_keras_own_fit_still_fails_on_two_workers():
    """When this fails, Keras issue 20585 is fixed and the workarounds in on_tensorflow.py can be removed."""
    ports = free_ports(2)
    workers = [start_process(python_command(PLAIN), env=worker_environment(index, ports)) for index in (0, 1)]
    errors = [worker.communicate(timeout=120)[1] for worker in workers]
    assert all(worker.returncode for worker in workers)
    assert any("PerReplica" in error for error in errors), errors[0][-2000:]
