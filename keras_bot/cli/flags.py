"""Command-line flags: a command's own and the fields of the recipe, as absl flags.

Each command parses into its own FlagValues, so that it has no flags of other libraries and changes no global state.
"""

import difflib
import functools
import os
import pathlib
import re
import sys
from collections.abc import Callable, Collection, Sequence
from typing import Any

from absl import flags as absl_flags

from keras_bot.cli.flagfiles import expand_flagfiles
from keras_bot.cli.help import FIELDS, Help
from keras_bot.errors import MisuseError
from keras_bot.paths import is_utf8
from keras_bot.recipe import RENAMED, Recipe

_DEFINE: dict[Any, Callable] = {
    str: absl_flags.DEFINE_string,
    int: absl_flags.DEFINE_integer,
    float: absl_flags.DEFINE_float,
    bool: absl_flags.DEFINE_bool,
    float | None: absl_flags.DEFINE_float,
    tuple[int, ...]: absl_flags.DEFINE_list,
}
_KINDS = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "string enum": "`--help` or `--help=all`",  # the only flag of this type
}
_SHORT, _ALL = "true", "all"  # values of --help; absl passes "true" for a flag without a value


class Flags:
    """Flags of one command: its own, and optionally the recipe's.

    Args:
        command: name of the command, for messages.
        usage: the usage line, for messages and the help.
        examples: command lines for the start of the help.
        about: sentences of the help after the command's summary.
        recipe: whether the recipe's fields are flags of this command.
        effective_fields: recipe fields that have an effect on this command, None for all; see `Help`.
    """

    def __init__(
        self,
        command: str,
        usage: str,
        examples: Sequence[str] = (),
        *,
        about: str = "",
        recipe: bool = False,
        effective_fields: Collection[str] | None = None,
    ) -> None:
        self.command = command
        self.usage = usage
        self._help = Help(command, usage, examples, about, effective_fields)
        self._values = absl_flags.FlagValues()
        self._own_names: list[str] = []
        self._old_names: dict[str, str] = {}
        self._has_recipe = recipe
        for name, field in FIELDS.items() if recipe else ():
            self._define(field.type, name, field.default, field.metadata["help"])
        for old, name in RENAMED.items() if recipe else ():
            self._define_old_name(old, name)
        self._define_help()

    def _define_help(self):
        """Defines --help, which takes no value or "all"."""
        text = "show this help" + ("; --help=all lists all flags" if self._has_recipe else "")
        parser = absl_flags.EnumParser([_SHORT, _ALL])
        absl_flags.DEFINE(parser, "help", None, text, flag_values=self._values, boolean=True)
        self._own_names.append("help")

    def add(self, kind: type, name: str, default: Any, help: str, *, old_name: str | None = None) -> None:
        """Defines a flag of the command itself. `old_name`, its name in an earlier version, is accepted too."""
        self._define(kind, name, default, help)
        self._own_names.append(name)
        if old_name:
            self._define_old_name(old_name, name)

    def _define(self, kind, name, default, help):
        default = [str(item) for item in default] if isinstance(default, tuple) else default
        _DEFINE[kind](name, default, help, flag_values=self._values)

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
        """Prints the help if --help or --help=all was passed, and returns whether it was."""
        if self._values["help"].value:
            print(self.help())
        return bool(self._values["help"].value)

    def recipe_arguments(self) -> list[str]:
        """Returns the recipe flags that were passed, as arguments for another `parse`."""
        return [self._values[name].serialize() for name in FIELDS if self._values[name].present]

    def explicit_fields(self) -> set[str]:
        """Returns the names of the recipe fields whose flags were passed."""
        return {name for name in FIELDS if self._values[name].present}

    def recipe(self) -> Recipe:
        """Builds the recipe from the flags. Raises MisuseError if it is invalid."""
        values: dict[str, Any] = {name: self._values[name].value for name in FIELDS}
        try:
            values["decay_epochs"] = tuple(int(epoch) for epoch in values["decay_epochs"])
        except ValueError:
            epochs = ",".join(values["decay_epochs"])
            raise MisuseError(
                f"--decay_epochs must be whole numbers separated by commas, received {epochs!r}."
            ) from None
        return Recipe(**values)

    def help(self) -> str:
        """Returns the command's help, with the recipe fields of the task that `--task` selects."""
        task = self._values["task"].value if self._has_recipe else None
        return self._help.text(self._values, self._own_names, task=task, everything=self._values["help"].value == _ALL)


@functools.cache  # one line per name
def warn_renamed(old: str, new: str) -> None:
    """Prints to stderr that a flag has a new name."""
    print(f"keras-bot: {old} is now {new}. The old name will be removed.", file=sys.stderr)


def check_writable(recipe: Recipe, **others: str) -> None:
    """Raises MisuseError if run.flags cannot store a recipe value, or a path in `others` is not UTF-8."""
    texts = {name: getattr(recipe, name) for name in FIELDS} | others
    texts = {name: value for name, value in texts.items() if isinstance(value, str)}
    for name, text in texts.items():
        if not is_utf8(text):
            raise MisuseError(f"--{name}={text!r} is not valid UTF-8. Rename the file or folder.")
        if name in FIELDS and len(text.splitlines()) > 1:
            raise MisuseError(f"--{name}={text!r} has a line break, which run.flags cannot store. Rename it.")
        if name in FIELDS and text != text.rstrip():
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
