"""Validation of recipes in a separate process, so that this process never starts a backend.

The process reads the recipes as JSON, plans each as `keras-bot train --dry_run` does, and prints one line of JSON.
"""

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence

from keras_bot.ablation.rows import Row
from keras_bot.errors import MisuseError, RunError
from keras_bot.recipe import Recipe
from keras_bot.subprocesses import child_environment, kill_with_parent


@dataclasses.dataclass(frozen=True)
class TrainerInfo:
    """Facts about the trainer, which isn't imported in this process.

    Attributes:
        metrics: metrics of the recipes' task; the first selects the best network.
        may_differ: recipe fields that may change when a run is resumed.
    """

    metrics: tuple[str, ...]
    may_differ: tuple[str, ...]


def check_recipes(rows: Sequence[Row], command: Sequence[str]) -> TrainerInfo:
    """Opens the data and builds the network of each recipe, as training would.

    Args:
        rows: at least one row; all must have the same task.
        command: command that starts the process, which calls `serve_check`.

    Raises:
        MisuseError: for the first recipe that can't be trained.
        RunError: if the check itself fails.
    """
    request = [[row.name, row.file, dataclasses.asdict(row.recipe)] for row in rows]
    process = subprocess.run(
        command,
        input=json.dumps(request),
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        env=child_environment(),
        preexec_fn=kill_with_parent(),
    )
    try:
        reply = json.loads(process.stdout.strip().rpartition("\n")[2])
    except ValueError:
        last_line = (process.stderr.strip() or process.stdout.strip() or "no output").splitlines()[-1]
        raise RunError(f"The recipe check failed (exit code {process.returncode}): {last_line}") from None
    if "misuse" in reply:
        raise MisuseError(reply["misuse"])
    return TrainerInfo(tuple(reply["metrics"]), tuple(reply["may_differ"]))


def serve_check(start_backend: Callable[[], None]) -> None:
    """Runs in the checking process: answers the request on stdin with one line on stdout."""
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # keeps library output off the reply stream
    request = json.load(sys.stdin)
    try:
        start_backend()
        reply = plan_recipes(request)
    except MisuseError as error:
        reply = {"misuse": str(error)}
    print(json.dumps(reply), file=replies, flush=True)


def plan_recipes(request: list) -> dict:
    """Plans [[name, file, recipe fields], …]; returns metrics and may_differ. Raises MisuseError for a bad recipe."""
    from keras_bot.plan import plan
    from keras_bot.tasks import find_task
    from keras_bot.training.checkpoints.run_directory import MAY_DIFFER

    for name, file, fields in request:
        try:
            recipe = Recipe(**fields)
            task = find_task(recipe.task)
            plan(recipe, task)
        except MisuseError as error:
            raise MisuseError(f"{file} (row {name}): {error}") from None
    return {"metrics": task.metrics, "may_differ": MAY_DIFFER}
