"""Processes with logs: order, concurrency, reasons of failures, and that none is left running."""

import os
import pathlib
import signal
import sys
import time

import pytest
from processes import python_command, start_process

from keras_bot.errors import RunError
from keras_bot.subprocesses import Job, failure_reason, run_jobs

SUPERVISOR = """
import pathlib, signal, sys
from keras_bot.errors import Terminated
from keras_bot.subprocesses import Job, run_jobs
signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
folder = pathlib.Path(sys.argv[1])
jobs = [Job(str(i), (sys.executable, "-c", sys.argv[2]), folder / f"{i}.log") for i in range(3)]
try:
    run_jobs(jobs, workers=2, on_start=lambda job: None, on_end=lambda job, error: None, grace=float(sys.argv[3]))
except (KeyboardInterrupt, Terminated) as error:
    print(type(error).__name__)
"""
SLEEP = "import os, time; print(os.getpid()); time.sleep(30)"
IGNORES_SIGTERM = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {SLEEP}"


def job(name, code, tmp_path):
    return Job(name, (sys.executable, "-c", code), tmp_path / f"{name}.log")


def run(jobs, workers=1):
    """Returns the events of the jobs in order: the name at the start, name and error at the end."""
    events = []
    run_jobs(
        jobs,
        workers=workers,
        on_start=lambda job: events.append(job.name),
        on_end=lambda job, error: events.append((job.name, error)),
    )
    return events


def test_each_job_has_its_log_and_a_failure_stops_no_other(tmp_path):
    jobs = [
        job("good", "print('fine')", tmp_path),
        job("bad", "import sys; print('keras-bot: no such thing', file=sys.stderr); print('x'); sys.exit(2)", tmp_path),
        job("last", "print('fine too')", tmp_path),
    ]
    assert run(jobs) == ["good", ("good", ""), "bad", ("bad", "no such thing (exit code 2)"), "last", ("last", "")]
    assert (tmp_path / "good.log").read_text() == "fine\n"
    assert (tmp_path / "last.log").read_text() == "fine too\n"


def test_logs_are_appended_to_and_the_reason_is_from_the_new_part(tmp_path):
    (tmp_path / "a.log").write_text("keras-bot: an earlier error\n")
    assert run([job("a", "import os; os.abort()", tmp_path)])[1] == (
        "a",
        "no output (killed by SIGABRT)",
    )
    assert run([job("a", "raise KeyError('gone')", tmp_path)])[1] == ("a", "KeyError: 'gone' (exit code 1)")
    assert (tmp_path / "a.log").read_text().startswith("keras-bot: an earlier error\n")


def test_the_reason_is_the_last_keras_bot_line(tmp_path):
    log = tmp_path / "log"
    log.write_bytes(b"keras-bot: first\nkeras-bot: second\n\xff noise\n")
    assert failure_reason(log, 0, 1) == "second (exit code 1)"
    assert failure_reason(log, 35, -signal.SIGKILL) == "\ufffd noise (killed by SIGKILL)"
    assert failure_reason(log, 0, 0) == ""


def test_workers_is_the_number_of_concurrent_jobs(tmp_path):
    events = run([job(str(i), "import time; time.sleep(0.5)", tmp_path) for i in range(3)], workers=2)
    assert events[:2] == ["0", "1"] and isinstance(events[2], tuple) and len(events) == 6


def test_a_log_that_cannot_be_written_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="Cannot write"):
        run([Job("a", (sys.executable, "-c", ""), tmp_path / "file" / "a.log")])


def test_jobs_do_not_import_from_the_current_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pathlib.Path("keras_bot.py").write_text("raise SystemExit(9)")
    assert run([job("a", "import keras_bot; print(keras_bot.__version__)", tmp_path)])[1] == ("a", "")


def is_alive(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.fixture
def supervised(tmp_path):
    """Starts a process with two child processes; returns it with their pids."""
    started = []

    def start(code, grace):
        command = python_command(SUPERVISOR, tmp_path, code, grace)
        started.append(start_process(command, env={"PYTHONPATH": os.pathsep.join(sys.path)}, stderr=None))
        logs = [tmp_path / "0.log", tmp_path / "1.log"]
        deadline = time.monotonic() + 20
        while not all(log.exists() and log.read_text().endswith("\n") for log in logs):
            assert time.monotonic() < deadline, "they did not start"
            time.sleep(0.02)
        return started[0], [int(log.read_text()) for log in logs]

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(
    ("number", "error"), [(signal.SIGINT, "KeyboardInterrupt"), (signal.SIGTERM, "Terminated"), (signal.SIGKILL, "")]
)
def test_no_child_outlives_its_parent(number, error, supervised, tmp_path):
    process, pids = supervised(SLEEP, 20)
    process.send_signal(number)
    assert process.communicate(timeout=10)[0].strip() == error
    deadline = time.monotonic() + 5
    while any(map(is_alive, pids)):
        assert time.monotonic() < deadline, "some are still running"
        time.sleep(0.02)
    assert not (tmp_path / "2.log").exists()


def test_a_child_that_ignores_sigterm_is_killed(supervised):
    process, pids = supervised(IGNORES_SIGTERM, 0.2)
    process.terminate()
    assert process.communicate(timeout=10)[0].strip() == "Terminated"
    assert not any(map(is_alive, pids))


def test_a_second_ctrl_c_kills_at_once(supervised):
    process, pids = supervised(IGNORES_SIGTERM, 20)
    process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    assert process.poll() is None and all(map(is_alive, pids))
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=10)[0].strip() == "KeyboardInterrupt"
    assert not any(map(is_alive, pids))
