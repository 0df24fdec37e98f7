"""Helpers for Matplotlib figures. Class, run and file names are drawn as plain text, never as mathtext."""

import contextlib
import os
import sys
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 40  # maximum number of characters of a name in a figure


def new_figure(width: float, height: float) -> "Figure":
    """Returns an empty Matplotlib figure of a size in inches, independent of pyplot's global state."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def style_panel(panel: "Axes", *, grid: Literal["both", "x", "y"] = "both", whole_x: bool = False) -> None:
    """Draws a light grid along `grid` (x, y or both) and hides the top and right border.

    With `whole_x`, the x axis has ticks at integers only, even if it covers just one.
    """
    panel.grid(axis=grid, alpha=0.3)
    panel.spines[["top", "right"]].set_visible(False)
    if whole_x:
        panel.locator_params(axis="x", integer=True, min_n_ticks=1)


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

    plain = matplotlib.rc_context(
        {"text.parse_math": False, "text.usetex": False, "axes.formatter.use_mathtext": False}
    )
    with plain, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        yield


@contextlib.contextmanager
def optional_picture(path: str | os.PathLike) -> Iterator[None]:
    """Prints a warning instead of raising if a figure that no result depends on can't be drawn or written."""
    try:
        yield
    except Exception as error:
        reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        message = f"cannot create {path}: {reason}. All other files are complete."
        print(f"keras-bot: warning: {message}", file=sys.stderr, flush=True)
