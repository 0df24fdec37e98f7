"""Figure helpers that are safe for any class, run or file name: names are drawn as plain text, never as mathtext."""

import contextlib
import os
import sys
import warnings
from collections.abc import Iterator

WIDTH = 40  # maximum number of characters of a name in a figure


def label_text(name: str, width: int = WIDTH) -> str:
    """Returns a name as one printable line of at most `width` characters.

    Whitespace becomes a space, any other unprintable character (control characters, lone surrogates) `�`. The middle
    of a longer name is replaced by `…`.
    """
    text = "".join(" " if char.isspace() else char if char.isprintable() else "�" for char in name)
    if len(text) <= width:
        return text
    tail = (width - 1) // 2
    return f"{text[: width - 1 - tail]}…{text[-tail:]}"


@contextlib.contextmanager
def plain_text() -> Iterator[None]:
    """Draws `$`, `_`, `^` and `\\` literally and hides Matplotlib's warnings, such as those about missing glyphs.

    Wrap both drawing and `savefig`, since tick labels are only created by the latter. Also works as a decorator.
    """
    import matplotlib

    settings = {"text.parse_math": False, "text.usetex": False, "axes.formatter.use_mathtext": False}
    with matplotlib.rc_context(settings), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        yield


@contextlib.contextmanager
def optional_picture(path: str | os.PathLike) -> Iterator[None]:
    """Prints a warning instead of raising if a figure that no result depends on can't be drawn or written."""
    try:
        yield
    except Exception as error:
        reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        print(f"keras-bot: warning: no picture {path}: {reason}. All else is complete.", file=sys.stderr, flush=True)
