"""`keras-bot launch …`: runs a command in several worker processes on this machine, connected through TF_CONFIG."""

import json
import os
import pathlib
import random
import socket
import sys

from keras_bot.cli.commands import COMMANDS
from keras_bot.cli.flagfiles import expand_flagfiles
from keras_bot.cli.flags import Flags
from keras_bot.cli.supervisor import supervise
from keras_bot.errors import MisuseError, expect_at_least_one, unknown
from keras_bot.subprocesses import child_environment

USAGE = "usage: keras-bot launch --workers=N [--grace=SECONDS] -- train [--flag=value …]"
EXAMPLES = ("keras-bot launch --workers=2 -- train --flagfile=flags/quickstart.flags --run_dir=runs/two",)
PORT_RANGE = pathlib.Path("/proc/sys/net/ipv4/ip_local_port_range")
LOWEST_PORT = 10000


def main(argv: list[str]) -> int:
    """Runs the workers until all have ended; returns the exit code of the first that failed, or 0."""
    flags = Flags("launch", USAGE, EXAMPLES, about="Sets TF_CONFIG for each worker.")
    flags.add(int, "workers", 2, "number of worker processes")
    flags.add(float, "grace", 10.0, "seconds between SIGTERM and SIGKILL for the other workers after one has failed")
    if "--" not in argv and (commands := [argument for argument in argv if argument in COMMANDS]):
        raise MisuseError(f"Put -- before {commands[0]}. {USAGE}")
    command = flags.parse(argv)
    if flags.handle_help():
        return 0
    expect_at_least_one(workers=flags.workers)
    if not flags.grace >= 0:
        raise MisuseError(f"--grace must be at least 0 seconds, received {flags.grace:g}.")
    if os.name != "posix":
        raise MisuseError("launch requires Linux or macOS. Start each worker with its own TF_CONFIG instead.")
    check_command(command)
    command = [sys.executable, "-m", "keras_bot", *command]
    addresses = [f"127.0.0.1:{port}" for port in free_ports(flags.workers)]
    environments = [worker_environment(addresses, index) for index in range(flags.workers)]
    return supervise([command] * flags.workers, environments, grace=flags.grace)


def check_command(command: list[str]) -> None:
    """Raises MisuseError for an unknown command or unreadable flagfile before any worker starts."""
    if not command:
        raise MisuseError(f"The command after -- is missing. {USAGE}")
    name, *arguments = command
    if name == "launch":
        raise MisuseError("launch cannot run launch. Put another command after --.")
    if name not in COMMANDS:
        raise unknown("command", name, COMMANDS)
    expand_flagfiles(arguments)


def worker_environment(addresses: list[str], index: int) -> dict[str, str]:
    """Returns a worker's environment: this process's, with TF_CONFIG.

    Args:
        addresses: "host:port" of each worker.
        index: the worker's index in `addresses`.
    """
    config = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
    return {**child_environment(), "TF_CONFIG": json.dumps(config)}


def free_ports(count: int) -> list[int]:
    """Returns unused loopback ports, if possible below the range of ephemeral ports."""
    try:
        end = int(PORT_RANGE.read_text(encoding="ascii").split()[0])
    except (OSError, ValueError, IndexError):
        end = 32768
    candidates = random.SystemRandom().sample(range(LOWEST_PORT, end), 1000) if end > LOWEST_PORT + 1000 else []
    sockets: list[socket.socket] = []
    try:
        for port in [*candidates, *[0] * count]:
            if len(sockets) == count:
                break
            try:
                sockets.append(socket.create_server(("127.0.0.1", port)))
            except OSError:
                continue
        if len(sockets) < count:
            raise MisuseError(f"Found only {len(sockets)} free ports for {count} workers. Use fewer --workers.")
        return [listener.getsockname()[1] for listener in sockets]
    finally:
        for listener in sockets:
            listener.close()
