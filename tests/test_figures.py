"""Figures draw names as plain text, and a figure that fails only prints a warning."""

import io
import warnings

import matplotlib
import pytest

from keras_bot.figures import label_text, new_figure, optional_picture, plain_text, style_panel


@pytest.mark.parametrize(
    ("name", "width", "text"),
    [
        ("class_1", 40, "class_1"),
        ("a\tb\nc\u00a0d", 40, "a b c d"),
        ("a\x00b\udcffc", 40, "a�b�c"),
        ("abcdefghij", 10, "abcdefghij"),
        ("abcdefghijk", 10, "abcde…hijk"),
        ("abcdefghijk", 9, "abcd…hijk"),
        ("größe", 3, "g…e"),
    ],
)
def test_a_label_is_one_short_printable_line(name, width, text):
    assert label_text(name, width) == text and len(text) <= width


def test_a_label_has_up_to_forty_characters():
    assert label_text("x" * 40) == "x" * 40
    assert label_text("x" * 41) == "x" * 20 + "…" + "x" * 19


def test_a_figure_has_its_size_and_no_global_state():
    from matplotlib import pyplot

    figure = new_figure(3, 2)
    assert figure.get_size_inches().tolist() == [3, 2] and figure.get_layout_engine() is not None
    assert pyplot.get_fignums() == []
    figure.savefig(io.BytesIO(), format="png")


@pytest.mark.parametrize(("grid", "visible"), [("both", (True, True)), ("x", (True, False)), ("y", (False, True))])
def test_a_panel_has_a_grid_and_two_borders(grid, visible):
    panel = new_figure(2, 2).subplots()
    style_panel(panel, grid=grid)
    lines = [axis.get_gridlines()[0].get_visible() for axis in (panel.xaxis, panel.yaxis)]
    assert tuple(lines) == visible
    assert {side: spine.get_visible() for side, spine in panel.spines.items()} == {
        **{"left": True, "bottom": True, "top": False, "right": False},
    }


def test_the_grid_is_on_both_axes_by_default():
    panel = new_figure(2, 2).subplots()
    style_panel(panel)
    grids = [axis.get_gridlines()[0] for axis in (panel.xaxis, panel.yaxis)]
    assert [(line.get_visible(), line.get_alpha()) for line in grids] == [(True, 0.3)] * 2


@pytest.mark.parametrize(("whole_x", "whole"), [(True, True), (False, False)])
def test_the_ticks_are_whole_numbers_on_request(whole_x, whole):
    panel = new_figure(4, 2).subplots()
    panel.plot([1, 2], [0, 1])
    style_panel(panel, whole_x=whole_x)
    assert all(tick == int(tick) for tick in panel.get_xticks()) is whole


def test_names_are_not_mathtext():
    before = matplotlib.rcParams["text.parse_math"]
    with plain_text():
        settings = ("text.parse_math", "text.usetex", "axes.formatter.use_mathtext")
        assert [matplotlib.rcParams[name] for name in settings] == [False] * 3
        figure = new_figure(2, 1)
        figure.suptitle("a$b_c^d$ \\frac")
        figure.savefig(io.BytesIO(), format="png")
    assert matplotlib.rcParams["text.parse_math"] is before is True


def test_matplotlibs_warnings_are_hidden_and_others_are_not():
    with warnings.catch_warnings(record=True) as caught, plain_text():
        warnings.simplefilter("always", DeprecationWarning)
        warnings.warn("a glyph is missing", UserWarning, stacklevel=1)
        warnings.warn("old", DeprecationWarning, stacklevel=1)
    assert [str(warning.message) for warning in caught] == ["old"]


def test_plain_text_is_also_a_decorator():
    assert plain_text()(lambda: matplotlib.rcParams["text.parse_math"])() is False


@pytest.mark.parametrize(
    ("error", "reason"),
    [(OSError("no\n  space."), "no space"), (ValueError(""), "ValueError"), (KeyError("name"), "'name'")],
)
def test_a_picture_that_fails_is_a_warning(error, reason, capsys):
    with optional_picture("curves.png"):
        raise error
    out, err = capsys.readouterr()
    assert out == ""
    assert err == f"keras-bot: warning: cannot create curves.png: {reason}. All other files are complete.\n"


def test_a_picture_that_works_is_silent_and_ctrl_c_is_not_caught(capsys):
    with optional_picture("curves.png"):
        pass
    with pytest.raises(KeyboardInterrupt), optional_picture("curves.png"):
        raise KeyboardInterrupt
    assert capsys.readouterr().err == ""
