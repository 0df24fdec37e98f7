"""`keras-bot COMMAND …`: runs the command and turns a user's error into one line and an exit code."""

import contextlib
import importlib
import os
import sys

from keras_bot.errors import MisuseError, RunError, Terminated, unknown

COMMANDS = {
    "train": "train a network by a recipe of flags",
    "ablate": "a table of recipes like the paper's, over seeds",
    "finetune": "train on from a trained network, on other data",
    "launch": "train in several worker processes on this machine",
    "evaluate": "how good a trained network is",
    "report": "an HTML page about one or several runs",
    "export": "write a SavedModel, .keras, .onnx or .tflite of a run",
    "import-weights": "another library's weights as a .keras file of ours",
    "inspect": "what an exported SavedModel holds",
    "predict": "what a SavedModel sees in image files: classes, boxes or masks",
    "models": "list the networks with parameters and FLOPs",
    "data": "show what a data source holds, with a picture; convert a folder to TFRecord shards",
    "bench": "speed of training steps and input pipelines beside a peer's",
}

USAGE = """keras-bot: the Bag of Tricks for Image Classification (He et al., CVPR 2019) in Keras 3

usage: keras-bot COMMAND [--flag=value …] [--flagfile=FILE]

{commands}

`keras-bot COMMAND --help` tells the flags. First run: keras-bot train --flagfile=flags/quickstart.flags
"""


def main(argv: list[str] | None = None) -> int:
    """Runs one command; returns its exit code: 0, 1 for a failure, 2 for misuse."""
    _prepare_streams()
    argv = sys.argv[1:] if argv is None else argv
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
        return _tell(error, 2)
    except BrokenPipeError:  # as in `keras-bot models | head`
        sys.stdout = None
        return 1
    except (RunError, OSError) as error:
        return _tell(error, 1)
    except Terminated as error:
        return _tell(error, 143)
    except KeyboardInterrupt:
        return _tell("interrupted", 130)


def _prepare_streams():
    """Makes stdout and stderr accept any text in any encoding; opens the null device for those that are closed."""
    for name, errors in (("stdout", "replace"), ("stderr", "backslashreplace")):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors=errors)


def _tell(error, code):
    with contextlib.suppress(OSError):  # such as a full disk; if that made the command fail, `error` reports it
        sys.stdout.flush()
    is_of_system = isinstance(error, OSError) and error.strerror and error.filename
    told = f"{error.filename}: {error.strerror}." if is_of_system else str(error)
    print(f"keras-bot: {' '.join(told.split())}", file=sys.stderr)
    return code
