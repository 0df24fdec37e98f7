"""Supervised processes: output, exit codes and signals, also when they or the supervisor are killed."""

import contextlib
import io
import os
import signal
import sys
import textwrap
import threading
import time

import pytest
from processes import python_command, start_process

from keras_bot.cli.supervisor import copy_lines

NAP = "import time; time.sleep(30)"
READY = "import pathlib, os, sys; pathlib.Path(sys.argv[1], str(os.getpid())).touch()"
DEAF = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)"
SAVING = """
import signal, sys, time
def end(number, frame):
    time.sleep(float(sys.argv[2]))
    sys.exit(143)
signal.signal(signal.SIGTERM, end)
"""


@pytest.fixture
def supervised(tmp_path):
    """Starts the supervisor of Python processes, each with a folder for a file named by its pid, and its index."""
    started = []

    def start(*children, grace=10.0):
        folder = tmp_path / str(len(started))
        folder.mkdir()
        commands = [
            [sys.executable, "-c", textwrap.dedent(code), str(folder), str(index)]
            for index, code in enumerate(children)
        ]
        code = (
            "import os, signal, sys; from keras_bot.cli.supervisor import supervise; "
            "signal.signal(signal.SIGINT, signal.default_int_handler); "  # a job in the background ignores it
            f"sys.exit(supervise({commands!r}, [os.environ] * {len(commands)}, grace={grace}))"
        )
        process = start_process(python_command(code), env={"PYTHONPATH": os.pathsep.join(sys.path)})
        process.folder = folder
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def wait_until(true, seconds=10):
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "timeout"
        time.sleep(0.02)


def pids(process, count):
    """Returns the pids of the processes once `count` have started."""
    wait_until(lambda: len(list(process.folder.iterdir())) == count)
    return [int(path.name) for path in process.folder.iterdir()]


def is_alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_success_is_0_and_lines_have_prefixes(supervised):
    code = "import sys; print('out', sys.argv[2]); print('err', sys.argv[2], file=sys.stderr); print('last', end='')"
    process = supervised(code, code)
    out, err = process.communicate(timeout=10)
    assert process.returncode == 0
    assert sorted(out.splitlines()) == [
        "[worker 0] last",
        "[worker 0] out 0",
        "[worker 1] last",
        "[worker 1] out 1",
    ]
    assert sorted(err.splitlines()) == ["[worker 0] err 0", "[worker 1] err 1"]


def test_lines_are_printed_immediately(supervised):
    process = supervised("import time; print('soon', flush=True); time.sleep(30)")
    began = time.monotonic()
    assert process.stdout.readline() == "[worker 0] soon\n"
    assert time.monotonic() - began < 10


@pytest.mark.parametrize(
    ("end", "code"),
    [("raise SystemExit(7)", 7), ("import os; os.kill(os.getpid(), 9)", 137), ("import os; os.abort()", 134)],
)
def test_a_failed_worker_stops_the_others_and_sets_the_exit_code(supervised, end, code):
    process = supervised(f"{READY}\n{NAP}", f"{READY}\nimport time; time.sleep(0.5)\n{end}", f"{READY}\n{NAP}")
    children = pids(process, 3)
    began = time.monotonic()
    _, err = process.communicate(timeout=10)
    assert process.returncode == code and time.monotonic() - began < 5
    assert err.splitlines() == [f"keras-bot: worker 1 failed with exit code {code}; stopping the others"]
    assert not any(map(is_alive, children))


def test_a_process_that_ignores_sigterm_is_killed_after_the_grace_period(supervised):
    process = supervised(f"{DEAF}\n{READY}\n{NAP}", "import time; time.sleep(0.8); raise SystemExit(3)", grace=0.5)
    (child,) = pids(process, 1)
    _, err = process.communicate(timeout=10)
    assert process.returncode == 3 and "killing the workers that did not end within 0.5 s" in err
    assert not is_alive(child)


def test_child_processes_of_a_worker_end_with_it(supervised):
    code = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {f'{READY}; {NAP}'!r}, sys.argv[1]])"
    process = supervised(
        f"{code}\nimport time, pathlib\nwhile not any(pathlib.Path(sys.argv[1]).iterdir()): time.sleep(0.05)"
    )
    (grandchild,) = pids(process, 1)
    process.communicate(timeout=10)
    assert process.returncode == 0
    wait_until(lambda: not is_alive(grandchild), 2)


