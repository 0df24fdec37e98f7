"""Validated contents of a run directory: metrics.json, history.csv, and notes on what is missing."""

import dataclasses
import math
import pathlib
import re

from keras_bot.errors import MisuseError, RunError
from keras_bot.recipe import Recipe
from keras_bot.report.predictions import Predictions
from keras_bot.training.checkpoints.run_directory import read_metrics
from keras_bot.training.curves import METRIC_LABELS, read_history

_PARTS = ("result", "dataset", "network", "versions")


@dataclasses.dataclass(frozen=True)
class RunRecord:
    """The files of one run, as shown on the page.

    Attributes:
        name: the run's unique name on the page.
        path: the run directory, as given by the user.
        recipe: from run.flags.
        metrics: metrics.json, with result, dataset, network and versions as dicts, tricks as a list.
        history: one row per epoch, float by column; [] if there is none.
        notes: what is missing on the page and why, one sentence each.
        predictions: on the evaluation set; None if there are none.
    """

    name: str
    path: pathlib.Path
    recipe: Recipe
    metrics: dict
    history: list[dict[str, float]]
    notes: tuple[str, ...] = ()
    predictions: Predictions | None = None

    @property
    def main_metric(self) -> str:
        """The metric that selected the best network: top1, map or mean_iou."""
        return next(name.removeprefix("best_") for name in self.metrics["result"] if name.startswith("best_"))

    @property
    def metric_names(self) -> list[str]:
        """The evaluation's metrics, the main one first."""
        names = [self.main_metric, *(name for name in METRIC_LABELS if name in self.metrics["result"])]
        return list(dict.fromkeys(names))

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes it was trained on, in order."""
        return tuple(self.metrics["dataset"]["class_names"])

    def column(self, name: str) -> list[float]:
        """Returns a column of the history; NaN for epochs without it."""
        return [row.get(name, math.nan) for row in self.history]

    def with_predictions(self, predictions: Predictions) -> "RunRecord":
        """Returns a copy with the network's predictions."""
        return dataclasses.replace(self, predictions=predictions)

    def with_note(self, note: str) -> "RunRecord":
        """Returns a copy with one more note."""
        return dataclasses.replace(self, notes=(*self.notes, note))


def read_run(path: pathlib.Path, recipe: Recipe, name: str) -> RunRecord:
    """Reads the run in a directory. A missing or damaged history becomes a note.

    Raises:
        MisuseError: if metrics.json is missing, as in an unfinished run, or is damaged.
    """
    try:
        metrics = read_metrics(path)
    except RunError as error:
        raise MisuseError(str(error)) from None
    _check(metrics, path)
    run = RunRecord(name, path, recipe, {"tricks": [], "versions": {}, **metrics}, [])
    try:
        run = dataclasses.replace(run, history=read_history(path / "history.csv"))
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        run = run.with_note(f"No curves: history.csv cannot be read ({reason}).")
    finished = metrics["result"].get("epochs", 0)
    if finished < recipe.epochs:
        run = run.with_note(f"The training is not finished: {finished} of {recipe.epochs} epochs.")
    return run


def _check(metrics, path):
    """Raises MisuseError unless the parts that the page reads have the right types."""
    parts = {name: metrics.get(name, {}) for name in _PARTS}
    wrong = [name for name, part in parts.items() if not isinstance(part, dict)]
    if not wrong:
        classes = parts["dataset"].get("class_names")
        result = parts["result"]
        wrong += [f"result.{name}" for name, value in result.items() if not isinstance(value, int | float | None)]
        wrong += [] if any(name.startswith("best_") for name in result) else ["result"]
        counts = {
            "network.parameters": parts["network"].get("parameters"),
            "network.flops": parts["network"].get("flops"),
        }
        counts |= {f"dataset.{name}": parts["dataset"].get(name) for name in ("train_images", "eval_images")}
        wrong += [name for name, value in counts.items() if not isinstance(value, int | float | None)]
        wrong += [name for name in ("tricks", "corrupt_images") if not isinstance(metrics.get(name, []), list)]
        wrong += [] if isinstance(classes, list) and classes else ["dataset.class_names"]
    if wrong:
        raise MisuseError(f"{path / 'metrics.json'} is damaged: {wrong[0]} has an invalid value. Restore the file.")


def name_runs(paths: list[pathlib.Path]) -> list[str]:
    """Names each run by the parts of its path that differ: a/2_cosine/seed0, a/3_mixup/seed0 -> 2_cosine, 3_mixup.

    Raises:
        MisuseError: if one directory is given twice.
    """
    parts = [path.resolve().parts for path in paths]
    for place, part in enumerate(parts):
        if part in parts[:place]:
            raise MisuseError(f"The run directory {paths[place]} was given twice. Remove one.")
    if len(parts) == 1:  # runs of an ablation are called seed0, …
        return ["/".join(parts[0][-2:]) if re.fullmatch(r"seed\d+", parts[0][-1]) else parts[0][-1]]
    while all(len(part) > 1 for part in parts) and len({part[0] for part in parts}) == 1:
        parts = [part[1:] for part in parts]
    while all(len(part) > 1 for part in parts) and len({part[-1] for part in parts}) == 1:
        parts = [part[:-1] for part in parts]
    return ["/".join(part) for part in parts]
