"""Recipes as text: reading run.flags and metrics.json, also of earlier versions, and comparing with a recipe."""

import os
from collections.abc import Iterable, Sequence

from keras_bot.recipe import RENAMED, Recipe

PATHS = ("dataset", "data_dir", "teacher", "teacher_cache", "init_from")  # fields that may contain a path


def read_flag_lines(text: str) -> dict[str, str]:
    """Parses the output of `Recipe.flag_lines` into the form of `Recipe.as_text`, ignoring other lines."""
    lines = (line[2:].partition("=") for line in text.splitlines() if line.startswith("--"))
    return with_current_names({name: value for name, _, value in lines})


def with_current_names(stored: dict[str, str]) -> dict[str, str]:
    """Replaces field names of an earlier version in stored values by the current ones."""
    return {RENAMED.get(name, name): value for name, value in stored.items()}


def current_names(names: Iterable[str]) -> tuple[str, ...]:
    """Replaces field names of an earlier version by the current ones."""
    return tuple(RENAMED.get(name, name) for name in names)


def differences(stored: dict[str, str], recipe: Recipe, ignored: Sequence[str] = ()) -> list[str]:
    """Lists the fields whose stored value differs from `recipe`, one line per field.

    Args:
        stored: result of `Recipe.as_text`. A missing field was added later and is assumed to have its default.
        recipe: the recipe to compare with.
        ignored: fields that may differ.
    """
    stored, wanted = {**Recipe().as_text(), **with_current_names(stored)}, recipe.as_text()
    return [
        f"{name} was {stored.get(name, 'unset')}, is {wanted.get(name, 'unset')}"
        for name in {**wanted, **stored}
        if name not in ignored and not _same(name, stored.get(name), wanted.get(name))
    ]


def _same(name, one, other):
    """Returns whether two values of a field are equal, or are paths to the same place, such as photos/ and photos."""
    if one == other or name not in PATHS or not one or not other:
        return one == other
    absolute = [[os.path.abspath(os.path.expanduser(part)) for part in text.split("+")] for text in (one, other)]
    return absolute[0] == absolute[1]


def tidy_paths(values: dict[str, str]) -> dict[str, str]:
    """Normalises the paths among field values, so that workers may spell the same path differently."""
    return {name: os.path.normpath(value) if name in PATHS and value else value for name, value in values.items()}
