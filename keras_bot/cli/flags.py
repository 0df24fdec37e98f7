"""Command-line flags: a command's own and the fields of the recipe, as absl flags.

Each command parses into its own FlagValues, so that it has no flags of other libraries and changes no global state.
"""

import dataclasses
import difflib
import functools
import os
import pathlib
import re
import sys
import textwrap
from collections.abc import Callable, Sequence
from typing import Any

from absl import flags as absl_flags

from keras_bot.cli.flagfiles import expand_flagfiles
from keras_bot.errors import MisuseError, unknown
from keras_bot.paths import is_utf8
from keras_bot.recipe import RENAMED, TASKS, Recipe

_DEFINE: dict[Any, Callable] = {
    str: absl_flags.DEFINE_string,
    int: absl_flags.DEFINE_integer,
    float: absl_flags.DEFINE_float,
    bool: absl_flags.DEFINE_bool,
    float | None: absl_flags.DEFINE_float,
    tuple[int, ...]: absl_flags.DEFINE_list,
}
_KINDS = {"int": "a whole number", "float": "a number", "bool": "true or false"}
_FIELDS = {field.name: field for field in dataclasses.fields(Recipe)}


class Flags:
    """Flags of one command: its own, and optionally the recipe's.

    Args:
        command: name of the command, for messages.
        usage: first line of the help.
        recipe: whether the recipe's fields are flags of this command.
    """

    def __init__(self, command: str, usage: str, *, recipe: bool = False) -> None:
        self.command = command
        self.usage = usage
        self._values = absl_flags.FlagValues()
        self._sections: list[tuple[str, list[str]]] = [("Options", [])]
        self._old_names: dict[str, str] = {}
        self._has_recipe = recipe
        for name, field in _FIELDS.items() if recipe else ():
            if field.metadata["section"]:
                self._sections.append((field.metadata["section"], []))
            self._define(field.type, name, field.default, field.metadata["help"], self._sections[-1][1])
        for old, name in RENAMED.items() if recipe else ():
            self._define_old_name(old, name)
        self.add(bool, "help", False, "show this help")

    def add(self, kind: type, name: str, default: Any, help: str, *, old_name: str | None = None) -> None:
        """Defines a flag of the command itself. `old_name`, its name in an earlier version, is accepted too."""
        self._define(kind, name, default, help, self._sections[0][1])
        if old_name:
            self._define_old_name(old_name, name)

    def _define(self, kind, name, default, help, section):
        default = [str(item) for item in default] if isinstance(default, tuple) else default
        _DEFINE[kind](name, default, help, flag_values=self._values)
        section.append(name)

    def _define_old_name(self, old, name):
        absl_flags.DEFINE_alias(old, name, flag_values=self._values)
        self._old_names[old] = name

    def parse(self, argv: list[str]) -> list[str]:
        """Parses the arguments after the command's name; returns those that are not flags.

        Raises:
            MisuseError: if a flag is unknown, a value has the wrong type, or a flagfile cannot be read.
        """
        argv = ["--help" if argument == "-h" else _expand_home(argument) for argument in expand_flagfiles(argv)]
        more = f"See `keras-bot {self.command} --help`."
        try:
            arguments = self._values([self.command, *argv])[1:]
        except absl_flags.UnrecognizedFlagError as error:
            names = [name for name in self._values if name not in self._old_names]
            near = difflib.get_close_matches(error.flagname, names, n=3)
            hint = f"Did you mean {' or '.join('--' + name for name in near)}? " if near else ""
            raise MisuseError(f"Unknown flag --{error.flagname}. {hint}{more}") from None
        except absl_flags.IllegalFlagValueError as error:
            match = re.match(r"flag --(\w+)=(.*?): ", f"{error}: ", re.DOTALL)
            if match is None:
                raise MisuseError(f"{error}. {more}") from None
            name, value = match.groups()
            kind = _KINDS.get(self._values[name].flag_type(), "another value")
            raise MisuseError(f"--{name} must be {kind}, received {value!r}. {more}") from None
        except (absl_flags.Error, ValueError) as error:  # absl raises ValueError for --noflip=1
            raise MisuseError(f"{error}. {more}") from None
        for old, name in self._old_names.items():
            if self._values[old].present:
                warn_renamed(f"--{old}", f"--{name}")
        return arguments

    def __getattr__(self, name: str) -> Any:
        return getattr(self._values, name)

    def parse_only_flags(self, argv: list[str]) -> None:
        """Parses arguments that must all be flags. Raises MisuseError otherwise."""
        arguments = self.parse(argv)
        if arguments:
            raise MisuseError(f"Unexpected argument {arguments[0]!r}. Write flags as --name=value. {self.usage}")

    def handle_help(self) -> bool:
        """Prints the help if --help was passed, and returns whether it was."""
        if self._values["help"].value:
            print(self.help())
        return bool(self._values["help"].value)

    def recipe_arguments(self) -> list[str]:
        """Returns the recipe flags that were passed, as arguments for another `parse`."""
        return [self._values[name].serialize() for name in _FIELDS if self._values[name].present]

    def explicit_fields(self) -> set[str]:
        """Returns the names of the recipe fields whose flags were passed."""
        return {name for name in _FIELDS if self._values[name].present}

    def recipe(self) -> Recipe:
        """Builds the recipe from the flags. Raises MisuseError if it is invalid."""
        values: dict[str, Any] = {name: self._values[name].value for name in _FIELDS}
        try:
            values["decay_epochs"] = tuple(int(epoch) for epoch in values["decay_epochs"])
        except ValueError:
            epochs = ",".join(values["decay_epochs"])
            raise MisuseError(
                f"--decay_epochs must be whole numbers separated by commas, received {epochs!r}."
            ) from None
        return Recipe(**values)

    def help(self) -> str:
        """Returns the command's help by section, with the recipe fields of the task that `--task` selects."""
        task = self._values["task"].value if self._has_recipe else None
        if task and task not in TASKS:
            raise unknown("task", task, TASKS)
        lines = [self.usage]
        for title, names in self._sections:
            flags = [line for name in names for line in self._describe(name, task)]
            lines += ["", f"{title}:", *flags] if flags else []
        if task:
            others = ", ".join(f"`--help --task={other}`" for other in TASKS if other != task)
            lines += ["", f"Flags for other tasks: {others}."]
            lines += ["--flagfile=FILE reads flags from a file, one per line. A later flag overrides an earlier one."]
            lines += ["Brackets contain the default and, for numbers, the range."]
        return "\n".join(lines)

    def _describe(self, name, task):
        """Returns the help lines of a flag; none if it is a recipe field that the task does not use."""
        flag, metadata = self._values[name], _FIELDS[name].metadata if self._has_recipe and name in _FIELDS else {}
        if task not in (metadata.get("tasks") or (task,)):
            return []
        facts: list[str] = (
            [] if flag.default in (None, "") or flag.default is False else [str(flag.default_as_str).strip("'")]
        )
        if metadata and metadata["bounds"].as_symbols():
            facts.append(metadata["bounds"].as_symbols())
        brackets = "; ".join(facts).replace(" ", "\xa0")  # keeps them on one line
        text = f"--{name:<21} {flag.help}" + (f" [{brackets}]" if brackets else "")
        lines = textwrap.wrap(text, 110, initial_indent="  ", subsequent_indent=" " * 26)
        return [line.replace("\xa0", " ") for line in lines]


