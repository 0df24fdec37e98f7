"""Supervision of parallel processes: prefixed output lines, one exit code, no orphans."""

import contextlib
import io
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, BinaryIO

from keras_bot.subprocesses import is_ignored, kill_with_parent

MAX_LINE = 1 << 16
PROGRESS_SECONDS = 1.0  # between two updates of a progress bar
_TERMINATION = (128 + signal.SIGTERM, 128 + signal.SIGINT)


def supervise(
    commands: Sequence[Sequence[str]], environments: Sequence[Mapping[str, str]], *, grace: float = 10.0
) -> int:
    """Runs processes in parallel until all have ended. Call it from the main thread, before starting other threads.

    When a process fails, the others receive SIGTERM and, `grace` seconds later, SIGKILL. SIGTERM and SIGINT are
    forwarded to all processes once, without a deadline. A second SIGINT kills them. On Linux, they are also killed
    if this process dies.

    Args:
        commands: arguments of each process.
        environments: environment of each process.
        grace: seconds between SIGTERM and SIGKILL.

    Returns:
        0 if all exited with 0, else the exit code of the first that failed: 128 + n if signal n killed it.

    Raises:
        OSError: if a process cannot be started or the output cannot be written; no process is left running.
    """
    return _Supervisor(grace).run(commands, environments)


class _Supervisor:
    def __init__(self, grace: float) -> None:
        self._grace = grace
        self._events: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()  # its `put` is safe in a signal handler
        self._processes: list[subprocess.Popen] = []
        self._readers: list[threading.Thread] = []
        self._running: set[int] = set()
        self._forwarded: set[int] = set()
        self._deadline: float | None = None
        self._exit_code = 0
        self._output_error: OSError | None = None

    def run(self, commands, environments):
        with self._queue_signals():
            try:
                for command, environment in zip(commands, environments, strict=True):
                    self._processes.append(_start(command, environment))
                for index in range(len(commands)):  # starts threads, hence after the last fork
                    self._watch(index)
                while self._running:
                    self._handle_next_event()
            finally:
                self._kill()
        for reader in self._readers:
            reader.join(timeout=5)
        if self._output_error:
            raise self._output_error
        return self._exit_code

    @contextlib.contextmanager
    def _queue_signals(self):
        """Within the context, SIGTERM, SIGINT and SIGHUP become events, unless they are ignored."""
        numbers = [number for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP) if not is_ignored(number)]
        before = {
            number: signal.signal(number, lambda number, _: self._events.put(("signal", number))) for number in numbers
        }
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _watch(self, index):
        process = self._processes[index]
        self._running.add(index)
        threading.Thread(target=lambda: self._events.put(("exit", (index, process.wait()))), daemon=True).start()
        for stream, out in ((process.stdout, sys.stdout), (process.stderr, sys.stderr)):
            arguments = (stream, out.buffer, f"[worker {index}] ".encode(), self._queue_output_error)
            self._readers.append(threading.Thread(target=copy_lines, args=arguments, daemon=True))
            self._readers[-1].start()

    def _queue_output_error(self, error):
        self._events.put(("output_error", error))

    def _handle_next_event(self):
        timeout = None if self._deadline is None else max(0.0, self._deadline - time.monotonic())
        try:
            kind, value = self._events.get(timeout=timeout)
        except queue.Empty:
            self._print(f"killing the workers that did not end within {self._grace:g} s")
            self._deadline = None
            self._kill()
            return
        handlers = {
            "signal": self._handle_signal,
            "exit": self._handle_exit,
            "output_error": self._handle_output_error,
        }
        handlers[kind](value)

    def _handle_signal(self, number):
        if number == signal.SIGINT and number in self._forwarded:
            self._exit_code = 128 + number
            self._kill()
        elif number not in self._forwarded:
            self._forwarded.add(number)
            # A closed terminal ends the workers as gracefully as SIGTERM does.
            self._send(signal.SIGTERM if number == signal.SIGHUP else number)

    def _handle_exit(self, ended):
        index, code = ended
        self._running.discard(index)
        _kill_group(self._processes[index])  # kills its remaining child processes
        code = 128 - code if code < 0 else code
        if code == 0:
            return
        self._exit_code = self._exit_code or code
        if self._deadline is None and not (self._forwarded and code in _TERMINATION):  # not stopped on request
            self._print(f"worker {index} failed with exit code {code}{'; stopping the others' * bool(self._running)}")
            self._stop()

    def _handle_output_error(self, error):
        self._output_error = self._output_error or error
        self._stop()

    def _stop(self):
        if self._deadline is None:
            self._deadline = time.monotonic() + self._grace
            self._send(signal.SIGTERM)

    def _send(self, number):
        for index in self._running:
            self._processes[index].send_signal(number)

    def _kill(self):
        for process in self._processes:
            if process.returncode is None:
                _kill_group(process)

    def _print(self, text):
        with contextlib.suppress(OSError):
            print(f"keras-bot: {text}", file=sys.stderr, flush=True)


def _start(command, environment):
    """Starts a process in its own session, so that Ctrl-C reaches it only once, forwarded by this process."""
    return subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        preexec_fn=kill_with_parent(),
    )


def _kill_group(process):
    with contextlib.suppress(ProcessLookupError, PermissionError):  # the group is empty
        os.killpg(process.pid, signal.SIGKILL)


def copy_lines(
    source: io.BufferedIOBase,
    out: BinaryIO,
    prefix: bytes,
    on_error: Callable[[OSError], object] = lambda error: None,
) -> None:
    """Copies a stream line by line, with a prefix before each line.

    A carriage return also ends a line, as in a progress bar. At most one such line per second is written, and always
    the last one.

    Args:
        source: stream to read to its end, even if `out` fails.
        out: stream to write to, one whole line at a time.
        prefix: prefix of each line.
        on_error: called once with the OSError if `out` cannot be written to.
    """
    broken, last_shown, rest = False, 0.0, b""

    def write(line: bytes) -> None:
        nonlocal broken
        if not broken:
            try:
                out.write(prefix + line + b"\n")
                out.flush()
            except OSError as error:
                broken = True
                on_error(error)

    with source:
        while chunk := source.read1(MAX_LINE):
            *lines, rest = (rest + chunk).replace(b"\r\n", b"\n").split(b"\n")
            for line in lines:
                write(_last_state(line))
            states, _, unfinished = rest.rpartition(b"\r")
            state = _last_state(states)
            rest = unfinished or (state + b"\r" if state else b"")
            if state and time.monotonic() - last_shown >= PROGRESS_SECONDS:
                write(state)
                last_shown = time.monotonic()
            if len(rest) > MAX_LINE:
                write(rest)
                rest = b""
        if rest.strip():
            write(_last_state(rest))


def _last_state(line):
    """Returns the last non-empty part of a line split at carriage returns; b"" if there is none."""
    return next((state for state in reversed(line.split(b"\r")) if state.strip()), b"")
