"""One device, two mirrored replicas and two workers train the same network from the same batches, on each backend."""

import csv
import os
import subprocess
import sys

import keras
import numpy as np
import pytest

MIRRORED = """
import sys
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from keras_bot.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


def commands(flags, run_dir):
    """The same training three ways."""
    train = ["train", *flags, f"--run_dir={run_dir}"]
    return {
        "one_device": [sys.executable, "-m", "keras_bot", *train, "--strategy=one_device"],
        "mirrored": [sys.executable, "-c", MIRRORED, *train, "--strategy=mirrored"],
        "multi_worker": [sys.executable, "-m", "keras_bot", "launch", "--workers=2", "--", *train],
    }


def train_by(way, flags, run_dir, backend):
    """The weights by path and the history of a training."""
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "KERAS_BACKEND": backend}
    if way == "mirrored":
        environment["XLA_FLAGS"] = "--xla_force_host_platform_device_count=2"  # two for JAX
    done = subprocess.run(commands(flags, run_dir)[way], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    model = keras.saving.load_model(run_dir / "model.keras", compile=False)
    with open(run_dir / "history.csv") as file:
        rows = list(csv.DictReader(file))
    counted = [variable for variable in model.variables if "seed_generator" not in variable.path]  # of dropout
    return {variable.path: np.asarray(variable) for variable in counted}, rows


def distances(ours, theirs):
    """Relative differences in the Euclidean norm: of all trained weights, and of all moving statistics, as vectors."""
    norm = np.linalg.norm
    moving = [path for path in theirs if "moving_" in path]
    parts = ([path for path in theirs if path not in moving], moving)
    return [norm([norm(ours[p] - theirs[p]) for p in part]) / norm([norm(theirs[p]) for p in part]) for part in parts]


def check_equal(flags, tmp_path, backend, weights=1e-4, metrics=1e-5, names=("loss", "top1", "val_loss", "val_top1")):
    if backend == "jax":
        pytest.importorskip("jax", reason="JAX isn't installed")
    ways = ("one_device", "mirrored", "multi_worker")
    results = {way: train_by(way, flags, tmp_path / way, backend) for way in ways}
    reference, rows = results[ways[0]]
    for way in ways[1:]:
        theirs, their_rows = results[way]
        trained, moving = distances(theirs, reference)
        told = {name: (rows[-1][name], their_rows[-1][name]) for name in names}
        print(f"{way}: weights differ by {trained:.2g}, moving statistics by {moving:.2g}; {told}")
        assert trained < weights and moving < weights, way
        for ours, other in zip(rows, their_rows, strict=True):
            for name in told:
                assert float(other[name]) == pytest.approx(float(ours[name]), rel=metrics, abs=1e-7), (way, name)


SMALL = [
    "--num_classes=4",
    "--batch_size=8",
    "--image_size=8",
    "--transform=cifar",
    "--model=cifar_resnet8_d",
    "--width=0.25",
    "--epochs=1",
    "--sync_bn",
    "--learning_rate=0.001",
    "--mixup_alpha=0.2",
    "--label_smoothing=0.1",
]


@pytest.mark.parametrize("backend", ["tensorflow", pytest.param("jax", marks=pytest.mark.slow)])
def test_two_replicas_and_two_workers_equal_one_device(backend, tmp_path, npz_file):
    check_equal([f"--dataset={npz_file()}", *SMALL], tmp_path, backend)


@pytest.mark.slow
@pytest.mark.parametrize(("backend", "metrics"), [("tensorflow", 1e-5), ("jax", 5e-5)])  # BUILD_NOTES: 2.5e-5 there
def test_they_are_equal_on_photos_too(backend, metrics, tmp_path, test_data):
    flags = [
        f"--dataset={test_data / 'imagenette224'}",
        "--model=resnet18_d",
        "--width=0.5",
        "--image_size=128",
        "--batch_size=40",
        "--epochs=1",
        "--sync_bn",
        "--mixup_alpha=0.2",
        "--label_smoothing=0.1",
        "--zero_gamma",
        "--learning_rate=0.0005",
        "--warmup_epochs=0.9",
    ]
    check_equal(flags, tmp_path, backend, metrics=metrics)  # 20 steps


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "head", "weights", "metrics"),
    [
        ("detection", "retinanet", 1e-5, 1e-5),
        ("detection", "faster_rcnn", 1e-3, 1e-2),  # each replica draws its own regions
        ("segmentation", "fcn", 5e-3, 0.1),  # and its own dropout
    ],
)
def test_boxes_and_masks_are_learnt_alike_too(task, head, weights, metrics, tmp_path, scenes):
    import keras_bot.tasks.serving  # noqa: F401, the layers that model.keras is made of

    flags = [
        f"--task={task}",
        f"--head={head}",
        f"--dataset={scenes[task]}",
        "--model=resnet18_d",
        "--width=0.125",
        "--head_channels=8",
        "--image_size=64",
        "--batch_size=4",
        "--epochs=2",
        "--sync_bn",
        "--learning_rate=0.001",
    ]
    check_equal(flags, tmp_path, "tensorflow", weights, metrics, names=("loss", "val_loss"))
    tables = [(tmp_path / way / "table.md").read_text() for way in ("one_device", "mirrored", "multi_worker")]
    assert tables[1] == tables[2] and all("blue" in table for table in tables)
