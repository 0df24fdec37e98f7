"""Text and pictures that no class, run or file name can break: names are drawn as plain text, never as mathtext."""

import contextlib
import os
import sys
import warnings
from collections.abc import Iterator

WIDTH = 40  # characters of a name in a picture


def label_text(name: str, width: int = WIDTH) -> str:
    """Returns a name as one line that every font library accepts, at most `width` characters long.

    White space becomes a space, any other unprintable character (control characters, halves of surrogate pairs) `�`.
    The middle of a longer name is replaced by `…`.
    """
    text = "".join(" " if char.isspace() else char if char.isprintable() else "�" for char in name)
    if len(text) <= width:
        return text
    tail = (width - 1) // 2
    return f"{text[: width - 1 - tail]}…{text[-tail:]}"


@contextlib.contextmanager
def plain_text() -> Iterator[None]:
    """Draws `$`, `_`, `^` and `\\` as they are, and hides Matplotlib's warnings, as of characters its font lacks.

    Use it around both drawing and `savefig`, since tick labels are only made then. It works as a decorator, too.
    """
    import matplotlib

    settings = {"text.parse_math": False, "text.usetex": False, "axes.formatter.use_mathtext": False}
    with matplotlib.rc_context(settings), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        yield


@contextlib.contextmanager
def optional_picture(path: str | os.PathLike) -> Iterator[None]:
    """Prints a warning instead of raising when a picture that no result depends on can't be drawn or written."""
    try:
        yield
    except Exception as error:
        reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        print(f"keras-bot: warning: no picture {path}: {reason}. All else is complete.", file=sys.stderr, flush=True)