def test_a_worker_that_succeeds_does_not_stop_the_others(supervised):
    process = supervised("", "import time; time.sleep(1); print('done')")
    out, _ = process.communicate(timeout=10)
    assert process.returncode == 0 and out == "[worker 1] done\n"


def test_sigterm_is_forwarded_without_a_deadline(supervised):
    # Worker 0 saves at once, worker 1 for longer than the grace: neither is killed.
    process = supervised(*[f"{SAVING}\n{READY}\n{NAP}"] * 2, grace=0.1)
    pids(process, 2)
    process.terminate()
    _, err = process.communicate(timeout=10)
    assert process.returncode == 143 and err == ""


def test_ctrl_c_reaches_each_worker_once_and_a_second_one_kills(supervised):
    count = """
    import pathlib, signal, sys, time
    signal.signal(signal.SIGINT, lambda number, frame: print("interrupted", flush=True))
    """
    process = supervised(*[f"{textwrap.dedent(count)}\n{READY}\n{NAP}"] * 2)
    children = pids(process, 2)
    process.send_signal(signal.SIGINT)
    lines = sorted(process.stdout.readline() for _ in range(2))
    assert lines == ["[worker 0] interrupted\n", "[worker 1] interrupted\n"]
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=10)
    assert process.returncode == 130 and out == ""
    assert not any(map(is_alive, children))


def test_an_interrupted_job_ends_with_130(supervised):
    process = supervised(*[f"{READY}\n{NAP}"] * 2)
    pids(process, 2)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=10)
    assert process.returncode == 130


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux signals a process when its parent dies")
def test_a_killed_supervisor_leaves_no_orphans(supervised):
    process = supervised(*[f"{DEAF}\n{READY}\n{NAP}"] * 3)
    children = pids(process, 3)
    assert all(map(is_alive, children))
    process.kill()
    wait_until(lambda: not any(map(is_alive, children)), 3)


def test_a_closed_stdout_ends_the_job(supervised):
    process = supervised(
        f"{READY}\nimport time\nwhile True: print('x', flush=True); time.sleep(0.01)", f"{READY}\n{NAP}"
    )
    children = pids(process, 2)
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(timeout=10) != 0
    assert not any(map(is_alive, children))


def copied(written):
    out = io.BytesIO()
    copy_lines(io.BufferedReader(io.BytesIO(written)), out, b"> ")
    return out.getvalue()


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        (b"", b""),
        (b"a\n\nb", b"> a\n> \n> b\n"),
        (b"a\r\nb\r\n", b"> a\n> b\n"),
        (b"\r 1%\r 50%\r100%\ndone\n", b"> 100%\n> done\n"),
        (b"100%\r    \r\n", b"> 100%\n"),
        (b"\xff\xfe caf\xc3\xa9\n", b"> \xff\xfe caf\xc3\xa9\n"),
        (b"x" * 70000 + b"\ny\n", None),
    ],
)
def test_lines_of_any_kind(written, shown):
    result = copied(written)
    if shown is None:
        assert result.replace(b"\n> ", b"").count(b"x") == 70000 and result.endswith(b"> y\n")
    else:
        assert result == shown


def test_few_of_many_states_with_carriage_returns_are_shown():
    lines = copied(b"".join(b"%d%%\r" % state for state in range(30_000))).splitlines()
    assert 1 <= len(lines) <= 3 and lines[-1] == b"> 29999%"
    assert all(len(line) < 10 for line in lines)


def test_a_progress_bar_is_shown_now_and_then_and_its_last_state_always():
    read, write = os.pipe()
    out = io.BytesIO()
    with os.fdopen(read, "rb") as source, contextlib.ExitStack() as ends:
        copier = threading.Thread(target=copy_lines, args=(source, out, b"> "))
        copier.start()
        ends.callback(copier.join)
        for percent in range(101):
            os.write(write, b"\r%d%%" % percent)
            time.sleep(0.002)
        os.write(write, b"\r")  # its end of line comes in two parts
        time.sleep(0.1)
        os.write(write, b"\n")
        os.close(write)
    lines = out.getvalue().splitlines()
    assert 1 <= len(lines) <= 5 and lines[-1] == b"> 100%"
