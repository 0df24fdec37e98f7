"""Concurrent child processes that each write a log; signals to this process end them, and none is left running."""

import collections
import contextlib
import dataclasses
import os
import pathlib
import signal
import subprocess
import sys
import sysconfig
import threading
import time
from collections.abc import Callable, Iterable, Iterator

import keras_bot
from keras_bot.errors import RunError, Terminated

GRACE = 60.0  # seconds for a training to save its state
_POLL = 0.05
_PR_SET_PDEATHSIG = 1


@dataclasses.dataclass(frozen=True)
class Job:
    """A process to run.

    Attributes:
        name: identifies the job.
        command: the command line.
        log: file to which its output is appended.
    """

    name: str
    command: tuple[str, ...]
    log: pathlib.Path


def run_jobs(
    jobs: Iterable[Job],
    *,
    workers: int,
    on_start: Callable[[Job], None],
    on_end: Callable[[Job, str], None],
    grace: float = GRACE,
) -> None:
    """Runs all jobs in order, `workers` at a time. Call it from the main thread.

    On SIGINT, SIGTERM and SIGHUP, the jobs receive SIGTERM and, after `grace` seconds, SIGKILL. A second SIGINT kills
    them at once, and on Linux so does the end of the calling thread.

    Args:
        jobs: jobs to run.
        workers: number of concurrent jobs.
        on_start: called with each job when it starts.
        on_end: called with each job and the reason it failed, "" if it succeeded.
        grace: seconds between SIGTERM and SIGKILL.

    Raises:
        KeyboardInterrupt: after SIGINT. No job is left running after this or any other error.
        Terminated: after SIGTERM or SIGHUP.
        RunError: if a log can't be written.
    """
    waiting = collections.deque(jobs)
    running: dict[Job, tuple[subprocess.Popen, int]] = {}
    with _recorded_signals() as signals:
        try:
            while waiting or running:
                if signals:
                    raise _interruption(signals[0])
                while waiting and len(running) < workers:
                    job = waiting.popleft()
                    on_start(job)
                    running[job] = _start(job)
                time.sleep(_POLL)
                for job in [job for job, (process, _) in running.items() if process.poll() is not None]:
                    process, offset = running.pop(job)
                    on_end(job, failure_reason(job.log, offset, process.returncode))
        finally:
            _terminate([process for process, _ in running.values()], grace, signals)


def failure_reason(log: pathlib.Path, offset: int, exit_code: int) -> str:
    """Returns why a process failed: its last "keras-bot: " line in the log from `offset` on, and its exit code.

    Without such a line, the last line is used. Returns "" for exit code 0; -n means killed by signal n.
    """
    if exit_code == 0:
        return ""
    ending = f"killed by {signal.Signals(-exit_code).name}" if exit_code < 0 else f"exit code {exit_code}"
    with open(log, "rb") as file:
        file.seek(offset)
        lines = [line.strip() for line in file.read().decode(errors="replace").splitlines() if line.strip()]
    errors = [line.removeprefix("keras-bot: ") for line in lines if line.startswith("keras-bot: ")]
    return f"{(errors or lines or ['no output'])[-1]} ({ending})"


def child_environment() -> dict[str, str]:
    """Returns an environment in which a child imports the same keras_bot from any current directory."""
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONSAFEPATH": "1"}
    root = str(pathlib.Path(keras_bot.__file__).resolve().parents[1])
    if root not in {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}:  # a source tree
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), root]))
    return environment


def kill_with_parent() -> Callable[[], None] | None:
    """Returns a `preexec_fn` with which the kernel kills the child when this thread dies; None except on Linux."""
    if not sys.platform.startswith("linux"):
        return None
    import ctypes

    prctl, parent = ctypes.CDLL(None, use_errno=True).prctl, os.getpid()

    def request_kill():
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # the parent died before the line above
            os._exit(1)

    return request_kill


def _start(job) -> tuple[subprocess.Popen, int]:
    """Starts a process in its own session, so that only this process gets Ctrl-C; also returns its log's offset."""
    try:
        job.log.parent.mkdir(parents=True, exist_ok=True)
        log = open(job.log, "ab")  # noqa: SIM115
    except OSError as error:
        raise RunError(f"Cannot write {job.log}: {error.strerror}.") from None
    with log:
        offset = log.seek(0, os.SEEK_END)
        process = subprocess.Popen(
            job.command,
            env=child_environment(),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=kill_with_parent(),
        )
    return process, offset


@contextlib.contextmanager
def _recorded_signals() -> Iterator[list[int]]:
    """Within the context, SIGINT, SIGTERM and SIGHUP are only added to the list; ignored signals stay ignored."""
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield received
        return
    names = [name for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
    recorded = [number for number in (getattr(signal, name) for name in names) if not is_ignored(number)]
    before = {number: signal.signal(number, lambda number, _: received.append(number)) for number in recorded}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _interruption(number):
    """Returns the exception for a signal."""
    return KeyboardInterrupt() if number == signal.SIGINT else Terminated(f"Stopped by {signal.Signals(number).name}.")


def is_ignored(number: int) -> bool:
    """Returns whether this process ignores a signal, as it does if started by `nohup` or by a shell's `&`."""
    return signal.getsignal(number) is signal.SIG_IGN


def _terminate(processes, grace, signals):
    """Terminates the running processes; kills them after `grace` seconds or a second SIGINT."""
    for process in processes:
        process.terminate()
    deadline = time.monotonic() + grace
    while any(process.poll() is None for process in processes):
        if time.monotonic() > deadline or signals.count(signal.SIGINT) > 1:
            for process in processes:
                process.kill()
            for process in processes:
                process.wait()
            return
        time.sleep(_POLL)
