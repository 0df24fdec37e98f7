"""Parsing of TF_CONFIG."""

import json

import pytest

from keras_bot.errors import MisuseError
from keras_bot.training.distributed.cluster import Cluster, read_cluster, split_address

TWO = {"worker": ["a:1", "b:2"]}


def config(cluster=TWO, task=("worker", 1)):
    return {"TF_CONFIG": json.dumps({"cluster": cluster, "task": {"type": task[0], "index": task[1]}})}


def test_a_cluster_is_read():
    assert read_cluster(config()) == Cluster(("a:1", "b:2"), 1)
    assert read_cluster(config(task=("worker", "0"))).is_chief


def test_a_chief_job_counts_as_the_first_worker():
    jobs = {"worker": ["b:2", "c:3"], "chief": ["a:1"]}
    assert read_cluster(config(jobs, ("chief", 0))) == Cluster(("a:1", "b:2", "c:3"), 0)
    assert read_cluster(config(jobs, ("worker", 1))) == Cluster(("a:1", "b:2", "c:3"), 2)


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({}, "TF_CONFIG, which is not set. Set it on every worker, or start local workers with `keras-bot launch"),
        ({"TF_CONFIG": " "}, "TF_CONFIG, which is not set"),
        ({"TF_CONFIG": "{ }\n"}, "TF_CONFIG, which is not set"),
        ({"TF_CONFIG": "{'cluster'"}, "TF_CONFIG is not JSON: \"{'cluster'\""),
        ({"TF_CONFIG": "[1]"}, "TF_CONFIG needs an object with cluster.worker, received [1]"),
        ({"TF_CONFIG": '{"cluster": {"worker": ["a:1"]}}'}, "task.type and task.index"),
        (config({}), "cluster.worker"),
        (config({"worker": "a:1"}), "list"),
        (config({"worker": []}), "list"),
        (config({"worker": [1]}), "list"),
        (config({**TWO, "ps": ["c:3"]}), "TF_CONFIG needs worker jobs and at most one chief job, received ps"),
        (config({"chief": ["a:1", "b:1"], "worker": ["c:1"]}), "one chief"),
        (config(task=("evaluator", 0)), "received evaluator"),
        (config(task=("worker", 2)), "TF_CONFIG needs a task.index from 0 to 1 for 2 workers, received 2"),
        (config(task=("worker", -1)), "received -1"),
        (config(task=("worker", None)), "an integer as task.index"),
        (config(task=("worker", True)), "an integer as task.index"),
        (config(task=("worker", 0.5)), "an integer as task.index"),
        (config({"worker": ["a:1", "a:1"]}), "received a:1 twice"),
        (config({"chief": ["a:1"], "worker": ["b:1", "a:1"]}), "received a:1 twice"),
        (config({"worker": ["a:1", "b"]}), "TF_CONFIG needs each worker's address as host:port, received b."),
        (config({"worker": ["a:1", "http://b:1"]}), "host:port"),
        (config({"worker": ["a:1", "b..c:1"]}), "host:port"),
        (config({"worker": ["a:1", "b:70000"]}), "ports from 1"),
        (config({"worker": ["a:1", "b:0"]}), "ports from 1"),
    ],
)
def test_an_invalid_tf_config_is_reported(environ, message):
    with pytest.raises(MisuseError) as raised:
        read_cluster(environ)
    assert message in str(raised.value)


def test_an_ipv6_address_is_in_brackets():
    assert split_address("[::1]:80") == ("::1", 80)
    with pytest.raises(MisuseError, match="host:port"):
        split_address("::1")
