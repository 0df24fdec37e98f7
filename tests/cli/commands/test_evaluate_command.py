"""`evaluate` opens the data with the run's classes, evaluates the right file, and prints one line of JSON."""

import json
import math
import pathlib
import types

import pytest

from keras_bot.cli.commands import evaluate
from keras_bot.cli.main import main
from keras_bot.recipe import Recipe
from keras_bot.training.checkpoints.run_directory import run_flags

RECIPE = Recipe(dataset="photos", max_corrupt=3, epochs=3, schedule="cosine")


@pytest.fixture
def run(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.flags").write_text(run_flags(RECIPE))
    metrics = {"result": {}, "dataset": {"class_names": ["a", "b"]}}
    (tmp_path / "run" / "metrics.json").write_text(json.dumps(metrics))
    return tmp_path / "run"


@pytest.fixture
def calls(monkeypatch):
    """The calls of a task that finds one corrupt image among nine."""
    events = []

    def open_source(recipe, split, class_names=()):
        events.append(("open", recipe, split, class_names))
        return types.SimpleNamespace(size=9)

    def run_evaluation(recipe, path, source, corrupt):
        corrupt.report("broken.jpg")
        events.append(("evaluate", recipe, path, source.size, corrupt.max_corrupt))
        return {"top1": 0.5, "per_class": {"a": math.nan, "b": 0.25}}

    task = types.SimpleNamespace(open_source=open_source, evaluate=run_evaluation)
    monkeypatch.setattr("keras_bot.tasks.find_task", lambda name: events.append(("task", name)) or task)
    monkeypatch.setattr(evaluate, "start_backend", lambda: events.append("backend"))
    return events


def test_a_runs_network_is_evaluated_on_its_data(run, calls, capsys):
    assert main(["evaluate", f"--run_dir={run}"]) == 0
    path = run / "model.keras"
    assert calls == [
        "backend",
        ("task", "classification"),
        ("open", RECIPE, "eval", ("a", "b")),
        ("evaluate", RECIPE, path, 9, 3),
    ]
    result = {"top1": 0.5, "per_class": {"a": None, "b": 0.25}, "images": 8, "model_file": str(path)}
    assert json.loads(capsys.readouterr().out) == result


def test_flags_override_the_recipe_and_the_file(run, calls):
    assert main(["evaluate", f"--run_dir={run}", "--model_file=other.keras", "--dataset=birds"]) == 0
    assert calls[2][1].dataset == "birds" and calls[2][1].epochs == 3
    assert calls[3][2] == pathlib.Path("other.keras")


def test_a_file_can_be_evaluated_without_a_run(calls):
    assert main(["evaluate", "--model_file=other.keras", "--dataset=birds", "--task=segmentation"]) == 0
    assert calls[1] == ("task", "segmentation") and calls[2][2:] == ("eval", ())


def test_a_run_or_a_file_is_required(calls, capsys):
    assert main(["evaluate"]) == 2
    assert capsys.readouterr().err == "keras-bot: --run_dir or --model_file is required.\n" and calls == []


def test_an_interrupted_run_is_reported(run, calls, capsys):
    (run / "metrics.json").unlink()
    assert main(["evaluate", f"--run_dir={run}"]) == 2
    assert "is not a run directory: it contains no metrics.json" in capsys.readouterr().err
