import numpy as np
import tensorflow as tf
from PIL import Image

from keras_bot.data import sample_grid
from keras_bot.data.color import normalise
from keras_bot.data.grid import _title


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
