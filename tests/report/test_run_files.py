"""A run's files are read for the page; a missing history is a note, damaged metrics are an error."""

import json
import math
import pathlib

import pytest

from keras_bot.errors import MisuseError
from keras_bot.recipe import Recipe
from keras_bot.report.run_files import RunRecord, name_runs, read_run

RECIPE = Recipe(epochs=2, schedule="cosine")
METRICS = {
    "result": {"top1": 0.5, "top5": 0.75, "loss": 1.0, "best_top1": 0.6, "epochs": 2},
    "dataset": {"class_names": ["a", "b"], "train_images": 8, "eval_images": 4},
    "network": {"parameters": 10, "flops": None},
    "versions": {"keras": "3"},
    "tricks": ["mixup"],
    "corrupt_images": [],
}
HISTORY = "epoch,val_top1,loss\n1,0.6,2\n2,0.5,1\n"


@pytest.fixture
def path(tmp_path):
    (tmp_path / "metrics.json").write_text(json.dumps(METRICS))
    (tmp_path / "history.csv").write_text(HISTORY)
    return tmp_path


def test_a_finished_run(path):
    run = read_run(path, RECIPE, "cosine")
    history = [{"epoch": 1, "val_top1": 0.6, "loss": 2}, {"epoch": 2, "val_top1": 0.5, "loss": 1}]
    assert run == RunRecord("cosine", path, RECIPE, METRICS, history)
    assert run.class_names == ("a", "b") and run.main_metric == "top1" and run.metric_names == ["top1", "top5"]
    assert run.column("loss") == [2, 1] and all(map(math.isnan, run.column("top1")))


@pytest.mark.parametrize(
    ("result", "names"),
    [
        ({"mean_iou": 0.1, "pixel_accuracy": 0.2, "best_mean_iou": 0.3}, ["mean_iou", "pixel_accuracy"]),
        ({"pixel_accuracy": 0.2, "best_mean_iou": 0.3, "mean_iou": 0.1}, ["mean_iou", "pixel_accuracy"]),
        ({"map": 0.1, "best_map": 0.3, "loss": 1}, ["map"]),
    ],
)
def test_the_metrics_of_a_task_with_the_main_one_first(result, names):
    run = RunRecord("name", pathlib.Path("run"), RECIPE, {"result": result}, [])
    assert run.metric_names == names and run.main_metric == names[0]


def test_parts_that_old_versions_lack_are_empty(path):
    metrics = {name: METRICS[name] for name in ("result", "dataset", "network")}
    (path / "metrics.json").write_text(json.dumps(metrics))
    assert read_run(path, RECIPE, "run").metrics == {"tricks": [], "versions": {}, **metrics}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "No such file or directory"),
        ("epoch,loss\n1\n", "the number of columns in line 2 differs from the header's"),
    ],
)
def test_a_history_that_cannot_be_read_is_a_note(content, reason, path):
    (path / "history.csv").unlink()
    if content:
        (path / "history.csv").write_text(content)
    run = read_run(path, RECIPE, "run")
    assert run.history == [] and run.notes == (f"No curves: history.csv cannot be read ({reason}).",)


def test_an_unfinished_training_is_a_note(path):
    assert read_run(path, RECIPE, "run").notes == ()
    notes = read_run(path, Recipe(epochs=3, schedule="cosine"), "run").notes
    assert notes == ("The training is not finished: 2 of 3 epochs.",)


def test_notes_and_predictions_are_added_to_a_copy(path):
    run = read_run(path, RECIPE, "run")
    assert run.with_note("a").with_note("b").notes == ("a", "b") and run.notes == ()
    assert run.with_predictions("predictions").predictions == "predictions" and run.predictions is None


@pytest.mark.parametrize(
    ("part", "value", "name"),
    [
        ("result", [], "result"),
        ("network", 3, "network"),
        ("versions", "x", "versions"),
        ("result", {"top1": 0.5}, "result"),
        ("result", {**METRICS["result"], "top5": "high"}, "result.top5"),
        ("network", {"parameters": "many"}, "network.parameters"),
        ("network", {"flops": []}, "network.flops"),
        ("dataset", {**METRICS["dataset"], "train_images": "8"}, "dataset.train_images"),
        ("dataset", {**METRICS["dataset"], "eval_images": "8"}, "dataset.eval_images"),
        ("dataset", {"class_names": []}, "dataset.class_names"),
        ("dataset", {"class_names": "ab"}, "dataset.class_names"),
        ("tricks", "mixup", "tricks"),
        ("corrupt_images", 3, "corrupt_images"),
    ],
)
def test_damaged_metrics_are_named(part, value, name, path):
    (path / "metrics.json").write_text(json.dumps({**METRICS, part: value}))
    with pytest.raises(MisuseError) as raised:
        read_run(path, RECIPE, "run")
    assert str(raised.value) == f"{path / 'metrics.json'} is damaged: {name} has an invalid value. Restore the file."


@pytest.mark.parametrize("content", ["{", "{}"])
def test_unreadable_and_missing_metrics_are_the_users_error(content, path):
    (path / "metrics.json").write_text(content)
    with pytest.raises(MisuseError, match=r"metrics\.json"):
        read_run(path, RECIPE, "run")
    (path / "metrics.json").unlink()
    with pytest.raises(MisuseError, match="is not a run directory"):
        read_run(path, RECIPE, "run")


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["runs/a"], ["a"]),
        (["runs/2_cosine/seed0"], ["2_cosine/seed0"]),
        (["runs/seedling"], ["seedling"]),
        (["runs/a", "runs/b"], ["a", "b"]),
        (["x/2_cosine/seed0", "x/3_mixup/seed0"], ["2_cosine", "3_mixup"]),
        (["x/2_cosine/seed0", "x/2_cosine/seed1"], ["seed0", "seed1"]),
        (["x/2_cosine/seed0", "x/3_mixup/seed1"], ["2_cosine/seed0", "3_mixup/seed1"]),
        (["x/a/y/b", "x/c/y/b"], ["a", "c"]),
        (["x", "x/y"], ["x", "x/y"]),
    ],
)
def test_runs_are_named_by_the_parts_that_differ(paths, names, tmp_path):
    assert name_runs([tmp_path / path for path in paths]) == names


def test_a_directory_given_twice_is_refused(tmp_path):
    paths = [tmp_path / "a", tmp_path / "b", tmp_path / "x" / ".." / "a"]
    with pytest.raises(MisuseError) as raised:
        name_runs(paths)
    assert str(raised.value) == f"The run directory {paths[2]} was given twice. Remove one."
