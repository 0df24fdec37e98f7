"""A file is replaced as a whole or not at all, synced before the rename, and leaves nothing behind on failure."""

import errno
import os

import pytest

from keras_bot import atomic_files
from keras_bot.atomic_files import is_partial, remove_partials, replacing, sync_folder, write_atomically
from keras_bot.errors import RunError


@pytest.fixture
def path(tmp_path):
    (tmp_path / "file.txt").write_text("old")
    return tmp_path / "file.txt"


def names(folder):
    return sorted(file.name for file in folder.iterdir())


def test_the_old_file_is_there_until_the_end(path):
    with replacing(path) as file:
        file.write(b"new")
        assert path.read_text() == "old"
        assert names(path.parent) == [f".file.txt.{os.getpid()}.part", "file.txt"]
    assert path.read_text() == "new" and names(path.parent) == ["file.txt"]


def test_a_text_path_works_and_a_new_file_is_created(tmp_path):
    with replacing(str(tmp_path / "new")) as file:
        file.write(b"content")
    assert (tmp_path / "new").read_bytes() == b"content"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_keeps_the_old_file(error, path):
    with pytest.raises(error), replacing(path) as file:
        file.write(b"half")
        raise error
    assert path.read_text() == "old" and names(path.parent) == ["file.txt"] and file.closed


def test_the_data_are_synced_before_the_rename_and_the_folder_after_it(path, monkeypatch):
    events = []
    fsync, replace = os.fsync, os.replace

    def record_fsync(descriptor):
        events.append("sync folder" if os.path.isdir(f"/proc/self/fd/{descriptor}") else "sync file")
        if events[-1] == "sync file":  # everything was flushed by then
            assert os.fstat(descriptor).st_size == 3
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", record_fsync)
    monkeypatch.setattr(os, "replace", lambda *arguments: events.append("rename") or replace(*arguments))
    with replacing(path) as file:
        file.write(b"new")
    assert events == ["sync file", "rename", "sync folder"]


def test_an_error_of_the_rename_deletes_the_temporary_file(path, monkeypatch):
    def fail(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(RunError) as raised:
        write_atomically(path, "new")
    assert str(raised.value) == f"Cannot write {path}: No space left on device."
    assert path.read_text() == "old" and names(path.parent) == ["file.txt"]


@pytest.mark.parametrize(
    ("content", "stored"),
    [(b"\x00\xff", b"\x00\xff"), ("größe", "größe".encode()), ("a\udcffb", b"a\\udcffb"), ("a\r\nb", b"a\r\nb")],
)
def test_text_is_utf8_with_surrogates_escaped_and_bytes_stay(content, stored, path):
    write_atomically(path, content)
    assert path.read_bytes() == stored


def test_a_missing_folder_is_the_users_error(tmp_path):
    path = tmp_path / "missing" / "file"
    with pytest.raises(RunError) as raised:
        write_atomically(path, "text")
    assert str(raised.value) == f"Cannot write {path}: No such file or directory."


@pytest.mark.parametrize(
    ("name", "partial"),
    [(".a.1.part", True), (".part", True), ("a.part", False), (".a.part.keras", False), (".lock", False), ("a", False)],
)
def test_the_names_of_partial_files(name, partial, tmp_path):
    assert is_partial(name) is partial
    (tmp_path / name).touch()
    remove_partials(tmp_path)
    assert (tmp_path / name).exists() is (not partial or name == ".part")


def test_a_temporary_file_has_the_name_of_a_partial_one(path):
    with replacing(path):
        assert [is_partial(name) for name in names(path.parent)] == [True, False]


@pytest.mark.parametrize(
    ("number", "raises"), [(errno.EINVAL, False), (errno.ENOTSUP, False), (errno.EIO, True), (errno.ENOSPC, True)]
)
def test_file_systems_that_cannot_sync_folders_are_tolerated(number, raises, tmp_path, monkeypatch):
    closed = []

    def fail(_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    close = os.close
    monkeypatch.setattr(os, "close", lambda descriptor: closed.append(descriptor) or close(descriptor))
    if raises:
        with pytest.raises(OSError, match=os.strerror(number)):
            sync_folder(tmp_path)
    else:
        sync_folder(tmp_path)
    assert len(closed) == 1


def test_windows_cannot_open_folders(tmp_path, monkeypatch):
    monkeypatch.setattr(atomic_files.os, "name", "nt")
    monkeypatch.setattr(atomic_files.os, "open", None)
    sync_folder(tmp_path)
