"""Modules under their old names."""

import importlib
import subprocess
import sys

import pytest

from keras_bot.moved import MOVED


@pytest.mark.parametrize(("old", "new"), MOVED.items())
def test_an_old_module_name_gives_the_new_modules_names(old, new):
    new = importlib.import_module(f"keras_bot.{new}")
    sys.modules.pop(f"keras_bot.{old}", None)
    with pytest.warns(DeprecationWarning, match=f"keras_bot.{old} is now {new.__name__}"):
        old = importlib.import_module(f"keras_bot.{old}")
    shared = [name for name in vars(new) if not name.startswith("_")]
    assert shared
    assert all(getattr(old, name) is getattr(new, name) for name in shared)
    assert new.__spec__.name == new.__name__


@pytest.mark.thorough
def test_an_old_import_statement_works_in_a_new_process():
    code = "from keras_bot.transfer.backbone import load_backbone; print(load_backbone.__module__)"
    done = subprocess.run([sys.executable, "-W", "always", "-c", code], capture_output=True, encoding="utf-8")
    assert done.stdout.strip() == "keras_bot.tasks.backbone", done.stderr
    assert "keras_bot.transfer.backbone is now keras_bot.tasks.backbone" in done.stderr


def test_other_names_are_still_unknown():
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("keras_bot.transfer.nothing")
