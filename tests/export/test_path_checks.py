"""A path to which an export cannot be written is refused with its reason."""

import re

import pytest

from keras_bot.errors import MisuseError
from keras_bot.export.path_checks import check_savedmodel_path, check_utf8


@pytest.mark.parametrize("overwrite", [True, False])
def test_a_new_path_is_accepted(overwrite, tmp_path):
    check_savedmodel_path(tmp_path / "größe", overwrite)
    check_utf8(tmp_path / "größe")


@pytest.mark.parametrize("check", [check_utf8, lambda path: check_savedmodel_path(path, True)])
def test_a_path_that_is_not_utf8(check, tmp_path):
    with pytest.raises(MisuseError, match=r"the path is not valid UTF-8\. Choose another --output_dir or --name\.$"):
        check(tmp_path / "a\udcff")


@pytest.mark.parametrize("name", ["a[0]", "a\\b"])
def test_a_path_that_tensorflow_reads_as_a_pattern(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    message = (
        f"Cannot export a SavedModel to {tmp_path / name}: TensorFlow could not load it, because [ and \\ in paths"
    )
    with pytest.raises(MisuseError, match=f"^{re.escape(message)}"):
        check_savedmodel_path((tmp_path / name).relative_to(tmp_path), True)


def test_only_a_savedmodel_is_overwritten_and_only_with_the_flag(tmp_path):
    with pytest.raises(MisuseError) as raised:
        check_savedmodel_path(tmp_path, overwrite=False)
    assert str(raised.value) == (
        f"{tmp_path} already exists. Choose another name, or replace it with --overwrite (overwrite=True)."
    )
    with pytest.raises(MisuseError) as raised:
        check_savedmodel_path(tmp_path, overwrite=True)
    assert str(raised.value) == f"{tmp_path} is not a SavedModel, so it is not overwritten. Choose another name."
    (tmp_path / "saved_model.pb").touch()
    check_savedmodel_path(tmp_path, overwrite=True)
    with pytest.raises(MisuseError, match="already exists"):
        check_savedmodel_path(tmp_path, overwrite=False)
