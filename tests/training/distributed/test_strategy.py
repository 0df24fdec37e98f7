"""What can't be shared out is refused before anything runs; and Keras still needs what is mended here."""

import json
import os
import subprocess
import sys

import pytest

from keras_bot.cli.commands.launch import free_ports
from keras_bot.cli.main import main
from keras_bot.errors import MisuseError
from keras_bot.recipe import Recipe
from keras_bot.training.distributed.cluster import Cluster, find_cluster, meet_workers
from keras_bot.training.distributed.on_tensorflow import check_replicas
from keras_bot.training.distributed.selection import build_strategy
from keras_bot.training.distributed.strategy import check_batch


@pytest.mark.parametrize(
    ("changes", "replicas", "workers", "told"),
    [
        ({"batch_size": 10}, 4, 1, "4 replicas can share equally: a multiple of 4; received 10. Try 8"),
        (
            {"batch_size": 12, "accumulation_steps": 4},
            2,
            1,
            "2 replicas can share equally, in 4 parts: a multiple of 8",
        ),
        ({"batch_size": 6}, 2, 2, "equally, by 2 workers in pairs of images: a multiple of 4; received 6"),
        (
            {"batch_size": 10, "accumulation_steps": 3},
            1,
            1,
            "a batch_size that divides, in 3 parts: a multiple of 3; received",
        ),
        ({"jit_compile": "on"}, 2, 1, "--jit_compile=auto or off for 2 replicas, received on"),
        (
            {"sync_bn": True, "accumulation_steps": 2},
            2,
            1,
            "--sync_bn or --accumulation_steps on 2 replicas, received both",
        ),
    ],
)
def test_what_replicas_cannot_do_is_refused(changes, replicas, workers, told):
    with pytest.raises(MisuseError, match=told):
        check(Recipe(**changes), replicas, workers)


def test_what_they_can_do_is_not_refused():
    check(Recipe(batch_size=1024, accumulation_steps=4), 8, 2)
    check(Recipe(batch_size=10, jit_compile="on", sync_bn=True, accumulation_steps=2), 1, 1)


def check(recipe, replicas, workers):
    check_batch(recipe, replicas, workers)
    check_replicas(recipe, replicas)


def test_a_process_has_one_strategy_of_the_same_devices(two_replicas):
    """TensorFlow takes one strategy's collectives for another's: what one trained could make the other fail."""
    one, other = (build_strategy(Recipe(strategy="mirrored", batch_size=size)) for size in (2, 4))
    assert one._own is other._own is two_replicas and one.replicas == 2


@pytest.mark.parametrize(
    ("config", "told"),
    [("{nonsense", "Expected TF_CONFIG as JSON"), ("", "TF_CONFIG, which isn't set")],
)
def test_a_bad_tf_config_is_told_by_the_command(config, told, tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("TF_CONFIG", config)
    command = ["train", "--dataset=digits", "--strategy=multi_worker", "--image_size=8", "--transform=plain"]
    code = main([*command, f"--run_dir={tmp_path / 'run'}"])
    error = capfd.readouterr().err
    assert code == 2 and told in error and "Traceback" not in error
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("config", ["", "{}", " { } "])
def test_an_empty_tf_config_is_none_as_for_tensorflow(config, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", config)
    assert find_cluster(Recipe(strategy="auto")) is None
    with pytest.raises(MisuseError, match="TF_CONFIG, which isn't set"):
        find_cluster(Recipe(strategy="multi_worker"))


@pytest.mark.parametrize("seconds", ["abc", "5s", "nan", "inf", "-1", "0"])
def test_a_meeting_time_that_is_none_is_told(seconds, monkeypatch):
    monkeypatch.setenv("KERAS_BOT_MEETING_SECONDS", seconds)
    with pytest.raises(MisuseError, match="Expected KERAS_BOT_MEETING_SECONDS as seconds above 0, received"):
        meet_workers(Cluster(("127.0.0.1:1", "127.0.0.1:2"), 0), {})


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


def test_keras_own_fit_still_fails_on_two_workers():
    """When this fails, Keras trains on several workers by itself (issue 20585): see what of on_tensorflow.py can go."""
    workers, ports = [], free_ports(2)
    for index in (0, 1):
        cluster = {"worker": [f"127.0.0.1:{port}" for port in ports]}
        config = json.dumps({"cluster": cluster, "task": {"type": "worker", "index": index}})
        environment = {**os.environ, "TF_CONFIG": config, "TF_CPP_MIN_LOG_LEVEL": "3"}
        command = [sys.executable, "-c", PLAIN]
        workers.append(subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment))
    errors = [worker.communicate(timeout=120)[1] for worker in workers]
    assert all(worker.returncode for worker in workers)
    assert any("PerReplica" in error for error in errors), errors[0][-2000:]
