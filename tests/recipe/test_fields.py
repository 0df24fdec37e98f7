"""A field's value is converted, checked and formatted; each invalid one is refused with its range."""

import dataclasses
import math
import re

import numpy as np
import pytest

from keras_bot.errors import MisuseError
from keras_bot.recipe.fields import Bounds, as_text, check, convert, setting


@dataclasses.dataclass
class Settings:
    count: int = setting(1, "a count", at_least=1, at_most=5)
    rate: float = setting(0.1, "a rate", above=0, below=1)
    share: float | None = setting(None, "a share", at_least=0, at_most=1)
    name: str = setting("a", "a name", choices=("", "a", "b"), section="Names", tasks=("detection",), advanced=True)
    flag: bool = setting(False, "a flag")
    epochs: tuple[int, ...] = setting((1, 2), "epochs")


FIELDS = {field.name: field for field in dataclasses.fields(Settings)}


def test_a_setting_has_its_metadata():
    assert Settings() == Settings(1, 0.1, None, "a", False, (1, 2))
    assert FIELDS["name"].metadata == {
        **{"help": "a name", "section": "Names", "choices": ("", "a", "b"), "tasks": ("detection",)},
        "advanced": True,
        "bounds": Bounds(),
    }
    assert FIELDS["count"].metadata["bounds"] == Bounds(at_least=1, at_most=5)
    assert not FIELDS["count"].metadata["advanced"]
    assert FIELDS["count"].metadata["section"] is FIELDS["count"].metadata["tasks"] is None


@pytest.mark.parametrize(
    ("bounds", "inside", "outside", "words", "symbols"),
    [
        (Bounds(), [-1e9, 0, 1e9], [math.inf, -math.inf, math.nan], "", ""),
        (Bounds(at_least=0), [0, 1], [-1e-9, math.inf], "at least 0", ">=0"),
        (Bounds(above=0), [1e-9], [0, math.nan], "above 0", ">0"),
        (Bounds(at_most=1.5), [1.5, -9], [1.6], "at most 1.5", "<=1.5"),
        (Bounds(below=1), [0.99], [1], "below 1", "<1"),
        (Bounds(at_least=0, below=1), [0, 0.5], [-0.1, 1], "at least 0 and below 1", ">=0, <1"),
        (
            Bounds(above=0, at_most=2**32 - 1),
            [2**32 - 1],
            [0, 2**32],
            "above 0 and at most 4294967295",
            ">0, <=4294967295",
        ),
    ],
)
def test_the_bounds_of_a_number(bounds, inside, outside, words, symbols):
    assert [value for value in [*inside, *outside] if bounds.include(value)] == inside
    assert bounds.as_words() == words and bounds.as_symbols() == symbols


@pytest.mark.parametrize(
    ("name", "value", "converted"),
    [
        ("rate", 1, 1.0),
        ("share", 1, 1.0),
        ("share", None, None),
        ("rate", True, True),  # refused later
        ("count", 1, 1),
        ("count", np.int32(2), 2),
        ("rate", np.float32(0.5), 0.5),
        ("rate", np.array(0.5), 0.5),
        ("epochs", [3, np.int64(4)], (3, 4)),
        ("name", "b", "b"),
    ],
)
def test_equivalent_types_are_converted(name, value, converted):
    found = convert(FIELDS[name], value)
    assert found == converted and type(found) is type(converted)
    assert all(type(item) is int for item in found) if name == "epochs" else True


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("count", 1),
        ("count", 5),
        ("rate", 0.5),
        ("share", None),
        ("share", 0.0),
        ("name", ""),
        ("flag", True),
        ("epochs", ()),
    ],
)
def test_a_valid_value_is_accepted(name, value):
    check(FIELDS[name], value)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("count", 0, "count must be at least 1 and at most 5, received 0."),
        ("count", 6, "count must be at least 1 and at most 5, received 6."),
        ("count", 1.0, "count must be of type int, received 1.0."),
        ("count", True, "count must be of type int, received True."),
        ("count", "1", "count must be of type int, received '1'."),
        ("rate", 0.0, "rate must be above 0 and below 1, received 0."),
        ("rate", math.nan, "rate must be above 0 and below 1 and finite, received nan."),
        ("rate", True, "rate must be of type float, received True."),
        ("share", 1.5, "share must be at least 0 and at most 1, received 1.5."),
        ("share", "a", "share must be of type float | None, received 'a'."),
        ("name", "c", "name must be one of a, b, received 'c'."),
        ("name", None, "name must be of type str, received None."),
        ("flag", 1, "flag must be of type bool, received 1."),
        ("epochs", 3, "epochs must be of type tuple, received 3."),
    ],
)
def test_an_invalid_value_is_refused(name, value, message):
    with pytest.raises(MisuseError, match=f"^{re.escape(message)}$"):
        check(FIELDS[name], value)


@pytest.mark.parametrize(
    ("value", "text"),
    [(True, "true"), (False, "false"), ((30, 60), "30,60"), ((), ""), (0.1, "0.1"), (1, "1"), ("a b", "a b")],
)
def test_a_value_as_text(value, text):
    assert as_text(value) == text
