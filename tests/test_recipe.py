"""Recipe: validation, defaults, help metadata, renamed fields, comparison of stored recipes."""

import dataclasses

import numpy as np
import pytest

from keras_bot.errors import MisuseError
from keras_bot.recipe import RENAMED, TASKS, Recipe
from keras_bot.recipe.fields import setting
from keras_bot.recipe.text import differences, read_flag_lines, tidy_paths


def test_the_defaults_are_the_papers_baseline():
    """Every default that is not "", False or 0: the paper's, or what the guide documents."""
    defaults = {name: value for name, value in dataclasses.asdict(Recipe()).items() if value}
    assert defaults == {
        **{"dataset": "imagenet2012", "image_size": 224, "transform": "imagenet", "flip": True, "min_area": 0.08},
        **{"color_jitter": 0.4, "pca_noise": 0.1, "eval_crop": 0.875, "crop_padding": 4, "shuffle_buffer": 8192},
        **{"max_corrupt": 10, "synthetic_images": 1024, "model": "resnet50_a", "width": 1.0, "epochs": 120},
        **{"batch_size": 256, "learning_rate": 0.1, "schedule": "step", "decay_epochs": (30, 60, 90)},
        **{"decay_factor": 0.1, "optimizer": "nag", "momentum": 0.9, "weight_decay": 1e-4, "precision": "float32"},
        **{"distill_temperature": 20.0, "layer_decay": 1.0, "task": "classification", "min_zoom": 0.5},
        **{"max_zoom": 2.0, "map_metric": "voc", "strategy": "auto", "accumulation_steps": 1, "shard_by": "example"},
        **{"keep_checkpoints": 2, "augment_on": "host", "ram_budget": 1024, "jit_compile": "auto"},
    }


def test_every_field_has_help_and_one_flag_line():
    fields = dataclasses.fields(Recipe)
    assert all(len(field.metadata["help"]) > 5 for field in fields)
    lines = Recipe(teacher="t", distill_hard_weight=0.5).flag_lines()
    assert [line[2:].split("=")[0] for line in lines] == [field.name for field in fields]


def test_the_help_names_every_choice_and_known_tasks():
    for field in dataclasses.fields(Recipe):
        help, choices, tasks = (field.metadata[name] for name in ("help", "choices", "tasks"))
        assert all(choice in help for choice in choices or ()), field.name
        assert set(tasks or TASKS) <= set(TASKS), field.name


def test_bounds_are_checked_by_name():
    with pytest.raises(TypeError, match="at_leats"):
        setting(1, "a number", at_leats=0)


@pytest.mark.parametrize(("old", "new"), RENAMED.items())
def test_a_renamed_field_is_accepted_with_a_warning(old, new):
    value = {"keep_checkpoints": 3, "accumulation_steps": 4, "global_clipnorm": 1.5}.get(new)
    value = value or Recipe.__dataclass_fields__[new].metadata["choices"][-1]
    with pytest.warns(DeprecationWarning, match=rf"Recipe\({old}=…\) is now {new};"):
        assert Recipe(**{old: value}) == Recipe(**{new: value}) != Recipe()
    with pytest.warns(DeprecationWarning), pytest.raises(TypeError, match="the same argument"):
        Recipe(**{old: value, new: value})
    assert read_flag_lines(f"# a comment\n--{old}={value}\n") == {new: str(value)}
    assert differences({old: str(value)}, Recipe(**{new: value})) == []


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"label_smoothing": 1.0}, "label_smoothing must be at least 0 and below 1, received 1"),
        ({"label_smoothing": -0.1}, "label_smoothing must be at least 0"),
        ({"mixup_alpha": -1.0}, "mixup_alpha must be at least 0, received -1"),
        ({"mixup_alpha": float("nan")}, "mixup_alpha must be at least 0 and finite, received nan"),
        ({"learning_rate": float("inf")}, "learning_rate must be above 0 and finite, received inf"),
        ({"batch_size": 0}, "batch_size must be at least 1, received 0"),
        ({"batch_size": 1.5}, "batch_size must be of type int, received 1.5"),
        ({"epochs": True}, "epochs must be of type int, received True"),
        ({"seed": 2**32}, "seed must be at least 0 and at most 4294967295, received 4294967296"),
        ({"zero_gamma": 1}, "zero_gamma must be of type bool, received 1"),
        ({"head": "fcn"}, "--head=fcn requires --task=detection or segmentation"),
        ({"schedule": "cosin"}, "schedule must be one of step, cosine, poly, constant, received 'cosin'"),
        ({"warmup_epochs": 10, "epochs": 10}, "warmup_epochs=10 must be less than epochs=10"),
        ({"decay_epochs": "30"}, "decay_epochs must be of type tuple, received '30'"),
        ({"decay_epochs": (30, 45.5)}, "decay_epochs must be increasing whole numbers"),
        (
            {"distill_hard_weight": "0.5", "teacher": "t"},
            "distill_hard_weight must be of type float .* None, received '0.5'",
        ),
        ({"decay_epochs": (3,), "warmup_epochs": 3}, "decay_epochs must start after the 3 warmup epochs, received 3"),
        ({"decay_epochs": (60, 30)}, "decay_epochs must be increasing whole numbers"),
        ({"mixup_off_epochs": 200}, "mixup_off_epochs must be less than epochs=120, received 200"),
        ({"mixup_alpha": 0.2, "epochs": 100, "mixup_off_epochs": 100}, "mixup would never be on"),
        ({"distill_hard_weight": 0.5}, "distill_hard_weight has no effect without --teacher"),
        ({"distill_hard_weight": 1.5, "teacher": "t"}, "distill_hard_weight must be at least 0 and at most 1"),
    ],
)
def test_invalid_values_are_refused_with_the_reason(values, message):
    with pytest.raises(MisuseError, match=message):
        Recipe(**values)


