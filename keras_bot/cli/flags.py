"""Recipe fields as absl flags, and flagfiles that may include others by relative path.

Each command parses into its own FlagValues, so that it has no flags of other libraries and changes no global state.
"""

import dataclasses
import difflib
import os
import pathlib
import re
import sys
import textwrap

from absl import flags as absl_flags

from keras_bot.errors import MisuseError
from keras_bot.paths import is_utf8
from keras_bot.recipe import RENAMED, Recipe

_DEFINE = {
    str: absl_flags.DEFINE_string,
    int: absl_flags.DEFINE_integer,
    float: absl_flags.DEFINE_float,
    bool: absl_flags.DEFINE_bool,
    float | None: absl_flags.DEFINE_float,
    tuple[int, ...]: absl_flags.DEFINE_list,
}
_KINDS = {"int": "a whole number", "float": "a number", "bool": "true or false"}


class Flags:
    """Flags of one command: its own, and optionally the recipe's.

    Args:
        command: name of the command, for messages.
        usage: first line of the help.
        recipe: whether the recipe's fields are flags of this command.
    """

    def __init__(self, command: str, usage: str, *, recipe: bool = False):
        self.command = command
        self.usage = usage
        self._values = absl_flags.FlagValues()
        self._sections: list[tuple[str, list[str]]] = [("Options", [])]
        self._has_recipe = recipe
        if recipe:
            for field in dataclasses.fields(Recipe):
                if field.metadata["section"]:
                    self._sections.append((field.metadata["section"], []))
                self._define(field.type, field.name, field.default, field.metadata["help"], self._sections[-1][1])
        self.add(bool, "help", False, "show this help")

    def add(self, kind: type, name: str, default, help: str):
        """Defines a flag that belongs to the command itself."""
        self._define(kind, name, default, help, self._sections[0][1])

    def _define(self, kind, name, default, help, section):
        default = [str(item) for item in default] if isinstance(default, tuple) else default
        _DEFINE[kind](name, default, help, flag_values=self._values)
        section.append(name)

    def parse(self, argv: list[str]) -> list[str]:
        """Parses the arguments after the command's name; returns those that are not flags.

        Raises:
            MisuseError: if a flag is unknown, a value has the wrong type, or a flagfile cannot be read.
        """
        argv = ["--help" if argument == "-h" else _expand_home(argument) for argument in expand_flagfiles(argv)]
        if self._has_recipe:
            argv = [_with_current_name(argument) for argument in argv]
        try:
            return self._values([self.command, *argv])[1:]
        except absl_flags.UnrecognizedFlagError as error:
            near = difflib.get_close_matches(error.flagname, list(self._values), n=3)
            hint = f"Did you mean {' or '.join('--' + name for name in near)}? " if near else ""
            raise MisuseError(
                f"Unknown flag --{error.flagname}. {hint}`keras-bot {self.command} --help` lists the flags."
            ) from None
        except absl_flags.IllegalFlagValueError as error:
            name, value = re.match(r"flag --(\w+)=(.*?): ", f"{error}: ", re.DOTALL).groups()
            kind = _KINDS.get(self._values[name].flag_type(), "another value")
            raise MisuseError(
                f"Expected --{name} as {kind}, received {value!r}. `keras-bot {self.command} --help` tells more."
            ) from None
        except (absl_flags.Error, ValueError) as error:  # absl raises ValueError for --noflip=1
            raise MisuseError(f"{error}. `keras-bot {self.command} --help` tells what a flag takes.") from None

    def __getattr__(self, name):
        return getattr(self._values, name)

    def expect_no_arguments(self, argv: list[str]):
        """Parses arguments that must all be flags. Raises MisuseError otherwise."""
        rest = self.parse(argv)
        if rest:
            raise MisuseError(f"Expected flags as --name=value, received {rest[0]!r}. {self.usage}")

    def help_wanted(self) -> bool:
        """Prints the help if --help was given, and returns whether it was."""
        if self._values["help"].value:
            print(self.help())
        return self._values["help"].value

    def given_recipe(self) -> list[str]:
        """Returns the recipe flags that were given, as arguments for another `parse`."""
        given = (self._values[field.name] for field in dataclasses.fields(Recipe))
        return [flag.serialize() for flag in given if flag.present]

    def given_names(self) -> set[str]:
        """Returns the names of the recipe flags that were given."""
        return {field.name for field in dataclasses.fields(Recipe) if self._values[field.name].present}

    def recipe(self) -> Recipe:
        """Builds the recipe from the flags. Raises MisuseError if it is invalid."""
        values = {field.name: self._values[field.name].value for field in dataclasses.fields(Recipe)}
        try:
            values["decay_epochs"] = tuple(int(epoch) for epoch in values["decay_epochs"])
        except ValueError:
            raise MisuseError(
                f"Expected --decay_epochs as whole numbers with commas, received {','.join(values['decay_epochs'])!r}."
            ) from None
        return Recipe(**values)

    def help(self) -> str:
        """Returns the command's help text, by section."""
        lines = [self.usage]
        for title, names in self._sections:
            lines += ["", f"{title}:"]
            for name in names:
                flag = self._values[name]
                default = (
                    ""
                    if flag.default in (None, "") or flag.default is False
                    else f" [{flag.default_as_str.strip(chr(39))}]"
                )
                lines += textwrap.wrap(
                    f"--{name:<21} {flag.help}{default}", 110, initial_indent="  ", subsequent_indent=" " * 26
                )
        if self._has_recipe:
            lines += ["", "--flagfile=FILE reads flags from a file; a later flag wins over an earlier one."]
        return "\n".join(lines)


