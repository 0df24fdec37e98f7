"""Recipes are checked by another process, whose one line of JSON becomes facts or an error."""

import dataclasses
import io
import json
import os
import sys

import pytest

from keras_bot.ablation import validate
from keras_bot.ablation.rows import Row
from keras_bot.ablation.validate import TrainerInfo, check_recipes, plan_recipes, serve_check
from keras_bot.errors import MisuseError, RunError
from keras_bot.recipe import Recipe
from keras_bot.training.checkpoints.run_directory import MAY_DIFFER

ROWS = [Row("base", "a.flags", Recipe(epochs=7)), Row("cosine", "b.flags", Recipe(schedule="cosine"))]


def check(code):
    """Checks the rows with a process that runs this Python code, without TensorFlow."""
    return check_recipes(ROWS, [sys.executable, "-S", "-c", code])


def test_the_reply_is_the_last_line():
    reply = json.dumps({"metrics": ["top1"], "may_differ": ["jit_compile"]})
    assert check(f"print('library output'); print({reply!r})") == TrainerInfo(("top1",), ("jit_compile",))


def test_the_request_has_name_file_and_every_field_of_each_recipe():
    code = (
        "import json, sys; (a, b) = json.load(sys.stdin);"
        "print(json.dumps({'metrics': [*a[:2], *b[:2]], 'may_differ': [a[2]['epochs'], b[2]['schedule'], len(a[2])]}))"
    )
    fields = len(dataclasses.fields(Recipe))
    assert check(code) == TrainerInfo(("base", "a.flags", "cosine", "b.flags"), (7, "cosine", fields))


def test_a_recipe_that_cannot_be_trained_is_the_users_error():
    with pytest.raises(MisuseError, match=r"^a\.flags: too large$"):
        check('print(\'{"misuse": "a.flags: too large"}\')')


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("import sys; print('first\\nlast', file=sys.stderr); sys.exit(3)", "(exit code 3): last"),
        ("print('no json')", "(exit code 0): no json"),
        ("", "(exit code 0): no output"),
    ],
)
def test_a_check_that_fails_has_its_last_line(code, message):
    with pytest.raises(RunError) as raised:
        check(code)
    assert str(raised.value) == f"The recipe check failed {message}"


@pytest.fixture
def planned(monkeypatch):
    """The recipes that were planned, with their tasks."""
    calls = []

    def plan(recipe, task):
        if recipe.epochs == 13:
            raise MisuseError("too long")
        calls.append((recipe, task.name))

    monkeypatch.setattr("keras_bot.plan.plan", plan)
    return calls


def request(*recipes):
    return [[f"row{i}", f"{i}.flags", dataclasses.asdict(recipe)] for i, recipe in enumerate(recipes)]


def test_each_recipe_is_planned_for_its_task(planned):
    recipes = Recipe(epochs=7), Recipe(task="segmentation", decay_epochs=(3,))
    reply = plan_recipes(json.loads(json.dumps(request(*recipes))))  # lists instead of tuples
    assert planned == [(recipes[0], "classification"), (recipes[1], "segmentation")]
    assert reply == {"metrics": ("mean_iou", "pixel_accuracy"), "may_differ": MAY_DIFFER}


def test_the_first_bad_recipe_is_named(planned):
    with pytest.raises(MisuseError, match=r"^1\.flags \(row row1\): too long$"):
        plan_recipes(request(Recipe(), Recipe(epochs=13, schedule="cosine")))
    bad = [["row", "x.flags", {"epochs": 0}]]
    with pytest.raises(MisuseError, match=r"^x\.flags \(row row\): .*epochs"):
        plan_recipes(bad)


@pytest.mark.parametrize(
    ("recipe", "backend_error", "reply"),
    [
        (Recipe(), None, {"metrics": ["top1", "top5"], "may_differ": list(MAY_DIFFER)}),
        (Recipe(epochs=13, schedule="cosine"), None, {"misuse": "0.flags (row row0): too long"}),
        (Recipe(), MisuseError("no backend"), {"misuse": "no backend"}),
    ],
)
def test_the_process_replies_on_stdout_alone(recipe, backend_error, reply, planned, monkeypatch, capfd):
    def start_backend():
        os.write(1, b"library output\n")
        if backend_error:
            raise backend_error

    monkeypatch.setattr(validate.sys, "stdin", io.StringIO(json.dumps(request(recipe))))
    stdout = os.dup(1)
    try:
        serve_check(start_backend)
    finally:
        os.dup2(stdout, 1)
        os.close(stdout)
    out, err = capfd.readouterr()
    assert json.loads(out) == reply and "library output" in err