@functools.cache  # one line per name
def warn_renamed(old: str, new: str) -> None:
    """Prints to stderr that a flag has a new name."""
    print(f"keras-bot: {old} is now {new}. The old name will be removed.", file=sys.stderr)


def check_writable(recipe: Recipe, **others: str) -> None:
    """Raises MisuseError if run.flags cannot store a recipe value, or a path in `others` is not UTF-8."""
    texts = {name: getattr(recipe, name) for name in _FIELDS} | others
    texts = {name: value for name, value in texts.items() if isinstance(value, str)}
    for name, text in texts.items():
        if not is_utf8(text):
            raise MisuseError(f"--{name}={text!r} is not valid UTF-8. Rename the file or folder.")
        if name in _FIELDS and len(text.splitlines()) > 1:
            raise MisuseError(f"--{name}={text!r} has a line break, which run.flags cannot store. Rename it.")
        if name in _FIELDS and text != text.rstrip():
            raise MisuseError(f"--{name}={text!r} ends with whitespace, which run.flags cannot store. Rename it.")


def _expand_home(argument):
    """Expands `~` in a flag's value: the shell does not expand it after the =."""
    name, equals, value = argument.partition("=")
    return f"{name}={os.path.expanduser(value)}" if equals and name.startswith("-") else argument


def read_recipe(run_dir: pathlib.Path, overrides: Sequence[str] = ()) -> Recipe:
    """Returns the recipe of a run directory, with `overrides` applied. Raises MisuseError if there is none."""
    path = pathlib.Path(run_dir) / "run.flags"
    if not path.exists():
        runs = sorted(path.parent.glob("*/seed*/run.flags"))
        hint = f"Pass one of its runs, such as {runs[0].parent}." if runs else "`keras-bot train` creates one."
        raise MisuseError(f"{run_dir} is not a run directory: it contains no run.flags. {hint}")
    lines = expand_flagfiles([f"--flagfile={path}"])
    try:
        if not lines:
            raise MisuseError("It contains no flags.")
        _parse_recipe(lines)
    except MisuseError as error:
        raise MisuseError(f"{path} was changed after training: {error}") from None
    return _parse_recipe([*lines, *overrides])


def _parse_recipe(argv):
    flags = Flags("train", "", recipe=True)
    flags.parse_only_flags(argv)
    return flags.recipe()
