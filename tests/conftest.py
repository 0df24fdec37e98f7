"""Fixtures for all tests: two devices, the folder of real images, and tiny data sets in the test's own folder."""

import gc
import os
import pathlib
from collections.abc import Callable

import builders
import keras
import pytest

if keras.backend.backend() == "tensorflow":  # before TensorFlow starts
    import tensorflow as tf

    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)


def pytest_configure(config):
    """Runs the default tier's graphs as they were traced: rewriting them is a third of a tiny training's time.

    In the other tiers, and in every process that a test starts, TensorFlow rewrites them, as it does for users.
    """
    if keras.backend.backend() == "tensorflow" and config.option.markexpr in config.getini("addopts"):
        tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})


def pytest_collection_finish():
    """Exempts what the imports made from garbage collection, which took a twentieth of the time to look through it."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def test_data() -> pathlib.Path:
    """The folder of real images that KERAS_BOT_TEST_DATA names; without it the test is skipped."""
    folder = os.environ.get("KERAS_BOT_TEST_DATA", "")
    if not folder:
        pytest.skip("KERAS_BOT_TEST_DATA is not set: no folder of real images")
    return pathlib.Path(folder)


@pytest.fixture(scope="session")
def two_replicas() -> "tf.distribute.MirroredStrategy":
    """On two logical CPUs. TensorFlow can't have strategies of other numbers of replicas in this process too."""
    from keras_bot.training.distributed.on_tensorflow import mirrored_strategy

    return mirrored_strategy(tuple(device.name for device in tf.config.list_logical_devices("CPU")))


@pytest.fixture(scope="session")
def digits_dir(tmp_path_factory) -> str:
    """A TFDS data directory, in which the first test that opens "digits" prepares it."""
    return str(tmp_path_factory.mktemp("tfds"))


@pytest.fixture
def image_folder(tmp_path) -> Callable[..., pathlib.Path]:
    """Calls `builders.write_image_folder` in a folder of the test's own, by default "images"."""
    return lambda name="images", **options: builders.write_image_folder(tmp_path / name, **options)


@pytest.fixture
def npz_file(tmp_path) -> Callable[..., pathlib.Path]:
    """Calls `builders.write_npz` in the test's folder, by default for "set.npz"."""
    return lambda name="set.npz", **arrays: builders.write_npz(tmp_path / name, **arrays)


@pytest.fixture
def scenes(tmp_path) -> dict[str, pathlib.Path]:
    """The data folders of `builders.write_scenes`, by task, in the test's folder."""
    return builders.write_scenes(tmp_path)


@pytest.fixture(scope="session")
def shared_scenes(tmp_path_factory) -> dict[str, pathlib.Path]:
    """The data folders of `builders.write_scenes`, by task. Do not change them."""
    return builders.write_scenes(tmp_path_factory.mktemp("scenes"))


@pytest.fixture(scope="session")
def trained_run(tmp_path_factory) -> tuple[pathlib.Path, str]:
    """The run directory of a `keras-bot train` that trained `tiny_network`, and its output. Do not change it."""
    from processes import run_command
    from tiny_training import use_tiny_network

    path = tmp_path_factory.mktemp("trained") / "tiny"
    with pytest.MonkeyPatch.context() as patch:
        use_tiny_network(patch)
        done = run_command("train", *builders.tiny_flags(**builders.NO_COLOR), f"--run_dir={path}")
    return path, done.out


@pytest.fixture(scope="session")
def run_dir(trained_run) -> pathlib.Path:
    """The run directory of `trained_run`. Do not change it."""
    return trained_run[0]


@pytest.fixture(scope="session")
def savedmodel(run_dir, tmp_path_factory) -> pathlib.Path:
    """The SavedModel that `keras-bot export` writes of `run_dir`. Do not change it."""
    from processes import run_command

    folder = tmp_path_factory.mktemp("exported")
    run_command("export", f"--run_dir={run_dir}", f"--output_dir={folder}", "--name=saved")
    return folder / "saved"
