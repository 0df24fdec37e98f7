"""The likeliest classes of an image file, by name."""

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from keras_bot.errors import RunError
from keras_bot.export.prediction import predict_file, read_image


@pytest.fixture
def photo(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    return tmp_path / "photo.png", pixels


@pytest.mark.parametrize(
    ("top", "expected"),
    [(1, [("c", 0.5)]), (2, [("c", 0.5), ("3", 0.25)]), (9, [("c", 0.5), ("3", 0.25), ("b", 0.15), ("a", 0.1)])],
)
def test_the_classes_are_sorted_and_those_without_a_name_are_numbered(top, expected, photo):
    path, pixels = photo
    seen = []

    def serve(images):
        seen.append(images)
        return tf.constant([[0.1, 0.15, 0.5, 0.25]])

    found = predict_file(serve, ["a", "b", "c"], str(path), top=top)
    assert found.path == path
    assert [(name, pytest.approx(probability)) for name, probability in found.top] == expected
    np.testing.assert_array_equal(seen[0], pixels[None])


def test_five_classes_are_the_default(photo):
    found = predict_file(lambda images: tf.constant([np.arange(8) / 28]), [], photo[0])
    assert [name for name, _ in found.top] == ["7", "6", "5", "4", "3"]
    assert all(type(probability) is float for _, probability in found.top)


def test_an_image_is_read_as_rgb(photo):
    image = read_image(photo[0])
    assert image.dtype == tf.uint8
    np.testing.assert_array_equal(image, photo[1])


def test_what_cannot_be_read_is_reported(tmp_path):
    (tmp_path / "text.jpg").write_text("text")
    with pytest.raises(
        RunError, match=rf"^Cannot read {tmp_path}/text\.jpg as an image: it is damaged, or not a \.jpg, "
    ):
        read_image(tmp_path / "text.jpg")
    for path in (tmp_path / "none.jpg", tmp_path):
        with pytest.raises(RunError) as raised:
            read_image(path)
        assert str(raised.value) == f"{path} is not a file. Pass image files."
