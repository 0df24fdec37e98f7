"""Fields of a frozen dataclass with help, choices and bounds, and the validation of their values."""

import dataclasses
import math
from typing import Any

from keras_bot.errors import MisuseError


@dataclasses.dataclass(frozen=True)
class Bounds:
    """Range of a number; a bound of None does not apply."""

    at_least: float | None = None
    above: float | None = None
    at_most: float | None = None
    below: float | None = None

    def include(self, value: float) -> bool:
        """Returns whether a number is finite and in the range."""
        return (
            math.isfinite(value)
            and (self.at_least is None or value >= self.at_least)
            and (self.above is None or value > self.above)
            and (self.at_most is None or value <= self.at_most)
            and (self.below is None or value < self.below)
        )

    def as_words(self) -> str:
        """Returns the range for a message, such as "at least 0 and below 1"."""
        bounds = {name.replace("_", " "): bound for name, bound in dataclasses.asdict(self).items()}
        return " and ".join(f"{name} {_number(bound)}" for name, bound in bounds.items() if bound is not None)

    def as_symbols(self) -> str:
        """Returns the range for the help, such as ">=0, <1"."""
        bounds = {">=": self.at_least, ">": self.above, "<=": self.at_most, "<": self.below}
        return ", ".join(f"{symbol}{_number(bound)}" for symbol, bound in bounds.items() if bound is not None)


def setting(
    default: Any,
    help: str,
    *,
    section: str | None = None,
    choices: tuple[str, ...] | None = None,
    tasks: tuple[str, ...] | None = None,
    advanced: bool = False,
    **bounds: float,
) -> Any:
    """Creates a dataclass field with metadata.

    Args:
        default: default value.
        help: one phrase for `--help`.
        section: starts a new section of the help with this title.
        choices: valid values; None allows any.
        tasks: tasks that use the field; None is all. The help of other tasks leaves the field out.
        advanced: whether most users keep the default. Only `--help=all` lists the field.
        bounds: see `Bounds`.
    """
    metadata = {"help": help, "section": section, "choices": choices, "tasks": tasks, "advanced": advanced}
    return dataclasses.field(default=default, metadata={**metadata, "bounds": Bounds(**bounds)})


def convert(field: dataclasses.Field, value: Any) -> Any:
    """Converts equivalent types to the field's own: an int to float, a list to a tuple, NumPy scalars to Python's."""
    if isinstance(value, list | tuple):
        return tuple(_as_python(item) for item in value)
    value = _as_python(value)
    if field.type in (float, float | None) and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    return value


def _as_python(value):
    """Converts a NumPy scalar to a Python number; returns other values unchanged."""
    return value.item() if getattr(value, "shape", None) == () and hasattr(value, "item") else value


def check(field: dataclasses.Field, value: Any) -> None:
    """Raises MisuseError for a value of the wrong type, not in the choices or out of bounds."""
    expected: Any = tuple if field.type == tuple[int, ...] else field.type
    if not isinstance(value, expected) or (isinstance(value, bool) and expected is not bool):
        name = getattr(expected, "__name__", str(expected))
        raise MisuseError(f"{field.name} must be of type {name}, received {value!r}.")
    choices, bounds = field.metadata["choices"], field.metadata["bounds"]
    if choices and value not in choices:
        raise MisuseError(f"{field.name} must be one of {', '.join(filter(None, choices))}, received {value!r}.")
    if isinstance(value, int | float) and not isinstance(value, bool) and not bounds.include(value):
        wanted = filter(None, [bounds.as_words(), "" if math.isfinite(value) else "finite"])
        raise MisuseError(f"{field.name} must be {' and '.join(wanted)}, received {_number(value)}.")


def _number(value):
    return str(value) if isinstance(value, int) else f"{value:g}"


def as_text(value: Any) -> str:
    """Formats a value as a flag value: `true`, `30,60,90`, `0.1`."""
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
