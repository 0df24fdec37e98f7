"""One trick: one row in the table of tricks, one file with its card, one recipe field, one test, one flagfile."""

import ast
import dataclasses
import pathlib
import re

import pytest

from keras_bot import tricks
from keras_bot.bag import TRICKS, active_tricks, all_settings, without
from keras_bot.cli.main import main
from keras_bot.recipe import Recipe

ROOT = pathlib.Path(__file__).parents[1]
MODULES = {module: trick for trick in TRICKS for module in trick.modules}
NO_TRICK = {"__init__", "callbacks", "labels", "logits"}
CARD = ("What:", "Equation:", "Shapes and dtypes:", "The paper's value:", "Interactions:", "Reference:")


def test_every_file_of_a_trick_is_in_the_table():
    files = {path.stem for path in (ROOT / "keras_bot/tricks").glob("*.py")}
    assert files - NO_TRICK == set(MODULES)
    assert len({trick.name for trick in TRICKS}) == len(TRICKS)


@pytest.mark.parametrize("module", MODULES)
def test_a_trick_has_its_card_and_its_test(module):
    card = ast.get_docstring(ast.parse((ROOT / f"keras_bot/tricks/{module}.py").read_text()))
    missing = [heading for heading in CARD if f"\n{heading}" not in card]
    assert not missing, f"the card lacks {missing}"
    assert (ROOT / f"tests/tricks/test_{module}.py").exists()


@pytest.mark.parametrize("trick", TRICKS, ids=lambda trick: trick.name)
def test_a_trick_has_a_field_a_use_a_flagfile_and_a_line_in_the_readme(trick):
    assert trick.field in {field.name for field in dataclasses.fields(Recipe)}
    uses = [*(ROOT / "keras_bot/training").rglob("*.py"), *(ROOT / "keras_bot/tasks").rglob("*.py")]
    uses.append(ROOT / "keras_bot/trainer.py")
    assert any(f"recipe.{trick.field}" in path.read_text() for path in uses)
    assert any(f"--{trick.field}" in path.read_text() for path in (ROOT / "flags").rglob("*.flags"))
    table = re.findall(r"^\|[^|]*\| ([\d.]+) \|([^|]*)\|", (ROOT / "README.md").read_text(), re.MULTILINE)
    flags = [flags for section, flags in table if section == trick.section]
    assert f"--{trick.field}" in " ".join(flags), f"README: no row with section {trick.section} and --{trick.field}"


@pytest.mark.parametrize("module", MODULES)
def test_a_tricks_public_names_are_exported_and_in_the_api_reference(module):
    tree = ast.parse((ROOT / f"keras_bot/tricks/{module}.py").read_text())
    kinds = ast.FunctionDef | ast.ClassDef
    names = {node.name for node in tree.body if isinstance(node, kinds) and not node.name.startswith("_")}
    exported = names & set(tricks.__all__)
    assert exported, f"keras_bot.tricks exports nothing of {module}"
    reference = (ROOT / "docs/api/tricks.md").read_text()
    assert [name for name in sorted(exported) if f"::: keras_bot.tricks.{module}.{name}\n" not in reference] == []


@pytest.mark.parametrize("trick", TRICKS, ids=lambda trick: trick.name)
def test_a_trick_is_in_the_guide_and_in_the_short_help(trick, capsys):
    for page in ("tricks", "recipes"):
        text = (ROOT / f"docs/{page}.md").read_text()
        assert f"--{trick.field}" in text or f"`{trick.field}`" in text, f"docs/{page}.md does not name {trick.field}"
    assert main(["train", "--help"]) == 0
    assert f"  --{trick.field} " in capsys.readouterr().out


def test_the_settings_switch_the_tricks_on_and_off_switches_them_off():
    plain = Recipe()
    bag = dataclasses.replace(plain, **all_settings())
    assert active_tricks(plain) == []
    names = [trick.name for trick in TRICKS if trick.settings]
    assert [trick.name for trick in TRICKS if trick.is_active(bag)] == names
    for name in names:
        bag = without(bag, name)
    assert bag == dataclasses.replace(plain, decay_epochs=bag.decay_epochs)
    assert without(plain, "mixup") is plain
