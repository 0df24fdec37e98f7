"""The workers of a run, read from TF_CONFIG."""

import dataclasses
import json
import os
import re
from collections.abc import Mapping

from keras_bot.errors import MisuseError
from keras_bot.recipe import Recipe

EXAMPLE = '{"cluster": {"worker": ["host0:2222", "host1:2222"]}, "task": {"type": "worker", "index": 0}}'


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


def is_tf_config_set(environ: Mapping[str, str] = os.environ) -> bool:
    """Returns whether TF_CONFIG is set. Like TensorFlow, treats an empty string and {} as not set."""
    return "".join(environ.get("TF_CONFIG", "").split()) not in ("", "{}")


def read_cluster(environ: Mapping[str, str] = os.environ) -> Cluster:
    """Parses the workers from TF_CONFIG. Like TensorFlow, counts a `chief` job as the first worker.

    Raises:
        MisuseError: if TF_CONFIG is missing or invalid.
    """
    if not is_tf_config_set(environ):
        raise MisuseError(
            "Multi-worker training needs the workers in TF_CONFIG, which is not set. Set it on every worker, or start "
            "local workers with `keras-bot launch --workers=N -- train …`."
        )
    text = environ["TF_CONFIG"].strip()
    try:
        config = json.loads(text)
    except ValueError as error:
        raise MisuseError(f"TF_CONFIG is not JSON: {text[:100]!r} ({error}). Example: {EXAMPLE}") from None
    jobs, (kind, index) = _jobs(config), _task(config)
    if kind not in jobs:
        raise _invalid("a task.type that is a job of the cluster", kind)
    if not 0 <= index < len(jobs[kind]):
        raise _invalid(f"a task.index from 0 to {len(jobs[kind]) - 1} for {len(jobs[kind])} {kind}s", index)
    addresses = (*jobs.get("chief", ()), *jobs.get("worker", ()))
    for address in addresses:
        split_address(address)
        if addresses.count(address) > 1:
            raise _invalid("a different address for each worker", f"{address} twice")
    return Cluster(addresses, index + (len(jobs.get("chief", ())) if kind == "worker" else 0))


def _jobs(config) -> dict[str, list[str]]:
    cluster = config.get("cluster") if isinstance(config, dict) else None
    if not isinstance(cluster, dict) or not cluster:
        raise _invalid("an object with cluster.worker", config)
    for job, addresses in cluster.items():
        if job not in ("chief", "worker"):
            raise _invalid("worker jobs and at most one chief job", job)
        if not isinstance(addresses, list) or not addresses or not all(isinstance(item, str) for item in addresses):
            raise _invalid(f'a list of "host:port" as cluster.{job}', addresses)
    if len(cluster.get("chief", "1")) > 1:
        raise _invalid("one chief", cluster["chief"])
    return cluster


def _task(config) -> tuple[str, int]:
    task = config.get("task")
    if not isinstance(task, dict) or not isinstance(task.get("type"), str):
        raise _invalid("an object with task.type and task.index", task)
    index = task.get("index")
    if isinstance(index, bool) or not re.fullmatch(r"-?[0-9]{1,9}", str(index)):
        raise _invalid("an integer as task.index", index)
    return task["type"], int(task["index"])


def _invalid(needed, received):
    shown = received if isinstance(received, str) else json.dumps(received)
    return MisuseError(f"TF_CONFIG needs {needed}, received {shown[:200]}. Example: {EXAMPLE}")


def split_address(address: str) -> tuple[str, int]:
    """Splits "host:port" or "[::1]:port" into host and port. Raises MisuseError if it is neither."""
    match = re.fullmatch(r"(\[[0-9A-Fa-f:.%\w]+\]|[^:\[\]\s/]+):([0-9]{1,5})", address)
    malformed = _invalid("each worker's address as host:port", address)
    if match is None:
        raise malformed
    host, port = match[1].strip("[]"), int(match[2])
    try:
        host.encode("idna")
    except UnicodeError:  # not a valid host name
        raise malformed from None
    if not 0 < port < 65536:
        raise _invalid("ports from 1 to 65535", address)
    return host, port


def find_cluster(recipe: Recipe) -> Cluster | None:
    """Returns the workers from TF_CONFIG if the strategy is "multi_worker", or "auto" with TF_CONFIG set; else None.

    Raises:
        MisuseError: if TF_CONFIG is needed but missing, or invalid.
    """
    wanted = recipe.strategy == "multi_worker" or (recipe.strategy == "auto" and is_tf_config_set())
    return read_cluster() if wanted else None
