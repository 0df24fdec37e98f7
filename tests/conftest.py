"""Fixtures for all tests: the folder of real images, and makers of tiny data sets."""

import os
import pathlib
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(scope="session")
def test_data() -> pathlib.Path:
    """The folder of real images that KERAS_BOT_TEST_DATA names; without it the test is skipped."""
    folder = os.environ.get("KERAS_BOT_TEST_DATA", "")
    if not folder:
        pytest.skip("KERAS_BOT_TEST_DATA is not set: no folder of real images")
    return pathlib.Path(folder)


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
