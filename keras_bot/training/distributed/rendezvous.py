"""The chief's rendezvous server, and the wire format: one line of JSON in each direction."""

import dataclasses
import errno
import json
import selectors
import socket
import struct
import time
from collections.abc import Mapping, Sequence

from keras_bot.errors import MisuseError, RunError, first_few

STARTUP_ERROR = "trouble"  # key of the fact with which a worker reports that it cannot start
MAX_LINE_BYTES = 1 << 20
MAX_VALUE_LENGTH = 200  # characters of a value in an error message
CLOSE_SECONDS = 5.0
_ERRORS = {"misuse": MisuseError, "failure": RunError}


@dataclasses.dataclass(frozen=True)
class RendezvousResult:
    """Result of the rendezvous, the same for all workers.

    Args:
        kind: "go", "misuse" or "failure".
        message: reason for not starting.
    """

    kind: str
    message: str = ""

    def to_line(self) -> bytes:
        """Serialises the result as a line of JSON."""
        return json.dumps(dataclasses.asdict(self)).encode() + b"\n"

    @staticmethod
    def from_line(line: bytes) -> "RendezvousResult":
        """Parses a result from a line. Raises ValueError if the line is not one."""
        try:
            result = RendezvousResult(**json.loads(line))
        except TypeError:
            raise ValueError("not a result of the rendezvous") from None
        if result.kind not in ("go", *_ERRORS):
            raise ValueError("not a result of the rendezvous")
        return result

    def raise_error(self) -> None:
        """Raises the corresponding error unless the result is "go"."""
        if self.kind in _ERRORS:
            raise _ERRORS[self.kind](self.message)


def listen(port: int) -> socket.socket:
    """Returns a socket that listens on a port of all local addresses. Raises OSError if the port is in use."""
    if socket.has_dualstack_ipv6():
        try:
            return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
        except OSError as error:
            if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                raise
    return socket.create_server(("", port))


def hello_line(index: int, facts: Mapping[str, str]) -> bytes:
    """Returns the message that worker `index` sends to the chief."""
    return json.dumps({"keras_bot_worker": index, "facts": dict(facts)}).encode() + b"\n"


def read_line(connection: socket.socket) -> bytes:
    """Reads one line. Raises ConnectionError if the peer closes before its end, ValueError if it is too long."""
    line = b""
    while not line.endswith(b"\n"):
        received = connection.recv(65536)
        if not received:
            raise ConnectionError("the connection was closed")
        line += received
        if len(line) > MAX_LINE_BYTES:
            raise ValueError("line too long")
    return line


@dataclasses.dataclass(eq=False)
class _Client:
    """A connection to the chief. `index` is None until the peer has identified itself as a worker."""

    connection: socket.socket
    peer: str
    received: bytes = b""
    index: int | None = None
    facts: Mapping[str, str] = dataclasses.field(default_factory=dict)


