"""The chief's side of the workers' rendezvous, and its wire format: one line of JSON in each direction."""

import dataclasses
import errno
import json
import selectors
import socket
import struct
import time
from collections.abc import Mapping, Sequence

from keras_bot.errors import MisuseError, RunError, first_few

TROUBLE = "trouble"  # the fact with which a worker reports that it can't start
LONGEST_LINE = 1 << 20
LONGEST_VALUE = 200
PARTING_SECONDS = 5.0
_ERRORS = {"misuse": MisuseError, "failure": RunError}


@dataclasses.dataclass(frozen=True)
class Verdict:
    """Result of the rendezvous, the same for all workers.

    Args:
        kind: "go", "misuse" or "failure".
        message: reason for not starting.
    """

    kind: str
    message: str = ""

    def line(self) -> bytes:
        """Serialises the verdict as a line of JSON."""
        return json.dumps(dataclasses.asdict(self)).encode() + b"\n"

    @staticmethod
    def read(line: bytes) -> "Verdict":
        """Parses a verdict from a line. Raises ValueError if it is not one."""
        try:
            verdict = Verdict(**json.loads(line))
        except TypeError:
            raise ValueError("no verdict") from None
        if verdict.kind not in ("go", *_ERRORS):
            raise ValueError("no verdict")
        return verdict

    def enforce(self):
        """Raises the corresponding error unless the verdict is "go"."""
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
            raise ConnectionError("it closed the connection")
        line += received
        if len(line) > LONGEST_LINE:
            raise ValueError("a line too long")
    return line


@dataclasses.dataclass(eq=False)
class _Client:
    """A connection to the chief. `index` is None until the peer has identified itself as a worker."""

    connection: socket.socket
    peer: str
    heard: bytes = b""
    index: int | None = None
    facts: dict[str, str] = dataclasses.field(default_factory=dict)


class RendezvousServer:
    """The rendezvous server on the chief. It drops connections that send anything else; lost workers may reconnect.

    Args:
        listener: the chief's listening socket, which is closed before the verdict is sent.
        addresses: addresses of all workers, the chief's first.
        facts: facts of the chief.
    """

    def __init__(self, listener: socket.socket, addresses: Sequence[str], facts: Mapping[str, str]):
        self._listener, self._addresses, self._facts = listener, addresses, dict(facts)
        self._clients: list[_Client] = []
        self._selector = selectors.DefaultSelector()
        self._selector.register(listener, selectors.EVENT_READ)

    def judge(self, timeout: float) -> Verdict:
        """Waits up to `timeout` seconds for all workers. Sends the verdict to the connected ones and returns it."""
        try:
            verdict = self._wait(timeout)
            self._listener.close()  # TensorFlow's server listens on this port next
            self._tell(verdict)
        finally:
            self._listener.close()
            self._selector.close()
            for guest in self._clients:
                guest.connection.close()
        return verdict

    def _wait(self, timeout) -> Verdict:
        deadline = time.monotonic() + timeout
        while missing := [index for index in range(1, len(self._addresses)) if index not in self._workers()]:
            left = deadline - time.monotonic()
            if left <= 0:
                named = first_few([f"worker {index} ({self._addresses[index]})" for index in missing])
                return Verdict(
                    "failure", f"No answer from {named} within {timeout:g} s. See what became of it, or mend TF_CONFIG."
                )
            for key, _ in self._selector.select(left):
                if key.data is None:
                    self._accept()
                elif self._hear(key.data) and (trouble := self._odd_index(key.data)):
                    return Verdict("misuse", trouble)
        everyone = [self._facts, *(guest.facts for _, guest in sorted(self._workers().items()))]
        differences = tell_differences(everyone)
        return Verdict("misuse", differences) if differences else Verdict("go")

    def _workers(self) -> dict[int, _Client]:
        return {guest.index: guest for guest in self._clients if guest.index is not None}

    def _accept(self):
        try:
            connection, peer = self._listener.accept()
        except OSError:  # the peer has already disconnected
            return
        connection.setblocking(False)
        self._clients.append(_Client(connection, f"{peer[0].removeprefix('::ffff:')}:{peer[1]}"))
        self._selector.register(connection, selectors.EVENT_READ, self._clients[-1])

    def _hear(self, guest) -> bool:
        """Reads from a connection. Returns whether this completes the message that identifies a worker."""
        try:
            received = guest.connection.recv(65536)
        except BlockingIOError:
            return False
        except OSError:
            received = b""
        guest.heard += received
        if not received or len(guest.heard) > LONGEST_LINE:
            self._show_out(guest)
        elif guest.index is None and guest.heard.endswith(b"\n"):
            try:
                hello = json.loads(guest.heard)
                guest.index, guest.facts = int(hello["keras_bot_worker"]), dict(hello["facts"])
            except (ValueError, TypeError, LookupError, RecursionError):
                self._show_out(guest)
            else:
                return True
        return False

    def _show_out(self, guest):
        self._selector.unregister(guest.connection)
        self._clients.remove(guest)
        # Reset the connection so that the port is not left in TIME_WAIT.
        guest.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        guest.connection.close()

    def _odd_index(self, guest) -> str:
        others = [other.peer for other in self._clients if other is not guest and other.index == guest.index]
        if others or guest.index == 0:
            both = f"{(others or [self._addresses[0]])[0]} and {guest.peer}"
            return f"Expected an index of its own for each worker, received {guest.index} from {both}. Mend TF_CONFIG."
        if not 0 < guest.index < len(self._addresses):
            return (
                f"Expected the same TF_CONFIG on every worker; it names {len(self._addresses)} workers on worker 0, "
                f"and worker {guest.index} came, from {guest.peer}."
            )
        return ""

    def _tell(self, verdict):
        """Sends the verdict and lets each worker close first, as the side that does keeps its port in TIME_WAIT."""
        deadline = time.monotonic() + PARTING_SECONDS
        told = [guest.connection for guest in self._clients if guest.index is not None]
        for connection in told:
            connection.settimeout(PARTING_SECONDS)
            try:
                connection.sendall(verdict.line())
            except OSError:  # the worker has died; TensorFlow will detect that
                continue
        for connection in told:
            try:
                connection.settimeout(max(0.01, deadline - time.monotonic()))
                while connection.recv(65536):
                    pass
            except OSError:
                continue


def tell_differences(facts: Sequence[Mapping[str, str]], what: str = "recipe") -> str:
    """Returns a message with the first `TROUBLE` of a worker, or else the facts that differ; empty if there are none.

    Args:
        facts: facts of each worker, by name, in the order of worker indices.
        what: subject of the facts, for the message.
    """
    for index, each in enumerate(facts):
        if each.get(TROUBLE):
            return f"Worker {index} can't begin: {each[TROUBLE]}"
    differences = []
    for name in dict.fromkeys(name for each in facts for name in each):
        holders: dict[str, list[str]] = {}
        for index, each in enumerate(facts):
            holders.setdefault(str(each.get(name, "unknown")), []).append(str(index))
        if len(holders) > 1:
            told = (
                f"{value[:LONGEST_VALUE]} on worker{'s' * (len(who) > 1)} {first_few(who)}"
                for value, who in holders.items()
            )
            differences.append(f"{name} is {' and '.join(told)}")
    if not differences:
        return ""
    more = len(differences) - 5
    shown = "; ".join(differences[:5]) + (f"; and {more} more differ" if more > 0 else "")
    return f"Expected the same {what} on every worker; {shown}."
