"""Copies of the checkout with a fault, and pytest runs in them that can't reach the checkout's own package."""

import contextlib
import dataclasses
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence

from fault import Fault

ROOT = pathlib.Path(__file__).resolve().parents[2]
_OWN = "tests/mutation"  # left out of the runs: its own test fails if a fault is planted
_NO_TESTS = 5  # pytest's exit status if no test was selected
_TAIL = 1500

_running: set[subprocess.Popen] = set()
_lock = threading.Lock()
_is_ending = threading.Event()


@dataclasses.dataclass(frozen=True)
class Outcome:
    """Outcome of one pytest run.

    Attributes:
        failures: failed tests in order, each a dictionary of test, when (setup, call, teardown) and reason.
        broken: why the run proves nothing, such as an error during collection; "" otherwise.
        timed_out: whether the time limit ended it.
    """

    failures: list[dict]
    broken: str = ""
    timed_out: bool = False


@dataclasses.dataclass(frozen=True)
class Copy:
    """A temporary copy of the checkout: `source` is its root, `folder` contains everything else of the run."""

    folder: pathlib.Path
    modules: str = ""

    @property
    def source(self) -> pathlib.Path:
        """Root of the copied checkout."""
        return self.folder / "copy"

    def run(self, arguments: Sequence[str], deadline: float) -> Outcome:
        """Runs pytest in the copy until `deadline`, a time of `time.monotonic`."""
        log, output = self.folder / "failures.jsonl", self.folder / "output.txt"
        log.unlink(missing_ok=True)
        command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "mutation_guard"]
        command += [f"--ignore={_OWN}", f"--basetemp={self.folder / 'tmp'}", *arguments]
        with output.open("w") as stream:
            status = _run(command, self.source, self._environment(log), stream, deadline)
        lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
        found = [json.loads(line) for line in lines]
        failures = [failure for failure in found if failure["when"] != "collect"]
        errors = [failure for failure in found if failure["when"] == "collect"]
        if errors:
            return Outcome(failures, f"{errors[0]['test']} cannot be collected: {errors[0]['reason']}")
        if status is None:
            return Outcome(failures, timed_out=True)
        if not failures and status not in (0, _NO_TESTS):
            return Outcome([], f"pytest ended with status {status}: {output.read_text(errors='replace')[-_TAIL:]}")
        return Outcome(failures)

    def _environment(self, log):
        paths = [self.source, self.source / "tests", self.source / _OWN]
        return {
            "TF_CPP_MIN_LOG_LEVEL": "2",
            **os.environ,
            "PYTHONPATH": os.pathsep.join(map(str, paths)),
            "KERAS_BOT_MUTANT": str(self.source),
            "KERAS_BOT_MUTANT_MODULES": self.modules,
            "KERAS_BOT_MUTANT_LOG": str(log),
        }


@contextlib.contextmanager
def copied(fault: Fault | None) -> Iterator[Copy]:
    """Copies the checkout's files, those that git ignores excluded, and plants the fault in the copy, if any."""
    with tempfile.TemporaryDirectory(prefix="mutant-", ignore_cleanup_errors=True) as folder:
        copy = Copy(pathlib.Path(folder), _module(fault) if fault else "")
        listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        names = subprocess.run(listing, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split("\0")
        for name in filter(None, names):
            if (ROOT / name).is_file():
                (copy.source / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, copy.source / name)
        if fault:
            path = copy.source / "keras_bot" / fault.file
            path.write_text(fault.plant(path.read_text(encoding="utf-8")), encoding="utf-8")
        yield copy


def _module(fault):
    parts = pathlib.PurePath("keras_bot", fault.file).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _run(command, folder, environment, stream, deadline) -> int | None:
    """Runs a command in a process group of its own; returns its status, or None if the deadline ended it."""
    options = {"stdin": subprocess.DEVNULL, "stdout": stream, "stderr": subprocess.STDOUT, "start_new_session": True}
    with _lock:
        if _is_ending.is_set():
            raise KeyboardInterrupt
        process = subprocess.Popen(command, cwd=folder, env=environment, **options)
        _running.add(process)
    try:
        return process.wait(max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        return None
    finally:
        _kill(process)
        with _lock:
            _running.discard(process)
        if _is_ending.is_set():
            raise KeyboardInterrupt


def _kill(process):
    """Kills what is left of a process group that this module started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def end_all_runs():
    """Kills the runs in progress and lets no new one start."""
    with _lock:
        _is_ending.set()
        for process in _running:
            _kill(process)
