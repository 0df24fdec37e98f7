"""Two processes never train in one directory; a lock ends with its holder, even if that is killed."""

import errno
import fcntl
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys

import pytest
from processes import python_command, run_python, start_process

from keras_bot.errors import MisuseError, RunError
from keras_bot.training.checkpoints import run_lock
from keras_bot.training.checkpoints.run_lock import lock_run

HOLD = """
import sys
from keras_bot.training.checkpoints.run_lock import lock_run
with lock_run(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.readline()
print("released", flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the lock."""
    with start_process(python_command(HOLD, tmp_path), stdin=subprocess.PIPE, stderr=None) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def raising(number):
    def call(*args, **options):
        raise OSError(number, os.strerror(number))

    return call


def test_a_second_process_is_rejected_and_the_holder_named(holder, tmp_path):
    holder_name = f"(pid {holder.pid} on {socket.gethostname()})"
    expected = re.escape(f"Another process {holder_name} is training in {tmp_path}. ")
    for _ in range(2):  # a rejected attempt changes nothing
        with pytest.raises(MisuseError, match=expected), lock_run(tmp_path):
            pytest.fail("two processes hold the lock")


def test_it_is_free_after_the_holder_releases_it(holder, tmp_path):
    holder.stdin.write("\n")
    holder.stdin.flush()
    assert holder.stdout.readline() == "released\n"
    with lock_run(tmp_path):
        assert holder.poll() is None
        assert (tmp_path / ".lock").read_text() == f"{os.getpid()} {socket.gethostname()}\n"
    assert (tmp_path / ".lock").exists()


def test_it_is_free_after_the_holder_is_killed(holder, tmp_path):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with lock_run(tmp_path):
        pass


def test_it_also_excludes_the_same_process_and_is_free_after_an_error(tmp_path):
    folder = tmp_path / "new" / "run"
    with pytest.raises(KeyError), lock_run(folder):
        with pytest.raises(MisuseError, match=f"pid {os.getpid()} on"), lock_run(str(folder)):
            pytest.fail("two processes hold the lock")
        raise KeyError
    with lock_run(folder):
        pass


def test_a_holder_that_has_not_written_its_name(tmp_path):
    with open(tmp_path / ".lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(MisuseError, match="Another process is training in"), lock_run(tmp_path):
            pytest.fail("two processes hold the lock")


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS])
def test_a_file_system_without_locks_is_accepted(number, tmp_path, monkeypatch):
    monkeypatch.setattr(fcntl, "flock", raising(number))
    with lock_run(tmp_path), lock_run(tmp_path):
        pass


def test_an_operating_system_without_locks_is_accepted(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "fcntl", None)  # as on Windows: the import fails
    with pytest.raises(KeyError), lock_run(tmp_path):
        raise KeyError
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["open", "ftruncate", "pwrite"])
@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.ENOSPC])
def test_an_unwritable_folder_is_reported(name, number, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(os, name, raising(number))
        with pytest.raises(RunError) as raised, lock_run(tmp_path):
            pytest.fail("the body must not run")
    assert str(raised.value).startswith(f"Cannot write to the directory {tmp_path}: {os.strerror(number)}. ")
    with lock_run(tmp_path):  # the lock was released
        pass


def test_other_lock_errors_are_reported(tmp_path, monkeypatch):
    monkeypatch.setattr(fcntl, "flock", raising(errno.EIO))
    with pytest.raises(RunError, match="Input/output error"), lock_run(tmp_path):
        pytest.fail("the body must not run")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write in a read-only folder")
def test_a_read_only_folder(tmp_path):
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(RunError, match="Permission denied"), lock_run(tmp_path):
            pytest.fail("the body must not run")
    finally:
        tmp_path.chmod(0o700)


def test_a_folder_that_cannot_be_created_is_reported(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(MisuseError, match=r"Cannot create the directory .*: Not a directory"),
        lock_run(tmp_path / "file/run"),
    ):
        pytest.fail("the body must not run")


def test_child_processes_do_not_inherit_the_lock(tmp_path):
    with lock_run(tmp_path):
        child = subprocess.Popen(["sleep", "30"], close_fds=False)
    try:
        with lock_run(tmp_path):
            pass
    finally:
        child.kill()
        child.wait()


def test_importing_it_does_not_import_keras():
    code = (
        "import sys, keras_bot.training.checkpoints.run_lock;sys.exit('keras' in sys.modules or 'numpy' in sys.modules)"
    )
    run_python(code, cwd=pathlib.Path(run_lock.__file__).parents[3])
