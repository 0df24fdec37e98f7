"""The workers of a run, read from TF_CONFIG, and their rendezvous before the backend connects them.

TensorFlow waits a long time for a missing worker and does not notice that a worker trains with another recipe. The
workers therefore connect to the chief's address first: each sends its facts, and the chief sends all the same verdict.
"""

import dataclasses
import json
import math
import os
import re
import socket
import sys
import time
from collections.abc import Mapping

from keras_bot.errors import MisuseError, RunError
from keras_bot.recipe import Recipe
from keras_bot.training.distributed.rendezvous import RendezvousServer, Verdict, hello_line, listen, read_line

EXAMPLE = '{"cluster": {"worker": ["host0:2222", "host1:2222"]}, "task": {"type": "worker", "index": 0}}'
CONNECT_SECONDS = 5.0  # per attempt
MEETING_SECONDS = 300.0
PAUSE_SECONDS = 0.3  # between attempts


@dataclasses.dataclass(frozen=True)
class Cluster:
    """The processes that train together, and the index of this one.

    Args:
        addresses: "host:port" of each worker, the chief first.
        index: index of this worker in `addresses`.
    """

    addresses: tuple[str, ...]
    index: int

    @property
    def workers(self) -> int:
        """Number of workers."""
        return len(self.addresses)

    @property
    def is_chief(self) -> bool:
        """Whether this is worker 0, the only one that reads and writes the run directory."""
        return self.index == 0


def names_workers(environ: Mapping[str, str] = os.environ) -> bool:
    """Returns whether TF_CONFIG is set. Like TensorFlow, treats an empty string and {} as not set."""
    return "".join(environ.get("TF_CONFIG", "").split()) not in ("", "{}")


def read_cluster(environ: Mapping[str, str] = os.environ) -> Cluster:
    """Parses the workers from TF_CONFIG. Like TensorFlow, counts a `chief` job as the first worker.

    Raises:
        MisuseError: if TF_CONFIG is missing or invalid.
    """
    if not names_workers(environ):
        raise MisuseError(
            "Expected the workers in TF_CONFIG, which isn't set. Set it on every worker, or start local workers by "
            "`keras-bot launch --workers=N -- train …`."
        )
    text = environ["TF_CONFIG"].strip()
    try:
        config = json.loads(text)
    except ValueError as error:
        raise MisuseError(f"Expected TF_CONFIG as JSON, received {text[:100]!r} ({error}). As in {EXAMPLE}") from None
    jobs, (kind, index) = _jobs(config), _task(config)
    if kind not in jobs:
        raise _misshapen("task.type to be a job of the cluster", kind)
    if not 0 <= index < len(jobs[kind]):
        raise _misshapen(f"task.index of 0 to {len(jobs[kind]) - 1}, as there are {len(jobs[kind])} {kind}s", index)
    addresses = (*jobs.get("chief", ()), *jobs.get("worker", ()))
    for address in addresses:
        split_address(address)
        if addresses.count(address) > 1:
            raise _misshapen("an address of its own for each worker", f"{address} twice")
    return Cluster(addresses, index + (len(jobs.get("chief", ())) if kind == "worker" else 0))


def _jobs(config) -> dict[str, list[str]]:
    cluster = config.get("cluster") if isinstance(config, dict) else None
    if not isinstance(cluster, dict) or not cluster:
        raise _misshapen("an object with cluster.worker", config)
    for job, addresses in cluster.items():
        if job not in ("chief", "worker"):
            raise _misshapen("worker jobs, with or without a chief", job)
        if not isinstance(addresses, list) or not addresses or not all(isinstance(each, str) for each in addresses):
            raise _misshapen(f'cluster.{job} as a list of "host:port"', addresses)
    if len(cluster.get("chief", "1")) > 1:
        raise _misshapen("one chief", cluster["chief"])
    return cluster


def _task(config) -> tuple[str, int]:
    task = config.get("task")
    if not isinstance(task, dict) or not isinstance(task.get("type"), str):
        raise _misshapen("an object with task.type and task.index", task)
    index = task.get("index")
    if isinstance(index, bool) or not re.fullmatch(r"-?[0-9]{1,9}", str(index)):
        raise _misshapen("task.index as a whole number", index)
    return task["type"], int(index)


def _misshapen(expected, received):
    shown = received if isinstance(received, str) else json.dumps(received)
    return MisuseError(f"Expected {expected} in TF_CONFIG, received {shown[:200]}. As in {EXAMPLE}")