def test_values_of_equivalent_types_are_converted():
    recipe = Recipe(warmup_epochs=5, decay_epochs=[30, 60], teacher="t", distill_hard_weight=1)
    assert recipe == Recipe(warmup_epochs=5.0, decay_epochs=(30, 60), teacher="t", distill_hard_weight=1.0)
    assert recipe.as_text()["warmup_epochs"] == "5.0" and recipe.as_text()["decay_epochs"] == "30,60"


def test_a_field_missing_from_a_stored_recipe_has_its_default():
    stored = Recipe(epochs=40).as_text()
    del stored["zero_gamma"]
    assert differences(stored, Recipe(epochs=40)) == []
    assert differences(stored, Recipe(epochs=40, jit_compile="on"), ignored=("jit_compile",)) == []
    assert differences(stored, Recipe(zero_gamma=True), ignored=("epochs",)) == ["zero_gamma was false, is true"]
    assert differences({**stored, "gone": "1"}, Recipe(jit_compile="on"), ("epochs",)) == [
        "jit_compile was auto, is on",
        "gone was 1, is unset",
    ]


def test_numpy_numbers_are_accepted():
    numbers = {"epochs": np.int64(10), "learning_rate": np.float32(0.5), "zero_gamma": np.bool_(True)}
    recipe = Recipe(**numbers, decay_epochs=list(np.array([3, 6])))
    assert recipe == Recipe(epochs=10, learning_rate=0.5, zero_gamma=True, decay_epochs=(3, 6))
    assert recipe.as_text() == Recipe(epochs=10, learning_rate=0.5, zero_gamma=True, decay_epochs=(3, 6)).as_text()
    with pytest.raises(MisuseError, match="epochs must be of type int"):
        Recipe(epochs=np.float64(3.0))


@pytest.mark.parametrize("other", ["photos/", "./photos", "photos//", "~/photos", "a/../photos"])
@pytest.mark.parametrize("field", ["dataset", "data_dir", "init_from", "teacher"])
def test_two_spellings_of_one_path_are_no_difference(field, other, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    here, there = (Recipe(**{field: text}) for text in ("photos", other))
    assert differences(here.as_text(), there) == []
    assert differences(there.as_text(), here) == []
    assert differences(here.as_text(), Recipe(**{field: str(tmp_path / "photos")})) == []
    assert differences(here.as_text(), Recipe(**{field: "photo"})) == [f"{field} was photos, is photo"]


def test_an_empty_path_is_not_the_current_directory_and_joined_data_sets_are_compared_in_order():
    assert differences(Recipe(data_dir="").as_text(), Recipe(data_dir=".")) == ["data_dir was , is ."]
    assert differences(Recipe(dataset="a/+b").as_text(), Recipe(dataset="a+b/")) == []
    assert differences(Recipe(dataset="a+b").as_text(), Recipe(dataset="b+a")) == ["dataset was a+b, is b+a"]


def test_workers_compare_normalised_paths():
    texts = [tidy_paths(Recipe(dataset=dataset).as_text()) for dataset in ("photos/", "./photos")]
    assert texts[0] == texts[1] and texts[0]["dataset"] == "photos" and texts[0]["teacher"] == ""
