"""Names, numbers and library errors are worded in one way."""

import pytest
import tensorflow as tf

from keras_bot.errors import (
    MisuseError,
    RunError,
    Terminated,
    expect_at_least_one,
    first_few,
    first_line,
    one_line,
    unknown,
)


@pytest.mark.parametrize(
    ("names", "count", "text"),
    [
        ([], None, ""),
        (["a"], None, "a"),
        (list("abcde"), None, "a, b, c, d, e"),
        (list("abcdef"), None, "a, b, c, d, e and 1 more"),
        (list("abc"), 3, "a, b, c"),
        (list("abcde"), 5, "a, b, c, d, e"),
        (list("abcdefg"), 100, "a, b, c, d, e and 95 more"),
    ],
)
def test_the_first_five_names_are_shown(names, count, text):
    assert first_few(names, count) == text


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("größe [0]", "größe [0]"),
        ("a\nb\tc", "a\\nb\\tc"),
        ("a\x1b[31m", "a\\x1b[31m"),
        ("a\u2028b\u2029c", "a\\u2028b\\u2029c"),
        ("a\udcff", "a\\udcff"),
        ("a\\b'c", "a\\b'c"),
    ],
)
def test_a_name_fits_on_one_line(text, line):
    assert one_line(text) == line


def test_the_first_number_below_one_is_refused():
    expect_at_least_one(seeds=1, workers=2)
    with pytest.raises(MisuseError, match=r"^--workers must be at least 1, received 0\.$"):
        expect_at_least_one(seeds=1, workers=0, images=-1)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet50", "Unknown model 'resnet50'. Did you mean resnet50_d or resnet50_a?"),
        ("zzz", "Unknown model 'zzz'. Known: inception, resnet50_a, resnet50_d."),
        ("inceptoin", "Unknown model 'inceptoin'. Did you mean inception?"),
    ],
)
def test_an_unknown_name_has_suggestions(name, message):
    error = unknown("model", name, iter(["resnet50_d", "resnet50_a", "inception"]))
    assert isinstance(error, MisuseError) and str(error) == message


def test_at_most_three_names_are_suggested():
    assert str(unknown("model", "net", ["net1", "net2", "net3", "net4"])).count(" or ") == 2


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("first\nsecond"), "first"),
        (ValueError("  spaced \t out  "), "spaced out"),
        (ValueError(""), "ValueError"),
        (ValueError("Graph execution error:\n\nDetected at node"), "Detected at node"),
        (ValueError("{{node a/b}} failed in {{node c}} now"), "failed in now"),
        (ValueError("x" * 400), "x" * 300),
        (KeyError("name"), "'name'"),
        (tf.errors.NotFoundError(None, None, "no file\nmore"), "no file"),
    ],
)
def test_the_first_line_of_a_librarys_error(error, line):
    assert first_line(error) == line


def test_the_kinds_of_errors():
    assert issubclass(MisuseError, ValueError) and issubclass(RunError, RuntimeError)
    assert not issubclass(Terminated, (ValueError, RuntimeError))
