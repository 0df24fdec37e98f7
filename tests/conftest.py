"""For all tests: two devices, the folder of real images, and makers of tiny data sets."""

import os
import pathlib
from collections.abc import Callable

import keras
import numpy as np
import pytest
from PIL import Image

if keras.backend.backend() == "tensorflow":  # before TensorFlow starts
    import tensorflow as tf

    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)


def pytest_configure(config):
    """The default suite runs graphs as they were traced: rewriting them is a third of a tiny training's time.

    With `-m slow`, and in every process that a test starts, TensorFlow rewrites them, as it does for users.
    """
    if keras.backend.backend() == "tensorflow" and config.option.markexpr == "not slow":
        tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})


VOC = """<annotation><filename>{name}.jpg</filename><size><width>64</width><height>48</height><depth>3</depth></size>
<object><name>{kind}</name><difficult>0</difficult>
<bndbox><xmin>{x0}</xmin><ymin>{y0}</ymin><xmax>{x1}</xmax><ymax>{y1}</ymax></bndbox></object></annotation>"""


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
    """Makes `train` and `val` of JPEGs with `classes` classes of `train` and `val` images each, 40x30."""

    def make(classes: int = 3, train: int = 5, val: int = 2, name: str = "images") -> pathlib.Path:
        draw = np.random.default_rng(0)
        for split, count in (("train", train), ("val", val)):
            for label in range(classes):
                folder = tmp_path / name / split / f"class{label}"
                folder.mkdir(parents=True)
                for i in range(count):
                    pixels = draw.integers(0, 256, (30, 40, 3), np.uint8)
                    Image.fromarray(pixels).save(folder / f"{i}.jpg", quality=95)
        return tmp_path / name

    return make


@pytest.fixture
def npz_file(tmp_path) -> Callable[..., pathlib.Path]:
    """Makes an .npz: 24 training and 10 test images, 8x8, 4 classes; arrays given by name replace them."""

    def make(name: str = "set.npz", **arrays: np.ndarray) -> pathlib.Path:
        draw = np.random.default_rng(0)
        own = {
            "x_train": draw.integers(0, 256, (24, 8, 8, 3), np.uint8),
            "y_train": np.arange(24) % 4,
            "x_test": draw.integers(0, 256, (10, 8, 8, 3), np.uint8),
            "y_test": np.arange(10) % 4,
        }
        chosen = {key: value for key, value in {**own, **arrays}.items() if value is not None}
        np.savez(tmp_path / name, **chosen)
        return tmp_path / name

    return make


@pytest.fixture
def scenes(tmp_path, make_scenes):
    """Those of `make_scenes`, in a folder of the test's own."""
    return make_scenes(tmp_path)


@pytest.fixture(scope="session")
def make_scenes() -> Callable[[pathlib.Path], dict[str, pathlib.Path]]:
    """Makes squares of two colours on grey, 64x48, in a folder: as boxes in Pascal VOC's layout, and as masks."""
    return _make_scenes


def _make_scenes(parent):
    draw = np.random.default_rng(0)
    boxes, masks = parent / "boxes", parent / "masks"
    for folder in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (boxes / folder).mkdir(parents=True)
    for folder in ("images", "masks"):
        (masks / folder).mkdir(parents=True)
    names = [f"scene{i}" for i in range(12)]
    for number, name in enumerate(names):
        pixels, classes = draw.integers(100, 140, (48, 64, 3), np.uint8), np.zeros((48, 64), np.uint8)
        y, x, kind = *draw.integers(4, 24, 2), number % 2
        pixels[y : y + 20, x : x + 20] = (230, 30, 30) if kind else (30, 30, 230)
        classes[y : y + 20, x : x + 20] = kind + 1
        Image.fromarray(pixels).save(boxes / "JPEGImages" / f"{name}.jpg", quality=95)
        Image.fromarray(pixels).save(masks / "images" / f"{name}.jpg", quality=95)
        Image.fromarray(classes).save(masks / "masks" / f"{name}.png")
        square = {"x0": x + 1, "y0": y + 1, "x1": x + 20, "y1": y + 20}
        told = VOC.format(name=name, kind=("blue", "red")[kind], **square)
        (boxes / "Annotations" / f"{name}.xml").write_text(told)
    for split, part in (("train", names[:8]), ("val", names[8:])):
        (boxes / "ImageSets/Main" / f"{split}.txt").write_text("\n".join(part))
        (masks / f"{split}.txt").write_text("\n".join(part))
    (masks / "classes.csv").write_text("id,name\n0,ground\n1,blue\n2,red\n")
    return {"detection": boxes, "segmentation": masks}
