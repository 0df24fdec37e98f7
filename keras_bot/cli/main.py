"""`keras-bot COMMAND …`: runs the command; reports a user's error as one line with an exit code."""

import contextlib
import importlib
import itertools
import os
import sys

from keras_bot.cli.commands import COMMANDS
from keras_bot.errors import MisuseError, RunError, Terminated, unknown

USAGE = """keras-bot: the Bag of Tricks for Image Classification (He et al., CVPR 2019) in Keras 3

usage: keras-bot COMMAND [--flag=value …] [--flagfile=FILE]

{commands}

`keras-bot COMMAND --help` or `keras-bot help COMMAND` prints examples and the flags of a command.
To start: keras-bot train --flagfile=flags/quickstart.flags
"""


def main(argv: list[str] | None = None) -> int:
    """Runs one command; returns its exit code: 0, 1 for a failure, 2 for misuse."""
    _prepare_streams()
    argv = sys.argv[1:] if argv is None else argv
    if argv[:1] == ["help"] and len(argv) > 1:
        argv = [*itertools.takewhile(lambda argument: argument != "--", argv[1:]), "--help"]
    if not argv or argv[0] in ("--help", "-h", "help"):
        print(USAGE.format(commands="\n".join(f"  {name:<16}{text}" for name, text in COMMANDS.items())))
        return 0 if argv else 2
    if argv[0] == "--version":
        from keras_bot import __version__

        print(f"keras_bot {__version__}")
        return 0
    command, arguments = argv[0], argv[1:]
    try:
        if command not in COMMANDS:
            raise unknown("command", command, COMMANDS)
        return importlib.import_module(f"keras_bot.cli.commands.{command.replace('-', '_')}").main(arguments) or 0
    except MisuseError as error:
        return _report(error, 2)
    except BrokenPipeError:  # as in `keras-bot models | head`
        sys.stdout = None
        return 1
    except (RunError, OSError) as error:
        return _report(error, 1)
    except Terminated as error:
        return _report(error, 143)
    except KeyboardInterrupt:
        return _report("interrupted", 130)


def _prepare_streams():
    """Makes stdout and stderr accept any text in any encoding; replaces closed ones with the null device."""
    for name, errors in (("stdout", "replace"), ("stderr", "backslashreplace")):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors=errors)


def _report(error, code):
    """Prints the error as one line to stderr and returns the exit code."""
    with contextlib.suppress(OSError):  # such as a full disk, which `error` reports if the command failed
        sys.stdout.flush()
    has_path = isinstance(error, OSError) and error.strerror and error.filename
    message = f"{error.filename}: {error.strerror}." if has_path else str(error)
    print(f"keras-bot: {' '.join(message.split())}", file=sys.stderr)
    return code
