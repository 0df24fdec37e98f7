"""One device, two mirrored replicas and two workers train the same network on each backend."""

import keras
import numpy as np
import pytest
from builders import read_history
from processes import KERAS_BOT, python_command, run_process

MIRRORED = """
import sys
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from keras_bot.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


def commands(flags, run_dir):
    """Returns the command of each strategy."""
    train = ["train", *flags, f"--run_dir={run_dir}"]
    return {
        "one_device": [*KERAS_BOT, *train, "--strategy=one_device"],
        "mirrored": python_command(MIRRORED, *train, "--strategy=mirrored"),
        "multi_worker": [*KERAS_BOT, "launch", "--workers=2", "--", *train],
    }


def train_with(strategy, flags, run_dir, backend):
    """Trains; returns the weights by path and the rows of the history."""
    environment = {"TF_CPP_MIN_LOG_LEVEL": "3", "KERAS_BACKEND": backend}
    if strategy == "mirrored":
        environment["XLA_FLAGS"] = "--xla_force_host_platform_device_count=2"  # for JAX
    run_process(commands(flags, run_dir)[strategy], env=environment)
    model = keras.saving.load_model(run_dir / "model.keras", compile=False)
    weights = [variable for variable in model.variables if "seed_generator" not in variable.path]  # dropout's state
    return {variable.path: np.asarray(variable) for variable in weights}, read_history(run_dir)


def distances(weights, reference):
    """Returns relative Euclidean distances of all trained weights and of all moving statistics."""
    norm = np.linalg.norm
    moving = [path for path in reference if "moving_" in path]
    groups = ([path for path in reference if path not in moving], moving)
    return [
        norm([norm(weights[path] - reference[path]) for path in paths])
        / norm([norm(reference[path]) for path in paths])
        for paths in groups
    ]


def check_equal(flags, tmp_path, backend, weights=1e-4, metrics=1e-5, names=("loss", "top1", "val_loss", "val_top1")):
    if backend == "jax":
        pytest.importorskip("jax", reason="JAX isn't installed")
    strategies = ("one_device", "mirrored", "multi_worker")
    results = {strategy: train_with(strategy, flags, tmp_path / strategy, backend) for strategy in strategies}
    reference, reference_rows = results["one_device"]
    for strategy in strategies[1:]:
        trained_weights, rows = results[strategy]
        trained, moving = distances(trained_weights, reference)
        values = {name: (reference_rows[-1][name], rows[-1][name]) for name in names}
        print(f"{strategy}: weights differ by {trained:.2g}, moving statistics by {moving:.2g}; {values}")
        assert trained < weights and moving < weights, strategy
        for expected, row in zip(reference_rows, rows, strict=True):
            for name in names:
                assert float(row[name]) == pytest.approx(float(expected[name]), rel=metrics, abs=1e-7), (strategy, name)


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


@pytest.mark.thorough
@pytest.mark.parametrize("backend", ["tensorflow", pytest.param("jax", marks=pytest.mark.soak)])
def test_two_replicas_and_two_workers_equal_one_device(backend, tmp_path, npz_file):
    check_equal([f"--dataset={npz_file()}", *SMALL], tmp_path, backend)


@pytest.mark.soak
@pytest.mark.parametrize(("backend", "metrics"), [("tensorflow", 1e-5), ("jax", 5e-5)])  # BUILD_NOTES: 2.5e-5 there
def test_strategies_are_equal_on_photos(backend, metrics, tmp_path, test_data):
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


@pytest.mark.soak
@pytest.mark.parametrize(
    ("task", "head", "weights", "metrics"),
    [
        ("detection", "retinanet", 1e-5, 1e-5),
        ("detection", "faster_rcnn", 1e-3, 1e-2),  # each replica samples its own regions
        ("segmentation", "fcn", 5e-3, 0.1),  # and its own dropout
    ],
)
def test_strategies_are_equal_for_detection_and_segmentation(task, head, weights, metrics, tmp_path, scenes):
    import keras_bot.tasks.serving  # noqa: F401, registers the layers in model.keras

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
    tables = [(tmp_path / strategy / "table.md").read_text() for strategy in ("one_device", "mirrored", "multi_worker")]
    assert tables[1] == tables[2] and all("blue" in table for table in tables)
