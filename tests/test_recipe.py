"""The recipe holds its invariants and knows its flags."""

import dataclasses

import numpy as np
import pytest

from keras_bot.errors import MisuseError
from keras_bot.recipe import Recipe, differences, tidy_paths


def test_the_defaults_are_the_papers_baseline():
    recipe = Recipe()
    assert (recipe.model, recipe.batch_size, recipe.epochs, recipe.learning_rate) == (
        "resnet50_a",
        256,
        120,
        0.1,
    )
    assert (recipe.schedule, recipe.decay_epochs, recipe.momentum) == ("step", (30, 60, 90), 0.9)
    tricks = (
        "zero_gamma",
        "linear_scaling",
        "warmup_epochs",
        "no_bias_decay",
        "label_smoothing",
        "mixup_alpha",
    )
    assert not any(getattr(recipe, trick) for trick in tricks)


def test_every_knob_has_help_and_one_flag_line():
    fields = dataclasses.fields(Recipe)
    assert all(len(field.metadata["help"]) > 5 for field in fields)
    lines = Recipe(teacher="t", distill_hard_weight=0.5).flag_lines()
    assert [line[2:].split("=")[0] for line in lines] == [field.name for field in fields]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"label_smoothing": 1.0}, "label_smoothing at least 0 and below 1 and finite, received 1"),
        ({"label_smoothing": -0.1}, "label_smoothing at least 0"),
        ({"mixup_alpha": -1.0}, "mixup_alpha at least 0 and finite, received -1"),
        ({"mixup_alpha": float("nan")}, "mixup_alpha at least 0 and finite, received nan"),
        ({"learning_rate": float("inf")}, "learning_rate above 0 and finite, received inf"),
        ({"batch_size": 0}, "batch_size at least 1"),
        ({"batch_size": 1.5}, "batch_size as int, received 1.5"),
        ({"epochs": True}, "epochs as int, received True"),
        ({"seed": 2**32}, "seed at least 0 and at most 4294967295 and finite, received 4294967296"),
        ({"zero_gamma": 1}, "zero_gamma as bool, received 1"),
        ({"head": "fcn"}, "no --head for classification, received fcn"),
        ({"schedule": "cosin"}, "one of step, cosine, poly, constant, received 'cosin'"),
        ({"warmup_epochs": 10, "epochs": 10}, "warmup_epochs below epochs"),
        ({"decay_epochs": "30"}, "decay_epochs as tuple, received '30'"),
        ({"decay_epochs": (30, 45.5)}, "rising whole epochs"),
        ({"distill_hard_weight": "0.5", "teacher": "t"}, "received '0.5'"),
        ({"decay_epochs": (3,), "warmup_epochs": 3}, "after the warmup of 3 epochs, received 3"),
        ({"decay_epochs": (60, 30)}, "rising whole epochs"),
        ({"mixup_off_epochs": 200}, "mixup_off_epochs below epochs=120"),
        ({"mixup_alpha": 0.2, "epochs": 100, "mixup_off_epochs": 100}, "mixup would never be on"),
        ({"distill_hard_weight": 0.5}, "without a teacher"),
        ({"distill_hard_weight": 1.5, "teacher": "t"}, "distill_hard_weight at least 0 and at most 1"),
    ],
)
def test_values_that_cannot_be_are_refused_with_what_was_expected(values, message):
    with pytest.raises(MisuseError, match=message):
        Recipe(**values)


def test_values_of_another_type_that_mean_the_same_become_the_knobs_own():
    recipe = Recipe(warmup_epochs=5, decay_epochs=[30, 60], teacher="t", distill_hard_weight=1)
    assert recipe == Recipe(warmup_epochs=5.0, decay_epochs=(30, 60), teacher="t", distill_hard_weight=1.0)
    assert recipe.as_text()["warmup_epochs"] == "5.0" and recipe.as_text()["decay_epochs"] == "30,60"


def test_a_knob_that_is_newer_than_what_is_stored_had_its_default():
    stored = Recipe(epochs=40).as_text()
    del stored["zero_gamma"]
    assert differences(stored, Recipe(epochs=40)) == []
    assert differences(stored, Recipe(epochs=40, jit_compile="on"), ignored=("jit_compile",)) == []
    assert differences(stored, Recipe(zero_gamma=True), ignored=("epochs",)) == ["zero_gamma was false, is true"]
    assert differences({**stored, "gone": "1"}, Recipe(jit_compile="on"), ("epochs",)) == [
        "jit_compile was auto, is on",
        "gone was 1, is unset",
    ]


def test_numbers_of_numpy_are_numbers():
    numbers = {"epochs": np.int64(10), "learning_rate": np.float32(0.5), "zero_gamma": np.bool_(True)}
    recipe = Recipe(**numbers, decay_epochs=list(np.array([3, 6])))
    assert recipe == Recipe(epochs=10, learning_rate=0.5, zero_gamma=True, decay_epochs=(3, 6))
    assert recipe.as_text() == Recipe(epochs=10, learning_rate=0.5, zero_gamma=True, decay_epochs=(3, 6)).as_text()
    with pytest.raises(MisuseError, match="epochs as int"):
        Recipe(epochs=np.float64(3.0))


@pytest.mark.parametrize("other", ["photos/", "./photos", "photos//", "~/photos", "a/../photos"])
@pytest.mark.parametrize("field", ["dataset", "data_dir", "init_from", "teacher"])
def test_one_place_written_in_two_ways_is_no_difference(field, other, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    here, there = (Recipe(**{field: text}) for text in ("photos", other))
    assert differences(here.as_text(), there) == []
    assert differences(there.as_text(), here) == []
    assert differences(here.as_text(), Recipe(**{field: str(tmp_path / "photos")})) == []
    assert differences(here.as_text(), Recipe(**{field: "photo"})) == [f"{field} was photos, is photo"]


def test_nothing_is_not_the_current_directory_and_joined_sets_are_compared_one_by_one():
    assert differences(Recipe(data_dir="").as_text(), Recipe(data_dir=".")) == ["data_dir was , is ."]
    assert differences(Recipe(dataset="a/+b").as_text(), Recipe(dataset="a+b/")) == []
    assert differences(Recipe(dataset="a+b").as_text(), Recipe(dataset="b+a")) == ["dataset was a+b, is b+a"]


def test_workers_compare_paths_in_their_shortest_form():
    texts = [tidy_paths(Recipe(dataset=dataset).as_text()) for dataset in ("photos/", "./photos")]
    assert texts[0] == texts[1] and texts[0]["dataset"] == "photos" and texts[0]["teacher"] == ""