def split_address(address: str) -> tuple[str, int]:
    """Splits "host:port" or "[::1]:port" into host and port. Raises MisuseError if it is neither."""
    match = re.fullmatch(r"(\[[0-9A-Fa-f:.%\w]+\]|[^:\[\]\s/]+):([0-9]{1,5})", address)
    try:
        host, port = match[1].strip("[]"), int(match[2])
        host.encode("idna")
    except (TypeError, UnicodeError):  # no match; invalid host name
        raise _misshapen("each worker as host:port", address) from None
    if not 0 < port < 65536:
        raise _misshapen("ports from 1 to 65535", address)
    return host, port


def meet(cluster: Cluster, facts: Mapping[str, str], timeout: float = 300.0):
    """Waits for all workers and compares their facts. Every worker must call this before TensorFlow starts.

    When it returns, the workers' ports are free again for TensorFlow.

    Args:
        cluster: the workers and this worker's index.
        facts: values, by name, that must be the same on every worker.
        timeout: seconds to wait for missing workers. A worker that has connected to the chief waits for its verdict,
            which is sent when the chief's own timeout expires at the latest.

    Raises:
        MisuseError: if facts differ between workers, or two workers have the same index.
        RunError: if workers do not connect in time, or this worker's port is in use.
    """
    if cluster.workers == 1:
        return
    facts = {**facts, "TF_CONFIG's cluster": ",".join(cluster.addresses)}
    listener = _own_port(cluster)
    if cluster.is_chief:
        verdict = RendezvousServer(listener, cluster.addresses, facts).judge(timeout)
    else:
        listener.close()
        verdict = _ask(cluster, facts, timeout)
    verdict.enforce()


def _own_port(cluster) -> socket.socket:
    port = split_address(cluster.addresses[cluster.index])[1]
    try:
        return listen(port)
    except OSError as error:
        raise RunError(
            f"Worker {cluster.index} can't listen on its port {port}: {os.strerror(error.errno)}. End the process that "
            "uses it, or choose another port in every worker's TF_CONFIG."
        ) from None


def _ask(cluster, facts, timeout) -> Verdict:
    """Requests the chief's verdict. Retries until the timeout, as the chief may not have started yet."""
    deadline = time.monotonic() + timeout
    chief, told = f"worker 0 ({cluster.addresses[0]})", False
    while True:
        try:
            return _ask_once(cluster, facts, timeout, max(0.1, min(CONNECT_SECONDS, deadline - time.monotonic())))
        except socket.gaierror as error:
            problem = f"its host can't be resolved ({error.strerror})"
            if not told:
                print(f"keras-bot: waiting for {chief}: {problem}", file=sys.stderr, flush=True)
                told = True
        except TimeoutError:
            problem = "no connection in time"
        except OSError as error:
            problem = error.strerror or str(error)
        except ValueError:
            problem = "what listens there is no worker that waits for others"
        if time.monotonic() + PAUSE_SECONDS > deadline:
            raise RunError(
                f"W{chief[1:]} didn't answer worker {cluster.index} within {timeout:g} s: {problem}. "
                "Start it, or mend TF_CONFIG."
            )
        time.sleep(PAUSE_SECONDS)


def _ask_once(cluster, facts, timeout, connect_seconds) -> Verdict:
    with socket.create_connection(split_address(cluster.addresses[0]), connect_seconds) as connection:
        if connection.getsockname() == connection.getpeername():  # TCP can connect a free local port to itself
            raise ConnectionRefusedError("nothing listens there")
        connection.sendall(hello_line(cluster.index, facts))
        connection.settimeout(timeout + CONNECT_SECONDS)
        return Verdict.read(read_line(connection))


def find_cluster(recipe: Recipe) -> Cluster | None:
    """Returns the workers from TF_CONFIG if the strategy is "multi_worker", or "auto" with TF_CONFIG set; else None.

    Raises:
        MisuseError: if TF_CONFIG is needed but missing, or invalid.
    """
    wanted = recipe.strategy == "multi_worker" or (recipe.strategy == "auto" and names_workers())
    return read_cluster() if wanted else None


def meet_workers(cluster: Cluster | None, facts: dict[str, str]):
    """Waits for the other workers, if any, and compares facts with them. Call it before the backend starts.

    The environment variable KERAS_BOT_MEETING_SECONDS sets the timeout.

    Raises:
        MisuseError: if workers differ in their facts, or KERAS_BOT_MEETING_SECONDS is not a positive number.
        RunError: if a worker does not connect in time, or this worker's port is in use.
    """
    if cluster and cluster.workers > 1:
        meet(cluster, facts, _meeting_seconds(os.environ.get("KERAS_BOT_MEETING_SECONDS", "")))


def _meeting_seconds(text):
    try:
        seconds = float(text or MEETING_SECONDS)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise MisuseError(f"Expected KERAS_BOT_MEETING_SECONDS as seconds above 0, received {text!r}. Unset it.")
    return seconds
