"""A picture of an image's boxes or classes is written, with one line of text for each."""

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from keras_bot.errors import RunError
from keras_bot.tasks import prediction
from keras_bot.tasks.prediction import draw_file

NAMES = ["blue", "re\nd", "green"]


@pytest.fixture
def photo(tmp_path):
    pixels = np.zeros((6, 8, 3), np.uint8)
    pixels[..., 1] = 200
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


@pytest.fixture
def drawn(monkeypatch):
    """The arguments of `draw_boxes` and `draw_mask`, which draw a black picture here."""
    calls = []
    for name in ("draw_boxes", "draw_mask"):
        monkeypatch.setattr(
            prediction, name, lambda *args, name=name: calls.append((name, args)) or np.zeros((4, 4, 3), np.uint8)
        )
    return calls


def detections(scores, classes):
    boxes = np.arange(4 * len(scores), dtype="float32").reshape(1, -1, 4) + 0.6
    return {
        "boxes": tf.constant(boxes),
        "scores": tf.constant([scores]),
        "classes": tf.constant([classes]),
        "count": tf.constant([len(scores)]),
    }


def test_boxes_above_the_score_are_listed_and_drawn(photo, drawn, tmp_path):
    seen = []

    def serve(images):
        seen.append(images)
        return detections([0.9, 0.5, 0.4999, 0.0], [1, 0, 2, -1])

    output = tmp_path / "new" / "folder" / "picture.png"
    description = {"task": "detection", "class_names": NAMES}
    assert draw_file(serve, description, photo, output, 0.5) == [" 90.00%  re\\nd  1 2 3 4", " 50.00%  blue  5 6 7 8"]
    assert seen[0].shape == (1, 6, 8, 3) and seen[0].dtype == tf.uint8
    ((name, (image, boxes, classes, names, scores)),) = drawn
    assert name == "draw_boxes" and names == NAMES and classes.tolist() == [1, 0]
    assert image[0, 0].tolist() == [0, 200, 0] and scores.tolist() == pytest.approx([0.9, 0.5])
    np.testing.assert_allclose(boxes, [[0.6, 1.6, 2.6, 3.6], [4.6, 5.6, 6.6, 7.6]])
    assert Image.open(output).size[0] >= 4


def test_padding_is_left_out_at_a_score_of_0(photo, drawn, tmp_path):
    description = {"task": "detection", "class_names": NAMES}
    serve = lambda images: detections([0.2, 0.0, 0.0], [2, 1, -1])  # noqa: E731
    lines = draw_file(serve, description, str(photo), tmp_path / "p.png", 0.0)
    assert [line.split()[1] for line in lines] == ["green", "re\\nd"]


def test_the_classes_of_a_mask_are_listed_by_their_share(photo, drawn, tmp_path):
    mask = np.zeros((1, 6, 8), np.int32)
    mask[0, :, :6] = 2
    description = {"task": "segmentation", "class_names": NAMES}
    lines = draw_file(lambda images: tf.constant(mask), description, photo, tmp_path / "p.png", 0.5)
    assert lines == [" 75.00%  green", " 25.00%  blue"]
    ((name, (image, drawn_mask, names)),) = drawn
    assert name == "draw_mask" and names == NAMES and image.shape == (6, 8, 3)
    np.testing.assert_array_equal(drawn_mask, mask[0])


def test_a_file_that_is_no_image_is_an_error(tmp_path):
    (tmp_path / "text").write_text("text")
    with pytest.raises(RunError, match="as an image"):
        draw_file(None, {"task": "detection", "class_names": []}, tmp_path / "text", tmp_path / "p.png", 0.5)
