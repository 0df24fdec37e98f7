"""Runs that are killed repeatedly and resumed end with the same bits as an uninterrupted run."""

import csv
import json
import os
import random
import signal
import time

import keras
import numpy as np
import pytest
from processes import python_command, start_process

RECIPE = {
    "num_classes": 4,
    "batch_size": 8,
    "image_size": 16,
    "transform": "cifar",
    "crop_padding": 2,
    "model": "cifar_resnet20_d",
    "width": 0.25,
    "warmup_epochs": 1,
    "schedule": "cosine",
    "label_smoothing": 0.1,
    "mixup_alpha": 0.2,
    "mixup_off_epochs": 1,
    "checkpoint_every": 1,
    "cache": True,
}
CHILD = """
import os, signal, sys
import tensorflow as tf
if RECIPE["strategy"] == "mirrored":  # for JAX, XLA_FLAGS does this
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from keras_bot.recipe import Recipe
from keras_bot.training.checkpoints.saver import Saver
from keras_bot.trainer import train

calls_left = int(sys.argv[2])  # calls of fsync and rename until the process kills itself; 0 is never
def counted(call):
    def wrapped(*args, **options):
        global calls_left
        calls_left -= 1
        if calls_left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return call(*args, **options)
    return wrapped
os.fsync, os.replace = counted(os.fsync), counted(os.replace)
original = Saver.on_epoch_begin
def print_epoch(self, *args, **options):
    print("epoch", flush=True)
    return original(self, *args, **options)
Saver.on_epoch_begin = print_epoch
train(Recipe(**RECIPE), sys.argv[1], resume=True, progress_bar=False)
"""


def start(recipe, run_dir, calls=0):
    recipe = dict(recipe)
    environment = {"KERAS_BACKEND": recipe.pop("backend")}
    if recipe["strategy"] == "mirrored":
        environment["XLA_FLAGS"] = "--xla_force_host_platform_device_count=2"
    return start_process(python_command(f"RECIPE = {recipe!r}\n{CHILD}", run_dir, calls), env=environment)


def kill_somewhere(recipe, run_dir, draw):
    """Starts the run and kills it, in half of the cases near a write to disk. Returns whether it was killed."""
    if draw.random() < 0.5:
        child = start(recipe, run_dir, calls=draw.randint(2, 80))
    else:
        child = start(recipe, run_dir)
        child.stdout.readline()  # the first epoch begins
        time.sleep(draw.uniform(0, 6))
        child.kill()
    error = child.communicate()[1]
    assert child.returncode in (0, -signal.SIGKILL), error[-2000:]
    return child.returncode != 0


def check_kills(recipe, tmp_path, kills, seed):
    assert start(recipe, tmp_path / "whole").wait() == 0
    draw, killed = random.Random(seed), 0
    for _ in range(kills):
        killed += kill_somewhere(recipe, tmp_path / "run", draw)
    child = start(recipe, tmp_path / "run")
    assert child.wait() == 0
    assert_same_weights(tmp_path, f"{killed} of {kills} were killed")
    resumed, whole = (list(csv.DictReader((tmp_path / p / "history.csv").open())) for p in ("run", "whole"))
    assert [row["epoch"] for row in resumed] == [str(epoch + 1) for epoch in range(recipe["epochs"])]
    for row in (*resumed, *whole):
        del row["seconds"], row["images_per_second"]
    assert resumed == whole
    assert json.loads((tmp_path / "run/metrics.json").read_text())["result"]["epochs"] == recipe["epochs"]
    return killed


def assert_same_weights(folder, message=""):
    """Compares the weights of the runs `run` and `whole` bit for bit."""
    resumed, whole = (keras.saving.load_model(folder / p / "model.keras").get_weights() for p in ("run", "whole"))
    assert all(np.array_equal(a, b) for a, b in zip(resumed, whole, strict=True)), message


@pytest.fixture(params=["tensorflow", "jax"])
def backend(request):
    if request.param == "jax":
        pytest.importorskip("jax", reason="JAX isn't installed")
    return request.param


@pytest.mark.soak
@pytest.mark.parametrize("strategy", ["one_device", "mirrored"])
def test_25_kills_change_nothing(strategy, backend, tmp_path, npz_file):
    draw = np.random.default_rng(1)
    images, labels = draw.integers(0, 256, (96, 16, 16, 3), np.uint8), np.arange(96) % 4
    recipe = {**RECIPE, "strategy": strategy, "epochs": 60, "backend": backend}
    recipe["dataset"] = str(npz_file(x_train=images, y_train=labels))
    killed = check_kills(recipe, tmp_path, 25, int(os.environ.get("KERAS_BOT_KILL_SEED", "0")))
    print(f"{backend}, {strategy}: killed {killed} times")
    assert killed >= 20


@pytest.mark.parametrize(
    ("backend", "strategy"),
    [
        pytest.param("tensorflow", "one_device", marks=pytest.mark.thorough),
        pytest.param("tensorflow", "mirrored", marks=pytest.mark.soak),
        pytest.param("jax", "one_device", marks=pytest.mark.soak),
        pytest.param("jax", "mirrored", marks=pytest.mark.soak),
    ],
    indirect=["backend"],
)
def test_a_kill_during_a_save_changes_nothing(strategy, backend, tmp_path, npz_file):
    recipe = {**RECIPE, "dataset": str(npz_file()), "strategy": strategy, "epochs": 3, "backend": backend}
    assert start(recipe, tmp_path / "whole").wait() == 0
    child = start(recipe, tmp_path / "run", calls=11)
    error = child.communicate()[1]
    assert child.returncode == -signal.SIGKILL, error[-2000:]
    assert list((tmp_path / "run/checkpoints").glob("step-*.npz"))
    assert start(recipe, tmp_path / "run").wait() == 0
    assert_same_weights(tmp_path)