class RendezvousServer:
    """The chief's rendezvous server. It drops connections that are not from workers; lost workers may reconnect.

    Args:
        listener: the chief's listening socket, which is closed before the result is sent.
        addresses: addresses of all workers, the chief's first.
        facts: facts of the chief.
    """

    def __init__(self, listener: socket.socket, addresses: Sequence[str], facts: Mapping[str, str]) -> None:
        self._listener, self._addresses, self._facts = listener, addresses, dict(facts)
        self._clients: list[_Client] = []
        self._selector = selectors.DefaultSelector()
        self._selector.register(listener, selectors.EVENT_READ)

    def run(self, timeout: float) -> RendezvousResult:
        """Waits up to `timeout` seconds for all workers, sends the result to the connected ones and returns it."""
        try:
            result = self._wait(timeout)
            self._listener.close()  # TensorFlow's server listens on this port next
            self._send(result)
        finally:
            self._listener.close()
            self._selector.close()
            for client in self._clients:
                client.connection.close()
        return result

    def _wait(self, timeout) -> RendezvousResult:
        deadline = time.monotonic() + timeout
        while missing := [index for index in range(1, len(self._addresses)) if index not in self._workers()]:
            seconds_left = deadline - time.monotonic()
            if seconds_left <= 0:
                names = first_few([f"worker {index} ({self._addresses[index]})" for index in missing])
                return RendezvousResult(
                    "failure", f"No connection from {names} within {timeout:g} s. Check their logs and TF_CONFIG."
                )
            for key, _ in self._selector.select(seconds_left):
                if key.data is None:
                    self._accept()
                elif self._receive(key.data) and (problem := self._check_index(key.data)):
                    return RendezvousResult("misuse", problem)
        facts = [self._facts, *(client.facts for _, client in sorted(self._workers().items()))]
        differences = describe_differences(facts)
        return RendezvousResult("misuse", differences) if differences else RendezvousResult("go")

    def _workers(self) -> dict[int, _Client]:
        return {client.index: client for client in self._clients if client.index is not None}

    def _accept(self):
        try:
            connection, peer = self._listener.accept()
        except OSError:  # the peer has already disconnected
            return
        connection.setblocking(False)
        self._clients.append(_Client(connection, f"{peer[0].removeprefix('::ffff:')}:{peer[1]}"))
        self._selector.register(connection, selectors.EVENT_READ, self._clients[-1])

    def _receive(self, client) -> bool:
        """Reads from a connection. Returns whether this completes the message that identifies a worker."""
        try:
            received = client.connection.recv(65536)
        except BlockingIOError:
            return False
        except OSError:
            received = b""
        client.received += received
        if not received or len(client.received) > MAX_LINE_BYTES:
            self._disconnect(client)
        elif client.index is None and client.received.endswith(b"\n"):
            try:
                hello = json.loads(client.received)
                client.index, client.facts = int(hello["keras_bot_worker"]), dict(hello["facts"])
            except (ValueError, TypeError, LookupError, RecursionError):
                self._disconnect(client)
            else:
                return True
        return False

    def _disconnect(self, client):
        self._selector.unregister(client.connection)
        self._clients.remove(client)
        # Reset the connection so that the port is not left in TIME_WAIT.
        client.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.connection.close()

    def _check_index(self, client) -> str:
        """Returns a message if a worker's index is invalid or belongs to another worker, else an empty string."""
        others = [other.peer for other in self._clients if other is not client and other.index == client.index]
        if others or client.index == 0:
            peers = f"{(others or [self._addresses[0]])[0]} and {client.peer}"
            return f"The workers at {peers} have the same index {client.index}. Correct task.index in their TF_CONFIG."
        if not 0 < client.index < len(self._addresses):
            return (
                f"TF_CONFIG differs between workers: it lists {len(self._addresses)} workers on worker 0, but worker "
                f"{client.index} connected from {client.peer}. Set the same cluster on every worker."
            )
        return ""

    def _send(self, result):
        """Sends the result and lets each worker close first, since the side that closes first stays in TIME_WAIT."""
        deadline = time.monotonic() + CLOSE_SECONDS
        connections = [client.connection for client in self._clients if client.index is not None]
        for connection in connections:
            connection.settimeout(CLOSE_SECONDS)
            try:
                connection.sendall(result.to_line())
            except OSError:  # the worker has died; TensorFlow will detect that
                continue
        for connection in connections:
            try:
                connection.settimeout(max(0.01, deadline - time.monotonic()))
                while connection.recv(65536):
                    pass
            except OSError:
                continue


def describe_differences(facts: Sequence[Mapping[str, str]], subject: str = "recipe") -> str:
    """Returns a message with the first worker's `STARTUP_ERROR`, or else the facts that differ; "" if there are none.

    Args:
        facts: facts of each worker, by name, in the order of worker indices.
        subject: subject of the message, which the facts describe.
    """
    for index, worker_facts in enumerate(facts):
        if worker_facts.get(STARTUP_ERROR):
            return f"Worker {index} cannot start: {worker_facts[STARTUP_ERROR]}"
    differences = []
    for name in dict.fromkeys(name for worker_facts in facts for name in worker_facts):
        workers_by_value: dict[str, list[str]] = {}
        for index, worker_facts in enumerate(facts):
            workers_by_value.setdefault(str(worker_facts.get(name, "missing")), []).append(str(index))
        if len(workers_by_value) > 1:
            values = (
                f"{value[:MAX_VALUE_LENGTH]} on worker{'s' * (len(workers) > 1)} {first_few(workers)}"
                for value, workers in workers_by_value.items()
            )
            differences.append(f"{name} is {' and '.join(values)}")
    if not differences:
        return ""
    more = len(differences) - 5
    shown = "; ".join(differences[:5]) + (f"; and {more} more differ" if more > 0 else "")
    return f"The {subject} differs between workers: {shown}."
