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
class Trainer:
    """Facts about the trainer, which isn't imported in this process.

    Attributes:
        metrics: metrics of the recipes' task; the first selects the best network.
        may_differ: recipe fields that may change when a run is resumed.
    """

    metrics: tuple[str, ...]
    may_differ: tuple[str, ...]


def check_recipes(rows: Sequence[Row], command: Sequence[str]) -> Trainer:
    """Opens the data and builds the network of each recipe, as training would.

    Args:
        rows: at least one; all of one task.
        command: command that starts the process, which calls `answer`.

    Raises:
        MisuseError: for the first recipe that can't be trained.
        RunError: if the check itself fails.
    """
    question = [[row.name, row.file, dataclasses.asdict(row.recipe)] for row in rows]
    ended = subprocess.run(
        command,
        input=json.dumps(question),
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        env=child_environment(),
        preexec_fn=kill_with_parent(),
    )
    try:
        told = json.loads(ended.stdout.strip().rpartition("\n")[2])
    except ValueError:
        last = (ended.stderr.strip() or ended.stdout.strip() or "it said nothing").splitlines()[-1]
        raise RunError(f"Can't check the recipes (exit code {ended.returncode}): {last}") from None
    if "misuse" in told:
        raise MisuseError(told["misuse"])
    return Trainer(tuple(told["metrics"]), tuple(told["may_differ"]))


def answer(start_backend: Callable[[], None]):
    """Runs the checking process."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # keeps library output off the answer stream
    question = json.load(sys.stdin)
    try:
        start_backend()
        told = plan_all(question)
    except MisuseError as error:
        told = {"misuse": str(error)}
    print(json.dumps(told), file=answers, flush=True)


def plan_all(question: list) -> dict:
    """Plans [[name, file, recipe fields], …]; returns metrics and may_differ. Raises MisuseError for a bad recipe."""
    from keras_bot.plan import plan
    from keras_bot.tasks.lookup import find_task
    from keras_bot.training.checkpoints.run_directory import MAY_DIFFER

    for name, file, knobs in question:
        try:
            recipe = Recipe(**knobs)
            task = find_task(recipe.task)
            plan(recipe, task)
        except MisuseError as error:
            raise MisuseError(f"{file} (row {name}): {error}") from None
    return {"metrics": task.metrics, "may_differ": MAY_DIFFER}
