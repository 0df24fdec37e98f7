"""Two processes never train in one directory; a lock ends with its holder, however that ends."""

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

from keras_bot.errors import MisuseError, RunError
from keras_bot.training.checkpoints import run_lock
from keras_bot.training.checkpoints.run_lock import lock_run

HOLD = """
import sys
from keras_bot.training.checkpoints.run_lock import lock_run
with lock_run(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.readline()
print("left", flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the lock."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", HOLD, tmp_path], **pipes) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def raising(number):
    def call(*args, **options):
        raise OSError(number, os.strerror(number))

    return call


def test_a_second_process_is_refused_and_told_who_holds_it(holder, tmp_path):
    who = f"(pid {holder.pid} on {socket.gethostname()})"
    expected = re.escape(f"Another process {who} is training in {tmp_path}. ")
    for _ in range(2):  # being refused changes nothing
        with pytest.raises(MisuseError, match=expected), lock_run(tmp_path):
            pytest.fail("two are in")


def test_it_is_free_when_the_holder_leaves(holder, tmp_path):
    holder.stdin.write("\n")
    holder.stdin.flush()
    assert holder.stdout.readline() == "left\n"
    with lock_run(tmp_path):
        assert holder.poll() is None
        assert (tmp_path / ".lock").read_text() == f"{os.getpid()} {socket.gethostname()}\n"
    assert (tmp_path / ".lock").exists()


def test_it_is_free_when_the_holder_is_killed(holder, tmp_path):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with lock_run(tmp_path):
        pass


def test_it_is_held_within_a_process_too_and_free_after_an_error(tmp_path):
    folder = tmp_path / "new" / "run"
    with pytest.raises(KeyError), lock_run(folder):
        with pytest.raises(MisuseError, match=f"pid {os.getpid()} on"), lock_run(str(folder)):
            pytest.fail("two are in")
        raise KeyError
    with lock_run(folder):
        pass


def test_a_holder_that_has_not_written_who_it_is(tmp_path):
    with open(tmp_path / ".lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(MisuseError, match="Another process is training in"), lock_run(tmp_path):
            pytest.fail("two are in")


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS])
def test_without_locks_on_the_file_system_it_goes_on(number, tmp_path, monkeypatch):
    monkeypatch.setattr(fcntl, "flock", raising(number))
    with lock_run(tmp_path), lock_run(tmp_path):
        pass


def test_without_locks_in_the_system_it_goes_on(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "fcntl", None)  # as on Windows: the import fails
    with pytest.raises(KeyError), lock_run(tmp_path):
        raise KeyError
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["open", "ftruncate", "pwrite"])
@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.ENOSPC])
def test_a_folder_that_cannot_be_written_is_told(name, number, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(os, name, raising(number))
        with pytest.raises(RunError) as raised, lock_run(tmp_path):
            pytest.fail("it may not go on")
    assert str(raised.value).startswith(f"Can't write in the directory {tmp_path}: {os.strerror(number)}. ")
    with lock_run(tmp_path):  # nothing is left held
        pass


def test_a_lock_that_fails_for_another_reason_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(fcntl, "flock", raising(errno.EIO))
    with pytest.raises(RunError, match="Input/output error"), lock_run(tmp_path):
        pytest.fail("it may not go on")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write in a read-only folder")
def test_a_read_only_folder(tmp_path):
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(RunError, match="Permission denied"), lock_run(tmp_path):
            pytest.fail("it may not go on")
    finally:
        tmp_path.chmod(0o700)


def test_a_folder_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(MisuseError, match=r"Can't make the directory .*: Not a directory"),
        lock_run(tmp_path / "file/run"),
    ):
        pytest.fail("it may not go on")


def test_the_lock_is_no_child_processes(tmp_path):
    with lock_run(tmp_path):
        child = subprocess.Popen(["sleep", "30"], close_fds=False)
    try:
        with lock_run(tmp_path):
            pass
    finally:
        child.kill()
        child.wait()


def test_it_takes_no_keras():
    code = (
        "import sys, keras_bot.training.checkpoints.run_lock;sys.exit('keras' in sys.modules or 'numpy' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=pathlib.Path(run_lock.__file__).parents[3])
