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
    started: Callable[[Job], None],
    ended: Callable[[Job, str], None],
    grace: float = GRACE,
):
    """Runs all jobs in order, `workers` at a time. Call it from the main thread, to whose life the jobs are tied.

    SIGINT, SIGTERM and SIGHUP end the jobs with SIGTERM and, after `grace` seconds, SIGKILL. A second SIGINT kills them
    at once, and on Linux so does the death of this process.

    Args:
        jobs: jobs to run.
        workers: number of concurrent jobs.
        started: called with each job when it starts.
        ended: called with each job and the reason it failed, "" if it succeeded.
        grace: seconds between SIGTERM and SIGKILL.

    Raises:
        KeyboardInterrupt: after SIGINT. No job is left running after this or any other error.
        Terminated: after SIGTERM or SIGHUP.
        RunError: if a log can't be written.
    """
    waiting, running = collections.deque(jobs), {}
    with _asked_to_end() as asked:
        try:
            while waiting or running:
                if asked:
                    raise KeyboardInterrupt if asked[0] == signal.SIGINT else Terminated("Asked to end.")
                while waiting and len(running) < workers:
                    job = waiting.popleft()
                    started(job)
                    running[job] = _start(job)
                time.sleep(_POLL)
                for job in [job for job, (process, _) in running.items() if process.poll() is not None]:
                    process, begin = running.pop(job)
                    ended(job, reason(job.log, begin, process.returncode))
        finally:
            _end([process for process, _ in running.values()], grace, asked)


def reason(log: pathlib.Path, begin: int, code: int) -> str:
    """Returns why a process failed: its last "keras-bot: " line in the log from offset `begin`, and its exit code.

    Without such a line, the last line is used. Returns "" for exit code 0; -n means killed by signal n.
    """
    if code == 0:
        return ""
    ending = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    with open(log, "rb") as file:
        file.seek(begin)
        lines = [line.strip() for line in file.read().decode(errors="replace").splitlines() if line.strip()]
    told = [line.removeprefix("keras-bot: ") for line in lines if line.startswith("keras-bot: ")]
    return f"{(told or lines or ['it said nothing'])[-1]} ({ending})"


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

    def tie():
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # the parent died before the line above
            os._exit(1)

    return tie


def _start(job) -> tuple[subprocess.Popen, int]:
    """Starts a process in its own session, so that only this process gets Ctrl-C; also returns its log's offset."""
    try:
        job.log.parent.mkdir(parents=True, exist_ok=True)
        log = open(job.log, "ab")  # noqa: SIM115
    except OSError as error:
        raise RunError(f"Can't write {job.log}: {error.strerror}.") from None
    with log:
        begin = log.seek(0, os.SEEK_END)
        process = subprocess.Popen(
            job.command,
            env=child_environment(),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=kill_with_parent(),
        )
    return process, begin


@contextlib.contextmanager
def _asked_to_end() -> Iterator[list[int]]:
    """Within the context, only records SIGINT, SIGTERM and SIGHUP in the list; ignored signals stay ignored."""
    asked = []
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    names = [name for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
    wanted = [number for number in (getattr(signal, name) for name in names) if is_heeded(number)]
    before = {number: signal.signal(number, lambda number, _: asked.append(number)) for number in wanted}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def is_heeded(number):
    """Returns whether a signal is not ignored; `nohup` or a shell's & can set it to be ignored."""
    return signal.getsignal(number) is not signal.SIG_IGN


def _end(processes, grace, asked):
    """Terminates the running processes; kills them after `grace` seconds or a second SIGINT."""
    for process in processes:
        process.terminate()
    deadline = time.monotonic() + grace
    while any(process.poll() is None for process in processes):
        if time.monotonic() > deadline or asked.count(signal.SIGINT) > 1:
            for process in processes:
                process.kill()
            for process in processes:
                process.wait()
            return
        time.sleep(_POLL)