def check_writable(recipe: Recipe, **others: str):
    """Raises MisuseError if run.flags cannot store a recipe value, or a path in `others` is not UTF-8."""
    values = {field.name: getattr(recipe, field.name) for field in dataclasses.fields(Recipe)}
    texts = {name: value for name, value in (values | others).items() if isinstance(value, str)}
    for name, text in texts.items():
        if not is_utf8(text):
            raise MisuseError(f"--{name}={text!r} is not valid UTF-8. Rename the file or folder.")
        if name in values and len(text.splitlines()) > 1:
            raise MisuseError(f"--{name}={text!r} has a line break, which run.flags cannot hold. Rename it.")
        if name in values and text != text.rstrip():
            raise MisuseError(f"--{name}={text!r} ends with a blank, which run.flags cannot hold. Rename it.")


def _with_current_name(argument):
    """Replaces a flag's old name by its new one and prints a line about it to stderr."""
    old, equals, value = argument.lstrip("-").partition("=")
    if not argument.startswith("-") or old not in RENAMED:
        return argument
    print(f"keras-bot: --{old} is now --{RENAMED[old]}. The old name will be removed.", file=sys.stderr)
    return f"--{RENAMED[old]}{equals}{value}"


def _expand_home(argument):
    """Expands `~` in a flag's value: the shell does not expand it after the =."""
    name, equals, value = argument.partition("=")
    return f"{name}={os.path.expanduser(value)}" if equals and name.startswith("-") else argument


def expand_flagfiles(argv: list[str], *, folder: pathlib.Path | None = None, chain: tuple = ()) -> list[str]:
    """Replaces every `--flagfile=FILE` with the lines of the file.

    FILE is relative to the current directory. Inside a flagfile, the folder of that flagfile is tried first. Blank
    lines and lines that begin with # or // are skipped.

    Raises:
        MisuseError: if a file cannot be read or includes itself.
    """
    expanded, rest = [], list(argv)
    while rest:
        argument = rest.pop(0)
        if argument == "--":
            return [*expanded, argument, *rest]
        name, has_value, value = argument.partition("=")
        if name not in ("--flagfile", "-flagfile"):
            expanded.append(argument)
            continue
        if not has_value:
            if not rest:
                raise MisuseError("Expected a file after --flagfile, received nothing.")
            value = rest.pop(0)
        path = _find(value, folder)
        if path in chain:
            raise MisuseError(f"Flagfile {path} includes itself. Take its --flagfile line out.")
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            named = f", named in {chain[-1]}" if chain else ""
            raise MisuseError(f"Can't read the flagfile {value}{named}: {_reason(error)}.") from None
        lines = [line.strip() for line in text.splitlines()]
        lines = [line for line in lines if line and not line.startswith(("#", "//"))]
        expanded += expand_flagfiles(lines, folder=path.parent, chain=(*chain, path))
    return expanded


def _find(value, folder):
    beside = folder / value if folder else None
    return (beside if beside and beside.exists() else pathlib.Path(value).expanduser()).resolve()


def _reason(error):
    return error.strerror or str(error) if isinstance(error, OSError) else "it is no text"


def read_recipe(run_dir: pathlib.Path, overrides: list[str] = ()) -> Recipe:
    """Returns the recipe of a run directory, with `overrides` applied. Raises MisuseError if there is none."""
    path = pathlib.Path(run_dir) / "run.flags"
    if not path.exists():
        runs = sorted(path.parent.glob("*/seed*/run.flags"))
        hint = f"Name one of its runs, as {runs[0].parent}." if runs else "`keras-bot train` makes one."
        raise MisuseError(f"Expected a run directory with run.flags, received {run_dir}. {hint}")
    lines = expand_flagfiles([f"--flagfile={path}"])
    try:
        if not lines:
            raise MisuseError("Expected the flags of a run, received none.")
        flags = Flags("train", "", recipe=True)
        flags.expect_no_arguments(lines)
        flags.recipe()
    except MisuseError as error:
        raise MisuseError(f"{path} isn't as a run left it: {error}") from None
    flags = Flags("train", "", recipe=True)
    flags.expect_no_arguments([*lines, *overrides])
    return flags.recipe()
