"""What a user is told when something is wrong: one clear message and an exit code, never a traceback."""

import difflib
from collections.abc import Iterable


class MisuseError(ValueError):
    """The user asked for something that cannot be: a bad flag, a bad path, data of another form. Exit code 2."""


class RunError(RuntimeError):
    """A run that was asked for properly failed: corrupt data, a loss that is not finite. Exit code 1."""


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
