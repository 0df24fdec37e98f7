"""Paths that TensorFlow cannot open are recognised and replaced by a link while loading."""

import os
import pathlib

import pytest

from keras_bot.paths import is_pattern, is_utf8, loadable


@pytest.mark.parametrize(
    ("path", "pattern"),
    [("run", False), ("a[0]", True), ("a]", False), ("a\\b", True), ("a*?{b}", False), ("a[/b", True)],
)
def test_brackets_and_backslashes_are_patterns(path, pattern):
    assert is_pattern(path) is pattern and is_pattern(pathlib.Path(path)) is pattern


def test_the_current_directory_counts(tmp_path, monkeypatch):
    (tmp_path / "a[0]").mkdir()
    monkeypatch.chdir(tmp_path / "a[0]")
    assert is_pattern("run")


@pytest.mark.parametrize(("path", "utf8"), [("größe", True), ("a\udcff", False)])
def test_undecodable_names_are_not_utf8(path, utf8):
    assert is_utf8(path) is utf8 and is_utf8(pathlib.Path(path)) is utf8


@pytest.mark.parametrize("as_type", [str, pathlib.Path])
def test_an_ordinary_path_is_used_as_it_is(as_type, tmp_path, monkeypatch):
    (tmp_path / "plain").mkdir()
    monkeypatch.chdir(tmp_path / "plain")
    with loadable(as_type("run")) as folder:
        assert folder == "run"


@pytest.mark.parametrize("name", ["a[0]", "a\udcff", "a\\b"])
def test_another_path_is_linked_while_it_is_needed(name, tmp_path, monkeypatch):
    (tmp_path / name).mkdir()
    (tmp_path / name / "saved_model.pb").write_text("graph")
    monkeypatch.chdir(tmp_path)
    with loadable(name) as folder:
        assert not is_pattern(folder) and is_utf8(folder) and os.path.islink(folder)
        assert pathlib.Path(folder, "saved_model.pb").read_text() == "graph"
    assert not os.path.lexists(folder) and not os.path.exists(os.path.dirname(folder))
    assert (tmp_path / name / "saved_model.pb").exists()
