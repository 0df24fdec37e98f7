"""Legends are read and numbered: names, colours, ignored ids and the order of a trained network."""

import re

import numpy as np
import pytest

from keras_bot.errors import MisuseError
from keras_bot.tasks.drawing import class_colors
from keras_bot.tasks.segmentation.data.classes import build_classes, numbered_classes, read_class_file, read_object_info

LEGEND = {0: ("Void", ()), 3: ("sky", (1, 2, 3)), 1: ("road", ()), 7: ("car", ())}


def build(legend=LEGEND, num_classes=0, ignore=None, class_names=None):
    return build_classes("the set", legend, num_classes, ignore, class_names)


def test_classes_are_numbered_by_their_ids_without_ignored_ones():
    found = build()
    assert found["class_names"] == ("road", "sky", "car") and found["class_ids"] == (1, 3, 7)
    assert found["ignored"] == (0, 255)
    colours = class_colors(3)
    np.testing.assert_array_equal(found["palette"], [colours[0], (1, 2, 3), colours[2]])
    assert found["palette"].dtype == np.uint8


def test_the_order_of_a_trained_network_is_kept():
    found = build(class_names=("car", "road", "sky"))
    assert found["class_names"] == ("car", "road", "sky") and found["class_ids"] == (7, 1, 3)
    colours = class_colors(3)
    np.testing.assert_array_equal(found["palette"], [colours[0], colours[1], (1, 2, 3)])


@pytest.mark.parametrize(
    ("ignore", "names", "ignored"),
    [
        (None, ("road", "sky", "car"), (0, 255)),
        ((), ("Void", "road", "sky", "car"), (255,)),
        ((7, 1), ("Void", "sky"), (1, 7, 255)),
        ((0, 255), ("road", "sky", "car"), (0, 255)),
    ],
)
def test_ids_are_ignored_by_name_or_as_given(ignore, names, ignored):
    found = build(ignore=ignore)
    assert found["class_names"] == names and found["ignored"] == ignored


@pytest.mark.parametrize("name", ["unlabelled", "unlabeled", "void", "ignore", "Ignored"])
def test_names_that_mean_no_class(name):
    assert build({0: (name, ()), 1: ("a", ()), 2: ("b", ())})["ignored"] == (0, 255)


def test_255_can_be_a_class():
    found = build({1: ("a", ()), 255: ("b", ())})
    assert found["class_ids"] == (1, 255) and found["ignored"] == ()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"num_classes": 4},
            "the set has 3 classes and the ignored ids 0, 255. The number of classes must be 4. Change num_classes or "
            "the ids to ignore.",
        ),
        ({"legend": {}}, "the set has 0 classes and the ignored ids 255. The number of classes must be 1 to 255."),
        (
            {"class_names": ("road", "sky", "bus")},
            "the set must have the 3 classes road, sky, bus, but it lacks bus and has car. Use the same names, or data "
            "with these classes.",
        ),
        ({"class_names": ("road", "sky")}, "the set must have the 2 classes road, sky, but it has car."),
        ({"ignore": (256, -1)}, "Ids to ignore must be in 0..255, received 256, -1 for the set."),
    ],
)
def test_classes_that_do_not_fit_are_refused(options, message):
    with pytest.raises(MisuseError, match=f"^{re.escape(message)}"):
        build(**options)


def test_a_name_that_occurs_twice_cannot_be_ordered():
    legend = {1: ("a", ()), 2: ("a", ()), 3: ("b", ())}
    assert build(legend)["class_names"] == ("a", "a", "b")
    with pytest.raises(MisuseError, match="but it contains a name twice"):
        build(legend, class_names=("b", "a", "a"))


def test_unnamed_classes_are_the_lowest_ids():
    assert numbered_classes(3, (1, 255)) == {0: ("class0", ()), 2: ("class2", ()), 3: ("class3", ())}
    assert list(numbered_classes(2, (), first=1)) == [1, 2]
    assert len(numbered_classes(999, ())) == 256


@pytest.mark.parametrize(
    ("text", "legend"),
    [
        ("id,name\n0,ground\n2, sky \n", {0: ("ground", ()), 2: ("sky", ())}),
        ("\ufeffid,name,r,g,b\n1,a,10,20,255,more\n\n", {1: ("a", (10, 20, 255))}),
        ('id,name\n255,"a, b"\n', {255: ("a, b", ())}),
        ("id,name\n", {}),
    ],
)
def test_a_class_file_is_read(text, legend, tmp_path):
    (tmp_path / "classes.csv").write_text(text)
    assert read_class_file(tmp_path / "classes.csv") == legend


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("0,ground\n1,sky\n", "'0,ground'"),  # no header
        ("id,name\n256,a\n", "'256,a'"),
        ("id,name\n-1,a\n", "'-1,a'"),
        ("id,name\n1,a\n1,b\n", "'1,b'"),
        ("id,name\n1,\n", "'1,'"),
        ("id,name\n1,a,10\n", "'1,a,10'"),
        ("id,name\nx,a\n", "x"),
        ("id,name\n1\n", "list index out of range"),
        ("id,name\n1,a,1,2,300\n", "300"),
    ],
)
def test_a_malformed_class_file_is_refused(text, where, tmp_path):
    path = tmp_path / "classes.csv"
    path.write_text(text)
    with pytest.raises(MisuseError, match=rf"^{re.escape(str(path))} cannot be read at ") as raised:
        read_class_file(path)
    assert where in str(raised.value)
    assert str(raised.value).endswith(
        "It needs a header, then one line per id: id, name, and optionally r, g, b. Each id occurs once and is in "
        "0..255."
    )


def test_ade20ks_list_is_read(tmp_path):
    path = tmp_path / "objectInfo150.txt"
    path.write_text("Idx\tRatio\tTrain\tName\n1\t0.15\t11664\twall\n2\t0.1\t6046\tbuilding, edifice\n")
    assert read_object_info(path) == {0: ("unlabelled", ()), 1: ("wall", ()), 2: ("building", ())}
    path.write_text("Idx\tName\n0\twall\n1\n")
    with pytest.raises(MisuseError, match="columns separated by tabs, the id first and the names last"):
        read_object_info(path)
