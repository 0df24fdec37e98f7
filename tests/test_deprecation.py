"""Old names still work, with a DeprecationWarning at the caller's line that contains the new name."""

import warnings

import pytest

from keras_bot import deprecation
from keras_bot.deprecation import renamed_arguments, renamed_attributes, renamed_names, warn


class Thing:
    __getattr__ = renamed_attributes(old="new", older="new")

    @renamed_arguments(old="new", gone="kept")
    def __init__(self, first, new=1, *, kept=2):
        """Initialises."""
        self.first, self.new, self.kept = first, new, kept


def caught(function):
    """Returns the result of a function and its warnings."""
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        return function(), found


def test_an_old_name_in_a_module_is_found_in_its_new_place():
    getattribute = renamed_names("keras_bot.old", {"write": "keras_bot.atomic_files.write_atomically"})
    from keras_bot.atomic_files import write_atomically

    found, warned = caught(lambda: getattribute("write"))
    assert found is write_atomically and [w.category for w in warned] == [DeprecationWarning]
    assert str(warned[0].message) == (
        "keras_bot.old.write is now keras_bot.atomic_files.write_atomically; the old name will be removed."
    )
    assert warned[0].filename == __file__


def test_an_unknown_name_in_a_module_is_pythons_error():
    with pytest.raises(AttributeError, match=r"^module 'keras_bot\.old' has no attribute 'nothing'$"):
        renamed_names("keras_bot.old", {"write": "a.b"})("nothing")


@pytest.mark.parametrize(
    ("arguments", "values", "messages"),
    [
        ({"first": 0}, (0, 1, 2), []),
        ({"first": 0, "new": 5, "kept": 6}, (0, 5, 6), []),
        ({"first": 0, "old": 5}, (0, 5, 2), ["Thing(old=…) is now new; the old name will be removed."]),
        ({"first": 0, "gone": 6}, (0, 1, 6), ["Thing(gone=…) is now kept; the old name will be removed."]),
    ],
)
def test_an_old_argument_is_accepted(arguments, values, messages):
    thing, warned = caught(lambda: Thing(**arguments))
    assert (thing.first, thing.new, thing.kept) == values
    assert [str(w.message) for w in warned] == messages
    assert all(w.category is DeprecationWarning and w.filename == __file__ for w in warned)


def test_both_names_of_an_argument_are_an_error():
    message = r"^Thing received old and new: the same argument\. Drop old\.$"
    with pytest.warns(DeprecationWarning), pytest.raises(TypeError, match=message):
        Thing(0, new=1, old=1)


def test_the_constructor_keeps_its_name_and_docstring():
    assert Thing.__init__.__name__ == "__init__" and Thing.__init__.__doc__ == "Initialises."


def test_a_subclass_is_named_in_the_warning():
    class Other(Thing):
        pass

    assert str(caught(lambda: Other(0, old=1))[1][0].message).startswith("Other(old=…) is now new;")


@pytest.mark.parametrize("name", ["old", "older"])
def test_an_old_attribute_is_read(name):
    value, warned = caught(lambda: getattr(Thing(0, new=7), name))
    assert value == 7 and name not in dir(Thing(0))
    assert str(warned[0].message) == f"Thing.{name} is now new; the old name will be removed."
    assert warned[0].category is DeprecationWarning and warned[0].filename == __file__


def test_an_unknown_attribute_is_pythons_error():
    with pytest.raises(AttributeError, match=r"^'Thing' object has no attribute 'nothing'$"):
        _ = Thing(0).nothing


@pytest.mark.parametrize(("stacklevel", "is_here"), [({}, True), ({"stacklevel": 1}, False)])
def test_a_warning_points_at_the_callers_caller(stacklevel, is_here):
    namespace = {"warn": warn, "stacklevel": stacklevel}
    exec(compile("def function(): warn('x is now y', **stacklevel)", "library.py", "exec"), namespace)
    _, warned = caught(lambda: namespace["function"]())
    assert str(warned[0].message) == "x is now y; the old name will be removed."
    assert (warned[0].filename == __file__) is is_here and warned[0].filename != deprecation.__file__
