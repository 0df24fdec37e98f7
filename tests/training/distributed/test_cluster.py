"""The workers that TF_CONFIG names."""

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
        ({}, "TF_CONFIG, which isn't set. Set it on every worker, or start local workers by `keras-bot launch"),
        ({"TF_CONFIG": " "}, "TF_CONFIG, which isn't set"),
        ({"TF_CONFIG": "{ }\n"}, "TF_CONFIG, which isn't set"),
        ({"TF_CONFIG": "{'cluster'"}, "as JSON, received \"{'cluster'\""),
        ({"TF_CONFIG": "[1]"}, "object with cluster.worker in TF_CONFIG, received [1]"),
        ({"TF_CONFIG": '{"cluster": {"worker": ["a:1"]}}'}, "task.type and task.index"),
        (config({}), "cluster.worker"),
        (config({"worker": "a:1"}), "list"),
        (config({"worker": []}), "list"),
        (config({"worker": [1]}), "list"),
        (config({**TWO, "ps": ["c:3"]}), "worker jobs, with or without a chief in TF_CONFIG, received ps"),
        (config({"chief": ["a:1", "b:1"], "worker": ["c:1"]}), "one chief"),
        (config(task=("evaluator", 0)), "received evaluator"),
        (config(task=("worker", 2)), "task.index of 0 to 1, as there are 2 workers in TF_CONFIG, received 2"),
        (config(task=("worker", -1)), "received -1"),
        (config(task=("worker", None)), "whole number"),
        (config(task=("worker", True)), "whole number"),
        (config(task=("worker", 0.5)), "whole number"),
        (config({"worker": ["a:1", "a:1"]}), "received a:1 twice"),
        (config({"chief": ["a:1"], "worker": ["b:1", "a:1"]}), "received a:1 twice"),
        (config({"worker": ["a:1", "b"]}), "each worker as host:port in TF_CONFIG, received b."),
        (config({"worker": ["a:1", "http://b:1"]}), "host:port"),
        (config({"worker": ["a:1", "b..c:1"]}), "host:port"),
        (config({"worker": ["a:1", "b:70000"]}), "ports from 1"),
        (config({"worker": ["a:1", "b:0"]}), "ports from 1"),
    ],
)
def test_a_tf_config_that_cannot_be_used_is_told(environ, message):
    with pytest.raises(MisuseError) as told:
        read_cluster(environ)
    assert message in str(told.value)


def test_an_ipv6_address_stands_in_brackets():
    assert split_address("[::1]:80") == ("::1", 80)
    with pytest.raises(MisuseError, match="host:port"):
        split_address("::1")
