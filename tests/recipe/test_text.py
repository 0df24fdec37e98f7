"""Stored recipes are parsed, brought up to date and compared field by field."""

import pytest

from keras_bot.recipe import RENAMED, Recipe
from keras_bot.recipe.text import current_names, differences, read_flag_lines, tidy_paths, with_current_names


def test_lines_of_flags_are_parsed_and_others_ignored():
    text = "# comment\n--epochs=3\n\n--teacher=a=b\n--flip\nepochs=9\n--accumulate=2\n"
    assert read_flag_lines(text) == {"epochs": "3", "teacher": "a=b", "flip": "", "accumulation_steps": "2"}
    assert read_flag_lines("\n".join(Recipe().flag_lines())) == Recipe().as_text()


def test_old_names_become_current_ones():
    assert with_current_names({"shard": "file", "epochs": "3"}) == {"shard_by": "file", "epochs": "3"}
    assert current_names(["keep", "epochs", "jit"]) == ("keep_checkpoints", "epochs", "jit_compile")
    assert current_names(RENAMED) == tuple(RENAMED.values())


@pytest.mark.parametrize(
    ("stored", "recipe", "ignored", "expected"),
    [
        ({}, {}, (), []),
        ({"epochs": "7"}, {"epochs": 7}, (), []),
        ({"epochs": "7", "seed": "1"}, {"seed": 2}, (), ["epochs was 7, is 120", "seed was 1, is 2"]),
        ({"epochs": "7", "seed": "1"}, {"seed": 2}, ("epochs",), ["seed was 1, is 2"]),
        ({}, {"seed": 2}, (), ["seed was 0, is 2"]),  # a field that an earlier version lacks has its default
        ({"jit": "on"}, {}, (), ["jit_compile was on, is auto"]),
        ({"unknown": "3"}, {}, (), ["unknown was 3, is unset"]),
        ({"distill_hard_weight": "0.5"}, {}, (), ["distill_hard_weight was 0.5, is unset"]),
        ({}, {"teacher": "t", "distill_hard_weight": 0.5}, ("teacher",), ["distill_hard_weight was unset, is 0.5"]),
    ],
)
def test_differing_fields(stored, recipe, ignored, expected):
    assert differences(stored, Recipe(**recipe), ignored) == expected


@pytest.mark.parametrize(
    ("name", "one", "other", "same"),
    [
        ("dataset", "photos/", "photos", True),
        ("dataset", "./photos", "photos", True),
        ("dataset", "a+b/", "./a+b", True),
        ("dataset", "a+b", "b+a", False),
        ("init_from", "a/../b", "b", True),
        ("teacher", "b", "c", False),
        ("data_dir", "", ".", False),
        ("train_split", "a/", "a", False),  # no path
    ],
)
def test_paths_are_compared_as_places(name, one, other, same):
    assert (differences({name: one}, Recipe(**{name: other})) == []) is same


def test_a_tilde_is_the_home_directory(monkeypatch):
    monkeypatch.setenv("HOME", "/home/somebody")
    assert differences({"dataset": "~/photos"}, Recipe(dataset="/home/somebody/photos")) == []


def test_paths_are_normalised_and_other_values_kept():
    values = {"dataset": "a//b/", "teacher": "", "data_dir": "./c", "train_split": "train//"}
    assert tidy_paths(values) == {"dataset": "a/b", "teacher": "", "data_dir": "c", "train_split": "train//"}
