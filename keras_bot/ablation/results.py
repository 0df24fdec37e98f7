"""Results of an ablation, read from its run directories."""

import dataclasses
import json
import pathlib
import statistics
from collections.abc import Mapping, Sequence

from keras_bot.ablation.intervals import mean_interval, paired_difference
from keras_bot.ablation.rows import Row
from keras_bot.errors import RunError
from keras_bot.training.curves import read_history


@dataclasses.dataclass(frozen=True)
class RunResults:
    """Results of a finished run; metrics are fractions.

    Attributes:
        value: the metric after the last epoch.
        best: the best value over all epochs.
        curve: the metric after each epoch.
        seconds: training time of each epoch.
        parameters, flops: of the network; flops is None if not counted.
    """

    value: float
    best: float
    curve: tuple[float, ...]
    seconds: tuple[float, ...]
    parameters: int
    flops: int | None


def read_results(run_dir: pathlib.Path, metric: str) -> RunResults:
    """Reads the results of a finished run. Raises RunError if metrics.json or history.csv is damaged."""
    try:
        metrics = json.loads((run_dir / "metrics.json").read_text(encoding="utf-8"))
        history = read_history(run_dir / "history.csv")
        curve = tuple(row[f"val_{metric}"] for row in history)
        return RunResults(
            value=metrics["result"][metric],
            best=metrics["result"].get(f"best_{metric}", max(curve)),
            curve=curve,
            seconds=tuple(row["seconds"] for row in history),
            parameters=metrics["network"]["parameters"],
            flops=metrics["network"]["flops"],
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"Cannot read the results in {run_dir}: {error!r}. Its files were edited or damaged.") from None


def summarise(
    rows: Sequence[Row],
    seeds: Sequence[int],
    runs: Mapping[tuple[str, int], RunResults],
    failures: Mapping[tuple[str, int], str],
    *,
    metric: str,
    mode: str,
) -> dict:
    """Returns the contents of `table.json`. Everything except "timing" is reproducible on the same machine.

    Args:
        rows: the rows in order.
        seeds: requested seeds of each row.
        runs: results of the finished runs, by row name and seed.
        failures: failure reasons, by row name and seed.
        metric: the table's metric.
        mode: one of `rows.MODES`; selects the row that `difference` compares with.

    Returns:
        mode, task, metric, requested seeds, rows and timing (seconds_per_epoch by row, a median without each run's
        first epoch). Each row has name, recipe_file, finished seeds and their values, mean and its interval, difference
        (see `intervals.paired_difference`) to the row named in `to`, best (mean over seeds of the best epoch's value),
        parameters, flops, paper (a fraction) and failed (reasons by seed). Unknown entries are None.
    """
    table, timing, values = [], {}, {}
    for index, row in enumerate(rows):
        finished = {seed: runs[row.name, seed] for seed in seeds if (row.name, seed) in runs}
        values[row.name] = {seed: results.value for seed, results in finished.items()}
        other = rows[0 if mode == "leave_one_out" else index - 1].name if index else None
        failed = {str(seed): failures[row.name, seed] for seed in seeds if (row.name, seed) in failures}
        table.append(_row(row, metric, finished, values[row.name], other and (other, values[other]), failed))
        timing[row.name] = {"seconds_per_epoch": _seconds_per_epoch(finished.values())}
    facts = {"mode": mode, "task": rows[0].recipe.task, "metric": metric, "seeds": list(seeds)}
    return {**facts, "rows": table, "timing": timing}


def _row(row, metric, finished, values, other, failed):
    mean, interval = mean_interval(list(values.values())) if values else (None, None)
    difference = other and paired_difference(values, other[1])
    paper = row.paper.get(metric, row.paper.get(""))
    first = next(iter(finished.values()), None)
    return {
        "name": row.name,
        "recipe_file": row.file,
        "seeds": list(values),
        "values": list(values.values()),
        "mean": mean,
        "interval": interval and list(interval),
        "difference": difference and {"to": other[0], **difference},
        "best": statistics.fmean(results.best for results in finished.values()) if finished else None,
        "parameters": first and first.parameters,
        "flops": first and first.flops,
        "paper": None if paper is None else round(paper / 100, 6),
        "failed": failed,
    }


def _seconds_per_epoch(runs):
    seconds = [second for run in runs for second in run.seconds[1:] or run.seconds]
    return round(statistics.median(seconds), 3) if seconds else None


def mean_curves(
    rows: Sequence[Row], runs: Mapping[tuple[str, int], RunResults]
) -> dict[str, list[tuple[float, float, float]]]:
    """Returns (mean, lowest, highest) over seeds per epoch, for each row with a finished run."""
    curves = {}
    for row in rows:
        seeds = [run.curve for (name, _), run in runs.items() if name == row.name]
        if seeds:
            curves[row.name] = [(statistics.fmean(at), min(at), max(at)) for at in zip(*seeds, strict=True)]
    return curves
