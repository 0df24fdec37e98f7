"""What a user is told when something is wrong: one clear message and an exit code, never a traceback."""

import difflib
import unicodedata
from collections.abc import Iterable, Sequence

SHOWN = 5


class MisuseError(ValueError):
    """The user asked for something that cannot be: a bad flag, a bad path, data of another form. Exit code 2."""


class RunError(RuntimeError):
    """A run that was asked for properly failed: corrupt data, a loss that is not finite. Exit code 1."""


class Terminated(Exception):
    """The run was asked to end (SIGTERM) and has saved its state. Exit code 143."""


def first_few(names: Sequence[str], count: int | None = None) -> str:
    """The first `SHOWN` names with commas, and how many more there are.

    Args:
        names: all of them, or the first ones.
        count: of them all; None is the number of `names`.
    """
    more = (len(names) if count is None else count) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")


def one_line(text: str) -> str:
    """Text with line breaks, other control characters and halves of surrogate pairs escaped, for a line of output."""
    return "".join(repr(c)[1:-1] if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") else c for c in text)


def expect_at_least_one(**numbers: int):
    """Raises MisuseError for the first of the flags' values, given by name, that is less than 1."""
    for name, value in numbers.items():
        if value < 1:
            raise MisuseError(f"Expected --{name} of at least 1, received {value}.")


def unknown(kind: str, name: str, names: Iterable[str]) -> MisuseError:
    """The error for a name that is not among `names`; it suggests the nearest ones.

    Args:
        kind: what the name stands for, as in "model".
        name: what the user gave.
        names: every name that would have been right.
    """
    names = sorted(names)
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    hint = f"Did you mean {' or '.join(near)}?" if near else f"Known: {', '.join(names)}."
    return MisuseError(f"Unknown {kind} {name!r}. {hint}")
