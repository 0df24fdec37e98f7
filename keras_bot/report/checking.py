"""Whether recipes can be trained at all, asked in a process of its own, so that this one never starts a backend.

It reads the recipes as JSON, plans each as `keras-bot train --dry_run` does, and answers with a line of JSON.
"""

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence

from keras_bot.errors import MisuseError, RunError
from keras_bot.recipe import Recipe
from keras_bot.report.processes import child_environment, tie_to_parent
from keras_bot.report.rows import Row


@dataclasses.dataclass(frozen=True)
class Trainer:
    """What has to be known of the trainer, which isn't imported here.

    Attributes:
        metrics: of the recipes' task, the one that the best network is chosen by first.
        may_differ: knobs that may change between a run and its resumption.
    """

    metrics: tuple[str, ...]
    may_differ: tuple[str, ...]


def check_recipes(rows: Sequence[Row], command: Sequence[str]) -> Trainer:
    """Opens each recipe's data and builds its network, as its training will.

    Args:
        rows: at least one, of one task.
        command: starts the process, which calls `answer`.

    Raises:
        MisuseError: for the first recipe that can't be trained.
        RunError: if that can't be found out.
    """
    question = [[row.name, row.file, dataclasses.asdict(row.recipe)] for row in rows]
    ended = subprocess.run(
        command,
        input=json.dumps(question),
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        env=child_environment(),
        preexec_fn=tie_to_parent(),
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
    """The process."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print is no answer
    question = json.load(sys.stdin)
    try:
        start_backend()
        told = plan_all(question)
    except MisuseError as error:
        told = {"misuse": str(error)}
    print(json.dumps(told), file=answers, flush=True)


def plan_all(question: list) -> dict:
    """The answer to [[name, file, knobs], …]: metrics and may_differ. Raises MisuseError for what can't be trained."""
    from keras_bot.training.plan import plan
    from keras_bot.training.records import MAY_DIFFER
    from keras_bot.transfer.tasks import find_task

    for name, file, knobs in question:
        try:
            recipe = Recipe(**knobs)
            task = find_task(recipe.task)
            plan(recipe, task)
        except MisuseError as error:
            raise MisuseError(f"{file} (row {name}): {error}") from None
    return {"metrics": task.metrics, "may_differ": MAY_DIFFER}
