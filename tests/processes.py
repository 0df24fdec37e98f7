"""Commands and programs that tests run, in this process or in another, and what they print."""

import contextlib
import dataclasses
import io
import json
import os
import resource
import subprocess
import sys

from keras_bot.cli.main import main


@dataclasses.dataclass(frozen=True)
class CommandResult:
    """Exit code and output of a command."""

    code: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The output to stderr, which must be a single line."""
        lines = self.err.strip().splitlines()
        assert len(lines) == 1, lines
        return lines[0]

    @property
    def result(self) -> dict:
        """The JSON in the last line of stdout."""
        return json.loads(self.out.strip().splitlines()[-1])


def run_command(*arguments: object, code: int | None = 0) -> CommandResult:
    """Runs a `keras-bot` command in this process and checks its exit code; None accepts any."""
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        found = main([str(argument) for argument in arguments])
    assert code is None or found == code, f"exit code {found}: {out.getvalue()[-2000:]}{err.getvalue()[-2000:]}"
    return CommandResult(found, out.getvalue(), err.getvalue())


def expect_misuse(*arguments: object) -> str:
    """Returns the error line of a command, which must exit with code 2 and print a single line to stderr."""
    return run_command(*arguments, code=2).error


@contextlib.contextmanager
def file_size_limit(size: int):
    """Lets this process write no file beyond so many bytes, which fails like a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


KERAS_BOT = (sys.executable, "-m", "keras_bot")  # start of the command line of a command in another process


def python_command(code: str, *arguments: object) -> list[str]:
    """Returns the command line that runs Python code with arguments."""
    return [sys.executable, "-c", code, *map(str, arguments)]


def run_python(code: str, *arguments: object, check: bool = True, **options) -> subprocess.CompletedProcess:
    """Runs Python code in another process and checks that it succeeds.

    Args:
        code: the program; `arguments` are its `sys.argv[1:]`.
        arguments: strings, numbers or paths.
        check: False accepts any exit code.
        options: of `subprocess.run`; `env` extends the environment.
    """
    return run_process(python_command(code, *arguments), check=check, **options)


def run_process(command: list[str], *, check: bool = True, env=None, **options) -> subprocess.CompletedProcess:
    """Runs a command line; see `run_python`."""
    environment = {**os.environ, **(env or {})}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, **options)
    assert not check or done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    return done


def worker_environment(index: int, ports: list[int]) -> dict[str, str]:
    """Returns the environment of one worker on this machine, whose cluster has a worker per port."""
    cluster = {"worker": [f"127.0.0.1:{port}" for port in ports]}
    config = json.dumps({"cluster": cluster, "task": {"type": "worker", "index": index}})
    return {"TF_CONFIG": config, "TF_CPP_MIN_LOG_LEVEL": "3"}


def start_process(command: list[str], *, env=None, **options) -> subprocess.Popen:
    """Starts a command line with its output in pipes; `env` extends the environment."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, env={**os.environ, **(env or {})}, **{**pipes, **options})
