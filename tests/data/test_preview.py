import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from keras_bot.data import sample_grid
from keras_bot.data.augment.color import normalise
from keras_bot.data.preview import _title
from keras_bot.errors import RunError


def test_grid_shows_the_images_as_they_were(tmp_path):
    colours = np.array([[250, 10, 20], [10, 240, 30], [20, 30, 230]], np.float32)
    images = np.tile(colours[:, None, None], (1, 8, 8, 1))
    dataset = tf.data.Dataset.from_tensor_slices((normalise(images), np.eye(3, dtype=np.float32))).batch(2)
    sample_grid(dataset, ("red", "green", "blue"), tmp_path / "grid.png", rows=2, columns=2)
    pixels = np.asarray(Image.open(tmp_path / "grid.png").convert("RGB")).reshape(-1, 3)
    assert len(pixels) > 50_000
    for colour in colours:
        assert (abs(pixels - colour).max(1) <= 1).mean() > 0.02


def test_titles_name_every_class_of_a_mixed_label():
    assert _title(np.array([0.0, 1.0]), ("cat", "dog")) == "dog"
    assert _title(np.array([0.3, 0.69, 0.01]), ("cat", "dog", "owl")) == "dog 0.69\ncat 0.30"
    assert _title(np.zeros(2), ("cat", "dog")) == ""


def test_a_grid_takes_any_class_name(tmp_path, recwarn):
    names = ("$\\frac$", "cost $5 {to} $7", "_a^b", "new\nline", "bell\a", "猫😀", "half\udcff", "x" * 300)
    count = len(names)
    images = np.zeros((count, 8, 8, 3), np.float32)
    dataset = tf.data.Dataset.from_tensor_slices((images, np.eye(count, dtype=np.float32))).batch(count)
    sample_grid(dataset, names, tmp_path / "grid.png", rows=2, columns=4)
    with Image.open(tmp_path / "grid.png") as picture:
        assert picture.size == (640, 360)
    assert not [warning for warning in recwarn if issubclass(warning.category, UserWarning)]
    assert _title(np.eye(count)[3], names) == "new line" and _title(np.eye(count)[0], names) == "$\\frac$"
    assert _title(np.eye(count)[7], names) == "x" * 12 + "…" + "x" * 11


def test_a_grid_that_cannot_be_written_leaves_nothing(tmp_path, monkeypatch):
    dataset = tf.data.Dataset.from_tensors((np.zeros((1, 8, 8, 3), np.float32), np.ones((1, 1), np.float32)))
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(RunError, match=r"Cannot write .*grid\.png: No space left"):
        sample_grid(dataset, ("a",), tmp_path / "grid.png", rows=1, columns=1)
    assert not list(tmp_path.iterdir())
