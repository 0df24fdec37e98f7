"""Confusion matrix, pairs, classes and mistakes have exact numbers, and large sets are shortened."""

import base64
import dataclasses
import io
import pathlib
import re

import numpy as np
import pytest
from html_tables import read_tables
from PIL import Image

from keras_bot.recipe import Recipe
from keras_bot.report.predictions import Mistake, Predictions
from keras_bot.report.run_files import RunRecord
from keras_bot.report.sections.mistakes import class_comparison, class_table, confusion_matrix, mistaken_images


def predictions(labels, predicted, names=None, mistakes=()):
    labels, predicted = np.array(labels, "int32"), np.array(predicted, "int32")
    names = names or tuple(f"class{k}" for k in range(max(labels.max(), predicted.max()) + 1))
    ones = np.ones(len(labels), "float32")
    return Predictions("set", names, labels, predicted, ones, ones, ones, ones, ones, tuple(mistakes))


def run(*arguments, name="one", **options):
    made = predictions(*arguments, **options)
    return RunRecord(name, pathlib.Path(name), Recipe(), {}, [], predictions=made)


FEW = ([0, 0, 0, 0, 1, 1, 2], [0, 0, 0, 1, 0, 1, 0], ("a", "b<", "c", "none"))


def test_the_matrix_has_true_classes_as_rows():
    matrix, pairs = read_tables(confusion_matrix(run(*FEW)))
    assert matrix.head == ["true class", "a", "b<", "c", "none"] and matrix.kind == "confusion"
    assert matrix.rows == [
        ["a", "3", "1", "", ""],
        ["b<", "1", "1", "", ""],
        ["c", "1", "", "", ""],
        ["none", "", "", "", ""],
    ]
    assert pairs.rows == [["c", "a", "1", "100.00 %"], ["b<", "a", "1", "50.00 %"], ["a", "b<", "1", "25.00 %"]]
    assert pairs.caption == "Most confused pairs of classes"
    assert pairs.head == ["true class", "predicted class", "images", "share of the true class"]


def test_the_cells_of_the_matrix_are_coloured_by_their_share():
    page = confusion_matrix(run(*FEW))
    cells = re.findall(r'<td class="(\w+)" style="--share:(\d+)%" title="([^"]*)">', page)
    assert cells == [
        ("right", "75", "a predicted as a: 3 (75.00 %)"),
        ("wrong", "50", "a predicted as b&lt;: 1 (25.00 %)"),  # the root of the share
        ("wrong", "71", "b&lt; predicted as a: 1 (50.00 %)"),
        ("right", "50", "b&lt; predicted as b&lt;: 1 (50.00 %)"),
        ("wrong", "100", "c predicted as a: 1 (100.00 %)"),
    ]


def test_without_mistakes_there_are_no_pairs():
    page = confusion_matrix(run([0, 1], [0, 1]))
    assert "No image was misclassified." in page and len(read_tables(page)) == 1


def pixels_of(page):
    """Returns the RGBA pixels of the page's first picture, and its width and height on the page."""
    source = base64.b64decode(re.search(r"base64,([^\"]*)", page)[1])
    size = tuple(map(int, re.search(r'width="(\d+)" height="(\d+)"', page).groups()))
    return np.asarray(Image.open(io.BytesIO(source))), size


@pytest.mark.parametrize(("classes", "is_picture"), [(30, False), (31, True)])
def test_many_classes_have_a_picture_instead(classes, is_picture):
    page = confusion_matrix(run(range(classes), range(classes)))
    assert ("<img" in page) is is_picture and len(read_tables(page)) == (not is_picture)


def test_the_picture_has_shares_as_opacity():
    labels = [*range(40), 0, 0, 0]
    predicted = [*range(40), 1, 2, 2]
    page = confusion_matrix(run(labels, predicted))
    pixels, size = pixels_of(page)
    assert size == (400, 400) and pixels.shape == (400, 400, 4)
    assert pixels[5, 5].tolist() == [42, 120, 214, 64]  # class 0 is right in 1 of 4
    assert pixels[5, 25].tolist() == [214, 84, 32, 255]  # the largest error
    assert pixels[5, 15].tolist() == [214, 84, 32, 180]  # half of it: the root of 1/2
    assert pixels[15, 15].tolist() == [42, 120, 214, 255] and pixels[15, 5, 3] == 0
    assert "Confusion matrix of 40 classes: one row" in page and "(largest: 50.00 %)" in page
    assert "Blue: correct; orange" in page


