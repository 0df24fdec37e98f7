"""Flagfiles: files with one flag per line, which may include others by relative path."""

import pathlib
import re

from keras_bot.errors import MisuseError
from keras_bot.recipe import RENAMED

_RUN_HEADER = re.compile(r"# keras_bot \d")  # first line of a run.flags written by `keras-bot train`


def expand_flagfiles(
    argv: list[str], *, folder: pathlib.Path | None = None, chain: tuple[pathlib.Path, ...] = ()
) -> list[str]:
    """Replaces every `--flagfile=FILE` with the lines of the file.

    FILE is relative to the current directory. Inside a flagfile, the folder of that flagfile is tried first. Blank
    lines and lines that begin with # or // are skipped. In a run.flags of an earlier version, renamed flags are
    replaced by the current ones.

    Raises:
        MisuseError: if a file cannot be read or includes itself.
    """
    expanded: list[str] = []
    rest = list(argv)
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
                raise MisuseError("--flagfile needs the path of a file.")
            value = rest.pop(0)
        path = _find(value, folder)
        if path in chain:
            raise MisuseError(f"Flagfile {path} includes itself. Remove its --flagfile line.")
        expanded += expand_flagfiles(_read_lines(value, path, chain), folder=path.parent, chain=(*chain, path))
    return expanded


def _find(value, folder):
    """Returns the path of a flagfile, relative to `folder` if it exists there, else to the current directory."""
    nested = folder / value if folder else None
    return (nested if nested and nested.exists() else pathlib.Path(value).expanduser()).resolve()


def _read_lines(value, path, chain):
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror or str(error) if isinstance(error, OSError) else "it is not a text file"
        source = f", included by {chain[-1]}" if chain else ""
        raise MisuseError(f"Cannot read the flagfile {value}{source}: {reason}.") from None
    lines = [line.strip() for line in text.splitlines()]
    lines = [line for line in lines if line and not line.startswith(("#", "//"))]
    return [_with_current_name(line) for line in lines] if _RUN_HEADER.match(text) else lines


def _with_current_name(line):
    old, equals, value = line.removeprefix("--").partition("=")
    return f"--{RENAMED[old]}{equals}{value}" if old in RENAMED else line
