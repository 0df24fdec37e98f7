"""User-facing errors: one clear message and an exit code instead of a traceback."""

import difflib
import re
import unicodedata
from collections.abc import Iterable, Sequence

SHOWN = 5


class MisuseError(ValueError):
    """Invalid request of the user: a flag, a path or a data format. Exit code 2."""


class RunError(RuntimeError):
    """Failure of a valid run: corrupt data, a non-finite loss. Exit code 1."""


class Terminated(Exception):
    """SIGTERM received, after the run has saved its state. Exit code 143."""


def first_few(names: Sequence[str], count: int | None = None) -> str:
    """Returns the first `SHOWN` names, separated by commas, and how many more there are.

    Args:
        names: all names, or the first ones.
        count: total number of names; None is the length of `names`.
    """
    more = (len(names) if count is None else count) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")


def one_line(text: str) -> str:
    """Escapes line breaks, other control characters and lone surrogates, so that text fits on one line of output."""
    return "".join(repr(c)[1:-1] if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") else c for c in text)


def expect_at_least_one(**numbers: int) -> None:
    """Raises MisuseError for the first flag, passed as name=value, whose value is less than 1."""
    for name, value in numbers.items():
        if value < 1:
            raise MisuseError(f"--{name} must be at least 1, received {value}.")


def unknown(kind: str, name: str, names: Iterable[str]) -> MisuseError:
    """Returns the error for a name that is not in `names`; the message suggests similar ones.

    Args:
        kind: kind of name, such as "model".
        name: the name that the user passed.
        names: all valid names.
    """
    names = sorted(names)
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    hint = f"Did you mean {' or '.join(near)}?" if near else f"Known: {', '.join(names)}."
    return MisuseError(f"Unknown {kind} {name!r}. {hint}")


def first_line(error: Exception) -> str:
    """Returns the first line of a library's error message, up to 300 characters, without graph node names."""
    message = getattr(error, "message", None) or str(error)  # TensorFlow's errors have a message without its code
    message = re.sub(r"\{\{.*?\}\}", "", message)  # names of graph nodes
    message = message.replace("Graph execution error:", "").strip()
    return " ".join((message or type(error).__name__).splitlines()[0].split())[:300]