def test_very_many_classes_are_grouped():
    page = confusion_matrix(run(range(1000), range(1000)))
    assert "Confusion matrix of 1,000 classes in 200 groups of neighbouring classes: one row" in page
    assert "Blue: correct or in the same group" in page and pixels_of(page)[1] == (400, 400)


def test_the_fifteen_most_frequent_pairs_are_shown():
    labels = np.repeat(np.arange(17), 2)
    page = confusion_matrix(run(labels, (labels + 1) % 17))
    pairs = read_tables(page)[1]
    assert pairs.caption == "Most confused pairs of classes (15 of 17)" and len(pairs.rows) == 15


def test_the_classes_are_sorted_by_accuracy():
    (found,) = read_tables(class_table(run(*FEW)))
    assert found.head == ["class", "images", "accuracy", "most frequent wrong prediction"]
    assert found.rows == [
        ["c", "1", "0.00 %", "a (1)"],
        ["b<", "2", "50.00 %", "a (1)"],
        ["a", "4", "75.00 %", "b< (1)"],
        ["none", "0", "–", "–"],
    ]
    assert found.caption == "Accuracy of each class, lowest first" and "sortable" in found.kind


@pytest.mark.parametrize(("classes", "tables"), [(40, 1), (41, 2)])
def test_many_classes_are_collapsed(classes, tables):
    page = class_table(run(range(classes), range(classes)))
    found = read_tables(page)
    assert len(found) == tables and len(found[-1].rows) == classes and ("<details>" in page) is (tables == 2)
    if tables == 2:
        assert found[0].caption == "The 15 classes with the lowest accuracy" and len(found[0].rows) == 15
        assert "<summary>All 41 classes</summary>" in page


def test_runs_are_compared_class_by_class():
    one, two = run(*FEW), run(FEW[0], FEW[0], FEW[2], name="two")
    (found,) = read_tables(class_comparison([one, two]))
    assert found.head == ["class", "images", "one", "two"]
    assert found.rows == [
        ["a", "4", "75.00 %", "100.00 %"],
        ["b<", "2", "50.00 %", "100.00 %"],
        ["c", "1", "0.00 %", "100.00 %"],
        ["none", "0", "–", "–"],
    ]
    many = run(range(41), range(41))
    assert "<summary>Accuracy of all 41 classes, side by side</summary>" in class_comparison([many, many])


def mistake(side=8, name="x.jpg"):
    image = np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)
    return Mistake(image, 3, name, true=0, predicted=1, confidence=0.876, true_probability=0.0123)


def test_mistakes_are_shown_with_both_probabilities():
    one = mistake()
    page = mistaken_images(run(*FEW, mistakes=[one]))
    assert "1 of 3 mistakes in 7 images, the most confident first, shown as the network" in page
    assert '<strong>b&lt; <span class="probability">87.60 %</span></strong>' in page
    assert '<span>true: a <span class="probability">1.23 %</span></span><small>x.jpg</small>' in page
    assert 'alt="x.jpg: a, predicted as b&lt;"' in page
    source = base64.b64decode(re.search(r"data:image/png;base64,([^\"]*)", page)[1])
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(source))), one.image)


@pytest.mark.parametrize(("side", "kind", "pixels"), [(64, "png", True), (65, "jpeg", False)])
def test_small_images_are_lossless(side, kind, pixels):
    page = mistaken_images(run(*FEW, mistakes=[mistake(side)]))
    assert f"data:image/{kind};" in page and ('class="pixels"' in page) is pixels


def test_a_network_without_mistakes():
    right = run([0, 1], [0, 1])
    assert mistaken_images(right) == "<p>There are no mistakes to show.</p>"
    assert dataclasses.replace(right).predictions.correct.all()
