"""`train` and `finetune` pass recipe, directory and flags to the trainer, and print its result."""

import json
import re

import pytest

from keras_bot.cli.commands import finetune, train
from keras_bot.cli.main import main
from keras_bot.recipe import Recipe

FLAGS = ["--dataset=photos", "--epochs=3", "--schedule=cosine"]
RECIPE = Recipe(dataset="photos", epochs=3, schedule="cosine")


@pytest.fixture
def events(monkeypatch, tmp_path):
    """The calls of the backend, the trainer and the plan, in order, in a new current directory."""
    calls = []

    def run(recipe, run_dir, **options):
        calls.append(("train", recipe, run_dir, options))
        return {"top1": 0.5, "run_dir": run_dir}

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("keras_bot.trainer.train", run)
    monkeypatch.setattr("keras_bot.plan.plan", lambda recipe: calls.append(("plan", recipe)) or "the plan")
    for command in (train, finetune):
        monkeypatch.setattr(command, "start_backend", lambda: calls.append("backend"))
    return calls


@pytest.mark.parametrize(
    ("flags", "options"),
    [
        ([], {"resume": False, "overwrite": False}),
        (["--resume"], {"resume": True, "overwrite": False}),
        (["--overwrite"], {"resume": False, "overwrite": True}),
    ],
)
def test_the_recipe_is_trained_in_the_directory(flags, options, events, capsys):
    assert main(["train", *FLAGS, "--run_dir=runs/a", *flags]) == 0
    assert events == ["backend", ("train", RECIPE, "runs/a", options)]
    assert json.loads(capsys.readouterr().out) == {"top1": 0.5, "run_dir": "runs/a"}


def test_a_run_without_a_directory_is_named_by_model_and_time(events):
    assert main(["train", *FLAGS, "--model=resnet18_d"]) == 0
    assert re.fullmatch(r"runs/resnet18_d-\d{8}-\d{6}", events[1][2])


def test_workers_other_than_the_chief_print_nothing(events, capsys, monkeypatch):
    monkeypatch.setattr("keras_bot.trainer.train", lambda *_, **__: {"top1": 0.5})
    assert main(["train", *FLAGS, "--run_dir=runs/a"]) == 0
    assert capsys.readouterr().out == ""


def test_a_dry_run_prints_the_plan(events, capsys):
    assert main(["train", *FLAGS, "--dry_run"]) == 0
    assert events == ["backend", ("plan", RECIPE)] and capsys.readouterr().out == "the plan\n"


@pytest.mark.parametrize("flag", ["resume", "overwrite"])
@pytest.mark.parametrize("command", ["train", "finetune"])
def test_a_run_needs_a_directory_to_resume_or_overwrite(flag, command, events, capsys):
    assert main([command, *FLAGS, "--init_from=a.keras", f"--{flag}"]) == 2
    assert capsys.readouterr().err == f"keras-bot: --{flag} requires --run_dir.\n" and events == []


def test_a_bad_recipe_is_reported_before_the_backend_starts(events, capsys):
    assert main(["train", "--epochs=0"]) == 2
    assert "epochs must be at least 1, received 0" in capsys.readouterr().err and events == []


def test_fine_tuning_takes_the_settings_of_its_source(events, monkeypatch):
    def with_source_settings(recipe, explicit):
        events.append(("settings", recipe, explicit))
        return Recipe(model="resnet18_d")

    monkeypatch.setattr("keras_bot.training.finetune.with_source_settings", with_source_settings)
    assert main(["finetune", *FLAGS, "--init_from=a.keras"]) == 0
    recipe = Recipe(dataset="photos", epochs=3, schedule="cosine", init_from="a.keras")
    backend, settings, (_, trained, run_dir, _) = events
    assert backend == "backend" and settings[:2] == ("settings", recipe)
    assert settings[2] == {"dataset", "epochs", "schedule", "init_from"}
    assert trained == Recipe(model="resnet18_d") and run_dir.startswith("runs/finetune-")


def test_fine_tuning_needs_a_network(events, capsys):
    assert main(["finetune", *FLAGS]) == 2
    assert "--init_from is required: the network to fine-tune. usage: keras-bot finetune" in capsys.readouterr().err
    assert events == []
