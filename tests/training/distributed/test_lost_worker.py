"""One of two workers is killed: the job ends with a clear message, in time, and a restart goes on."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import keras
import numpy as np
import pytest

from keras_bot.cli.commands.launch import free_ports

FLAGS = [
    *("--num_classes=4", "--batch_size=8", "--image_size=8", "--transform=cifar", "--model=cifar_resnet8_d"),
    *("--width=0.25", "--epochs=4", "--checkpoint_every=2", "--mixup_alpha=0.2", "--strategy=multi_worker"),
]
ROOT = pathlib.Path(__file__).parents[3]
SECONDS = 60  # in which all must have ended after one is killed


def start(npz, run_dir, ports, flags=((), ()), folders=(None, None), backend="tensorflow"):
    """Two workers without a launcher, that nobody but themselves can end."""
    workers = []
    for index in (0, 1):
        cluster = {"worker": [f"127.0.0.1:{port}" for port in ports]}
        environment = {
            **os.environ,
            "TF_CONFIG": json.dumps({"cluster": cluster, "task": {"type": "worker", "index": index}}),
            "TF_CPP_MIN_LOG_LEVEL": "3",
            "KERAS_BOT_MEETING_SECONDS": "60",
            "PYTHONPATH": str(ROOT),
            "KERAS_BACKEND": backend,
        }
        command = [sys.executable, "-m", "keras_bot", "train", f"--dataset={npz}", *FLAGS, *flags[index]]
        command += [f"--run_dir={run_dir}", "--resume"]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        workers.append(subprocess.Popen(command, env=environment, cwd=folders[index], **pipes))
    return workers


def end(workers):
    told = [worker.communicate(timeout=SECONDS * 3) for worker in workers]
    return [(worker.returncode, out + error) for worker, (out, error) in zip(workers, told, strict=True)]


def kill_one(npz, run_dir, backend):
    """One of two workers is killed after the first epoch; the other must end by itself."""
    workers = start(npz, run_dir, free_ports(2), backend=backend)
    while not (run_dir / "history.csv").exists() and workers[0].poll() is None:
        time.sleep(0.05)
    workers[1].send_signal(signal.SIGKILL)
    began = time.monotonic()
    (code, told), _ = end(workers)
    took = time.monotonic() - began
    assert code == 1 and "Another worker was lost" in told and "--resume" in told and "Traceback" not in told, told
    assert took < SECONDS


def test_a_killed_worker_ends_the_job(npz_file, tmp_path):
    kill_one(npz_file(), tmp_path / "run", "tensorflow")


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
def test_a_killed_worker_ends_the_job_and_a_restart_goes_on(backend, npz_file, tmp_path):
    if backend == "jax":
        pytest.importorskip("jax", reason="JAX isn't installed")
    npz = npz_file()
    kill_one(npz, tmp_path / "run", backend)
    for name in ("run", "whole"):
        for code, told in end(start(npz, tmp_path / name, free_ports(2), backend=backend)):
            assert code == 0, told
    ours, theirs = (keras.saving.load_model(tmp_path / p / "model.keras").get_weights() for p in ("run", "whole"))
    assert all(np.array_equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_workers_that_differ_all_say_so(npz_file, tmp_path):
    npz = npz_file()
    for code, told in end(start(npz, tmp_path / "run", free_ports(2), ((), ("--learning_rate=0.3",)))):
        assert code == 2 and "learning_rate is 0.1 on worker 0 and 0.3 on worker 1" in told, told


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changed", "told"),
    [
        (
            {"x_test": np.zeros([4, 8, 8, 3], np.uint8), "y_test": np.arange(4)},
            "number of evaluation images is 10 on",
        ),
        ({"y_train": np.arange(24) // 6}, "checksum of some training images is"),
    ],
)
def test_workers_with_other_data_all_say_so(changed, told, npz_file, tmp_path):
    folders = []
    for name, file in (("host0", npz_file()), ("host1", npz_file("other.npz", **changed))):
        folders.append(tmp_path / name)  # one path, another set on each host
        folders[-1].mkdir()
        (folders[-1] / "set.npz").symlink_to(file)
    for code, said in end(start("set.npz", tmp_path / "run", free_ports(2), folders=folders)):
        assert code == 2 and f"Expected the same data on every worker; {told}" in said, said
        assert "Traceback" not in said
