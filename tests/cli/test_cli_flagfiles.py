"""Flagfiles are replaced by their lines, nested ones too; each mistake is reported with the file's name."""

import re

import pytest

from keras_bot.cli.flagfiles import expand_flagfiles
from keras_bot.errors import MisuseError


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "base.flags").write_text("# a comment\n\n  --epochs=3  \n// another\n--set=a=b # kept\n")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "child.flags").write_text("--flagfile=../base.flags\n--seed=1\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("argv", "expanded"),
    [
        ([], []),
        (["--a", "b"], ["--a", "b"]),
        (["--flagfile=base.flags"], ["--epochs=3", "--set=a=b # kept"]),
        (["-flagfile=base.flags"], ["--epochs=3", "--set=a=b # kept"]),
        (["--flagfile", "base.flags", "-x"], ["--epochs=3", "--set=a=b # kept", "-x"]),
        (
            ["--x", "--flagfile=sub/child.flags", "--seed=2"],
            ["--x", "--epochs=3", "--set=a=b # kept", "--seed=1", "--seed=2"],
        ),
        (["--flagfiles=base.flags"], ["--flagfiles=base.flags"]),
        (["a", "--", "--flagfile=base.flags"], ["a", "--", "--flagfile=base.flags"]),
    ],
)
def test_lines_replace_the_flag(argv, expanded, folder):
    before = list(argv)
    assert expand_flagfiles(argv) == expanded and argv == before


def test_a_nested_file_is_first_looked_for_in_its_own_folder(folder):
    (folder / "sub" / "base.flags").write_text("--own=1")
    (folder / "sub" / "child.flags").write_text("--flagfile=base.flags")
    assert expand_flagfiles(["--flagfile=sub/child.flags"]) == ["--own=1"]
    (folder / "sub" / "base.flags").unlink()
    assert expand_flagfiles(["--flagfile=sub/child.flags"])[0] == "--epochs=3"


def test_a_file_may_be_included_twice(folder):
    assert len(expand_flagfiles(["--flagfile=base.flags", "--flagfile=base.flags"])) == 4


def test_a_tilde_is_the_home_directory(folder, monkeypatch):
    monkeypatch.setenv("HOME", str(folder / "sub"))
    assert expand_flagfiles(["--flagfile=~/child.flags"])[-1] == "--seed=1"


@pytest.mark.parametrize(
    ("first_line", "flag"),
    [("# keras_bot 0.1.0: keras-bot train", "--accumulation_steps=2"), ("# Recipe", "--accumulate=2")],
)
def test_only_a_runs_flags_have_old_names_replaced(first_line, flag, folder):
    (folder / "run.flags").write_text(f"{first_line}\n--accumulate=2\n--clip_norm\n--epochs=3\n")
    found = expand_flagfiles(["--flagfile=run.flags"])
    assert found[0] == flag and found[-1] == "--epochs=3"
    assert found[1] == ("--global_clipnorm" if "keras_bot" in first_line else "--clip_norm")


def test_a_flag_without_a_file(folder):
    with pytest.raises(MisuseError, match=r"^--flagfile needs the path of a file\.$"):
        expand_flagfiles(["--flagfile"])


def test_a_missing_file(folder):
    with pytest.raises(MisuseError, match=r"^Cannot read the flagfile none\.flags: No such file or directory\.$"):
        expand_flagfiles(["--flagfile=none.flags"])


def test_a_missing_nested_file_names_the_file_that_includes_it(folder):
    (folder / "base.flags").write_text("--flagfile=none.flags")
    parent = folder.resolve() / "base.flags"
    message = f"Cannot read the flagfile none.flags, included by {parent}: No such file or directory."
    with pytest.raises(MisuseError, match=f"^{re.escape(message)}$"):
        expand_flagfiles(["--flagfile=sub/child.flags"])


def test_a_binary_file(folder):
    (folder / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(MisuseError, match=r"^Cannot read the flagfile binary: it is not a text file\.$"):
        expand_flagfiles(["--flagfile=binary"])


def test_a_file_that_includes_itself_through_another(folder):
    (folder / "base.flags").write_text("--flagfile=sub/child.flags")
    child = folder.resolve() / "sub" / "child.flags"
    with pytest.raises(
        MisuseError, match=f"^{re.escape(f'Flagfile {child} includes itself. Remove its --flagfile line.')}$"
    ):
        expand_flagfiles(["--flagfile=sub/child.flags"])
