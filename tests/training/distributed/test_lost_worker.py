"""When one of two workers is killed, the job ends with a clear message in time, and a restart resumes it."""

import pathlib
import signal
import time

import keras
import numpy as np
import pytest
from processes import KERAS_BOT, start_process, worker_environment

from keras_bot.cli.commands.launch import free_ports

FLAGS = [
    *("--num_classes=4", "--batch_size=8", "--image_size=8", "--transform=cifar", "--model=cifar_resnet8_d"),
    *("--width=0.25", "--epochs=4", "--checkpoint_every=2", "--mixup_alpha=0.2", "--strategy=multi_worker"),
]
ROOT = pathlib.Path(__file__).parents[3]
SECONDS = 60  # by which all must have ended after one is killed


def start(npz, run_dir, ports, flags=((), ()), folders=(None, None), backend="tensorflow"):
    """Starts two workers without a launcher, so that nothing else stops them."""
    workers = []
    for index in (0, 1):
        environment = {
            **worker_environment(index, ports),
            "KERAS_BOT_CONNECT_SECONDS": "60",
            "PYTHONPATH": str(ROOT),
            "KERAS_BACKEND": backend,
        }
        command = [*KERAS_BOT, "train", f"--dataset={npz}", *FLAGS, *flags[index], f"--run_dir={run_dir}", "--resume"]
        workers.append(start_process(command, env=environment, cwd=folders[index]))
    return workers


def wait(workers):
    """Returns the exit code and output of each worker."""
    outputs = [worker.communicate(timeout=SECONDS * 3) for worker in workers]
    return [(worker.returncode, out + error) for worker, (out, error) in zip(workers, outputs, strict=True)]


def kill_one(npz, run_dir, backend):
    """Kills one of two workers after the first epoch; the other must end by itself."""
    workers = start(npz, run_dir, free_ports(2), backend=backend)
    while not (run_dir / "history.csv").exists() and workers[0].poll() is None:
        time.sleep(0.05)
    workers[1].send_signal(signal.SIGKILL)
    start_time = time.monotonic()
    (code, output), _ = wait(workers)
    seconds = time.monotonic() - start_time
    assert code == 1 and "Another worker was lost" in output and "--resume" in output, output
    assert "Traceback" not in output
    assert seconds < SECONDS


@pytest.mark.thorough
def test_a_killed_worker_ends_the_job(npz_file, tmp_path):
    kill_one(npz_file(), tmp_path / "run", "tensorflow")


@pytest.mark.soak
@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
def test_a_killed_worker_ends_the_job_and_a_restart_resumes_it(backend, npz_file, tmp_path):
    if backend == "jax":
        pytest.importorskip("jax", reason="JAX isn't installed")
    npz = npz_file()
    kill_one(npz, tmp_path / "run", backend)
    for name in ("run", "whole"):
        for code, output in wait(start(npz, tmp_path / name, free_ports(2), backend=backend)):
            assert code == 0, output
    resumed, whole = (keras.saving.load_model(tmp_path / p / "model.keras").get_weights() for p in ("run", "whole"))
    assert all(np.array_equal(a, b) for a, b in zip(resumed, whole, strict=True))


@pytest.mark.thorough
def test_every_worker_reports_differing_recipes(npz_file, tmp_path):
    npz = npz_file()
    for code, output in wait(start(npz, tmp_path / "run", free_ports(2), ((), ("--learning_rate=0.3",)))):
        assert code == 2 and "learning_rate is 0.1 on worker 0 and 0.3 on worker 1" in output, output


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("changed", "difference"),
    [
        (
            {"x_test": np.zeros([4, 8, 8, 3], np.uint8), "y_test": np.arange(4)},
            "number of evaluation images is 10 on",
        ),
        ({"y_train": np.arange(24) // 6}, "checksum of some training images is"),
    ],
)
def test_every_worker_reports_differing_data(changed, difference, npz_file, tmp_path):
    folders = []
    for name, file in (("host0", npz_file()), ("host1", npz_file("other.npz", **changed))):
        folders.append(tmp_path / name)  # the same path on each host, with different data
        folders[-1].mkdir()
        (folders[-1] / "set.npz").symlink_to(file)
    for code, output in wait(start("set.npz", tmp_path / "run", free_ports(2), folders=folders)):
        assert code == 2 and f"The data set differs between workers: {difference}" in output, output
        assert "Traceback" not in output
