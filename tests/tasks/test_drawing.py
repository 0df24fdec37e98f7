"""Pictures have their colours where they should, and say what they can't draw."""

import numpy as np
import pytest
from PIL import Image

from keras_bot.errors import MisuseError
from keras_bot.tasks.drawing import class_colors, draw_boxes, draw_legend, draw_mask, picture_grid

NAMES = ["cell", "platelet"]
COLORS = np.array([[255, 0, 0], [0, 0, 255]], np.uint8)
GREY = np.full((120, 160, 3), 100, np.uint8)


def test_colours_differ():
    colors = class_colors(21).astype(int)
    distance = np.abs(colors[:, None] - colors[None]).sum(-1) + 999 * np.eye(21, dtype=int)
    assert colors.shape == (21, 3) and distance.min() > 30
    assert class_colors(21)[:5].tolist() == class_colors(5).tolist()


def test_a_frame_is_where_its_box_is():
    drawn = draw_boxes(GREY, [[40, 30, 90, 100]], [1], NAMES, colors=COLORS)
    assert drawn.shape == GREY.shape and (GREY == 100).all()
    for y, x in ((40, 30), (40, 99), (89, 30), (89, 99), (60, 30), (60, 99)):
        assert drawn[y, x].tolist() == [0, 0, 255]
    assert (drawn[41:89, 31:99] == 100).all()  # inside
    assert (drawn[90:] == 100).all() and (drawn[:, 100:] == 100).all() and (drawn[:, :30] == 100).all()
    assert (drawn[20:40, 30:100] != 100).any()  # the label above


def test_the_surest_are_on_top_and_unsure_ones_left_out():
    boxes, scores = [[40, 30, 90, 100]] * 3, [0.9, 0.5, 0.1]
    drawn = draw_boxes(GREY, boxes, [0, 1, 1], NAMES, scores, colors=COLORS)
    assert drawn[60, 30].tolist() == [255, 0, 0]
    assert (draw_boxes(GREY, boxes, [0, 1, 1], NAMES, scores, min_score=0.95) == GREY).all()


@pytest.mark.parametrize(
    ("box", "name"),
    [([-1, -1, -1, -1], -1), ([200, 200, 300, 300], 0), ([-50, -50, -2, -2], 0), ([np.nan] * 4, 0)],
)
def test_padding_and_boxes_outside_leave_the_image_alone(box, name):
    assert (draw_boxes(GREY, [box], [name], NAMES) == GREY).all()


@pytest.mark.parametrize(
    "box", [[-10, -10, 500, 500], [0, 0, 1, 1], [119, 159, 120, 160], [5, 5, 5, 5], [30, 150, 60, 160]]
)
def test_boxes_at_the_edge_are_drawn(box):
    drawn = draw_boxes(GREY, [box], [0], NAMES, [0.5])
    assert drawn.shape == GREY.shape


def test_nothing_found_is_the_image():
    assert (draw_boxes(GREY, np.zeros((0, 4)), [], NAMES, []) == GREY).all()


def test_a_mask_tints_its_pixels_and_255_none():
    mask = np.zeros((120, 160), int)
    mask[:, 50:100] = 1
    mask[:, 100:] = 255
    drawn = draw_mask(GREY, mask, NAMES, colors=COLORS, opacity=0.5)
    assert drawn[5, 5].tolist() == [178, 50, 50] and drawn[5, 60].tolist() == [50, 50, 178]
    assert (drawn[:120, 100:] == 100).all()
    assert drawn.shape[0] > 120 and drawn.shape[1] == 160
    for color in COLORS:
        assert (drawn[120:] == color).all(-1).any()
    assert draw_mask(GREY, mask, NAMES, legend=False).shape == GREY.shape
    assert (draw_mask(GREY, np.full((120, 160), 255), NAMES) == GREY).all()


def test_a_legend_takes_the_lines_it_needs():
    names = [f"a class {i}" for i in range(12)]
    narrow, wide = (draw_legend(names, class_colors(12), width) for width in (160, 1600))
    assert narrow.shape[0] > 3 * wide.shape[0] > 0
    for color in class_colors(12):
        assert (narrow == color).all(-1).any()


def test_a_grid_has_every_picture(tmp_path):
    pictures = [np.full((20 + i, 30, 3), 10 * i, np.uint8) for i in range(5)]
    sheet = picture_grid(pictures, tmp_path / "grid.png", columns=3, titles=list("abcde"))
    assert (np.asarray(Image.open(tmp_path / "grid.png")) == sheet).all()
    for i in range(5):
        assert (sheet == 10 * i).all(-1).sum() >= (20 + i) * 30
    assert picture_grid(pictures[:1]).shape == (28, 38, 3)


def test_bad_input_is_reported():
    mask = np.zeros((120, 160), int)
    for call, message in (
        (lambda: draw_boxes(GREY / 255, [], [], NAMES), "uint8"),
        (lambda: draw_boxes(GREY[..., 0], [], [], NAMES), r"\(120, 160\)"),
        (lambda: draw_boxes(GREY, [[0, 0, 1, 1]], [2], NAMES), "2 names, so class 2 has none"),
        (lambda: draw_boxes(GREY, [[0, 0, 1, 1]], [0, 1], NAMES), "received 1 boxes, 2 classes and 2 scores"),
        (lambda: draw_mask(GREY, mask[:5], NAMES), r"\(120, 160\), received \(5, 160\)"),
        (lambda: draw_mask(GREY, mask + 2, NAMES), "class 2 has none"),
        (lambda: draw_mask(GREY, mask - 1, NAMES), "class -1 has none"),
        (lambda: picture_grid([]), "at least one"),
        (lambda: picture_grid([GREY], titles=["a", "b"]), "received 2"),
    ):
        with pytest.raises(MisuseError, match=message):
            call()


@pytest.mark.parametrize("name", ["new\nline", "bell\a\x00", "half\udcff", "猫😀", "$\\frac$", "x" * 300, ""])
def test_any_name_is_drawn(name, tmp_path):
    drawn = draw_boxes(GREY, [[40, 30, 90, 100]], [0], [name], [0.5])
    assert (drawn != GREY).any()
    assert draw_mask(GREY, np.zeros(GREY.shape[:2], int), [name]).shape[0] > GREY.shape[0]
    assert picture_grid([GREY], tmp_path / "grid.png", titles=[name]).shape[1] == 168
