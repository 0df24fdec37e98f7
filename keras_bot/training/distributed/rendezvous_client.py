"""The workers' rendezvous before the backend connects them.

TensorFlow waits a long time for a missing worker and does not notice that a worker trains with another recipe. The
workers therefore connect to the chief's address first: each sends its facts, and the chief sends all of them the same
result.
"""

import math
import os
import socket
import sys
import time
from collections.abc import Mapping

from keras_bot.errors import MisuseError, RunError
from keras_bot.training.distributed.cluster import Cluster, split_address
from keras_bot.training.distributed.rendezvous import (
    RendezvousResult,
    RendezvousServer,
    hello_line,
    listen,
    read_line,
)

TIMEOUT_VARIABLE = "KERAS_BOT_CONNECT_SECONDS"
OLD_TIMEOUT_VARIABLE = "KERAS_BOT_MEETING_SECONDS"  # of version 0.1.0
TIMEOUT_SECONDS = 300.0
ATTEMPT_SECONDS = 5.0  # timeout of one connection attempt
RETRY_SECONDS = 0.3  # pause between attempts


def connect_workers(cluster: Cluster | None, facts: dict[str, str]) -> None:
    """Waits for the other workers, if any, and compares facts with them. Call it before the backend starts.

    The environment variable KERAS_BOT_CONNECT_SECONDS sets the timeout.

    Raises:
        MisuseError: if workers differ in their facts, or KERAS_BOT_CONNECT_SECONDS is not a positive number.
        RunError: if a worker does not connect in time, or this worker's port is in use.
    """
    if cluster and cluster.workers > 1:
        rendezvous(cluster, facts, _read_timeout(os.environ))


def _read_timeout(environ):
    name = TIMEOUT_VARIABLE
    if OLD_TIMEOUT_VARIABLE in environ and TIMEOUT_VARIABLE not in environ:
        name = OLD_TIMEOUT_VARIABLE
        print(f"keras-bot: {OLD_TIMEOUT_VARIABLE} is now {TIMEOUT_VARIABLE}.", file=sys.stderr, flush=True)
    text = environ.get(name, "")
    try:
        seconds = float(text or TIMEOUT_SECONDS)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise MisuseError(f"{name}={text!r} is not a number of seconds above 0. Correct or unset it.")
    return seconds


def rendezvous(cluster: Cluster, facts: Mapping[str, str], timeout: float = TIMEOUT_SECONDS) -> None:
    """Waits for all workers and compares their facts. Every worker must call this before TensorFlow starts.

    When it returns, the workers' ports are free again for TensorFlow.

    Args:
        cluster: the workers and this worker's index.
        facts: values, by name, that must be the same on every worker.
        timeout: seconds to wait for missing workers. A worker that has connected to the chief waits for the result,
            which is sent when the chief's own timeout expires at the latest.

    Raises:
        MisuseError: if facts differ between workers, or two workers have the same index.
        RunError: if workers do not connect in time, or this worker's port is in use.
    """
    if cluster.workers == 1:
        return
    facts = {**facts, "TF_CONFIG's cluster": ",".join(cluster.addresses)}
    listener = _listen_on_own_port(cluster)
    if cluster.is_chief:
        result = RendezvousServer(listener, cluster.addresses, facts).run(timeout)
    else:
        listener.close()
        result = _request_result(cluster, facts, timeout)
    result.raise_error()


def _listen_on_own_port(cluster) -> socket.socket:
    port = split_address(cluster.addresses[cluster.index])[1]
    try:
        return listen(port)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise RunError(
            f"Worker {cluster.index} cannot listen on its port {port}: {reason}. Stop the process "
            "that uses it, or choose another port in every worker's TF_CONFIG."
        ) from None


def _request_result(cluster, facts, timeout) -> RendezvousResult:
    """Requests the result from the chief. Retries until the timeout, as the chief may not have started yet."""
    deadline = time.monotonic() + timeout
    chief, is_reported = f"worker 0 ({cluster.addresses[0]})", False
    while True:
        attempt_seconds = max(0.1, min(ATTEMPT_SECONDS, deadline - time.monotonic()))
        try:
            return _request_once(cluster, facts, timeout, attempt_seconds)
        except socket.gaierror as error:
            problem = f"its host name cannot be resolved ({error.strerror})"
            if not is_reported:
                print(f"keras-bot: waiting for {chief}: {problem}", file=sys.stderr, flush=True)
                is_reported = True
        except TimeoutError:
            problem = "the connection timed out"
        except OSError as error:
            problem = error.strerror or str(error)
        except ValueError:
            problem = "another program is listening on that address"
        if time.monotonic() + RETRY_SECONDS > deadline:
            raise RunError(
                f"No answer from {chief} to worker {cluster.index} within {timeout:g} s: {problem}. "
                "Start it, or correct its address in TF_CONFIG."
            )
        time.sleep(RETRY_SECONDS)


def _request_once(cluster, facts, timeout, attempt_seconds) -> RendezvousResult:
    with socket.create_connection(split_address(cluster.addresses[0]), attempt_seconds) as connection:
        if connection.getsockname() == connection.getpeername():  # TCP can connect a free local port to itself
            raise ConnectionRefusedError("no process is listening there")
        connection.sendall(hello_line(cluster.index, facts))
        connection.settimeout(timeout + ATTEMPT_SECONDS)
        return RendezvousResult.from_line(read_line(connection))
