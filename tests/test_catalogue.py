"""One trick: one file with its card, one recipe field, one switch, one test, one flagfile."""

import ast
import dataclasses
import pathlib

import pytest

from keras_bot.recipe import Recipe

ROOT = pathlib.Path(__file__).parents[1]
FIELD = {  # file in tricks/ -> the recipe's field that switches it on
    "lr_scaling": "linear_scaling",
    "warmup": "warmup_epochs",
    "decay": "schedule",
    "nag": "weight_decay",
    "no_bias_decay": "no_bias_decay",
    "zero_gamma": "zero_gamma",
    "precision": "precision",
    "loss_scaling": "precision",
    "label_smoothing": "label_smoothing",
    "distillation": "teacher",
    "mixup": "mixup_alpha",
}
NO_TRICK = {"__init__", "callbacks", "labels"}
CARD = ("What:", "Equation:", "Shapes and dtypes:", "The paper's value:", "Interactions:", "Reference:")


def test_every_trick_is_in_the_catalogue():
    assert {path.stem for path in (ROOT / "keras_bot/tricks").glob("*.py")} - NO_TRICK == set(FIELD)


@pytest.mark.parametrize("trick", FIELD)
def test_a_trick_has_its_card(trick):
    card = ast.get_docstring(ast.parse((ROOT / f"keras_bot/tricks/{trick}.py").read_text()))
    missing = [heading for heading in CARD if f"\n{heading}" not in card]
    assert not missing, f"the card lacks {missing}"


@pytest.mark.parametrize(("trick", "field"), FIELD.items())
def test_a_trick_has_a_knob_a_switch_a_test_and_a_flagfile(trick, field):
    assert field in {knob.name for knob in dataclasses.fields(Recipe)}
    switches = (ROOT / "keras_bot/training/assemble.py", ROOT / "keras_bot/trainer.py")
    assert any(f"recipe.{field}" in path.read_text() for path in switches)
    assert (ROOT / f"tests/tricks/test_{trick}.py").exists()
    assert any(f"--{field}" in path.read_text() for path in (ROOT / "flags").rglob("*.flags"))
