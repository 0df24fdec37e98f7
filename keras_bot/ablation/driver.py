"""Ablation driver: checks recipes, locks the directory, trains each run in a process, updates tables after each."""

import contextlib
import dataclasses
import pathlib
import sys
import time
from collections.abc import Callable, Iterator, Sequence

from keras_bot.ablation import plots, tables
from keras_bot.ablation.ledger import FINISHED, STARTED, AblationRun, Ledger
from keras_bot.ablation.results import RunResults, mean_curves, read_results, summarise
from keras_bot.ablation.rows import Row
from keras_bot.ablation.validate import TrainerInfo, check_recipes
from keras_bot.atomic_files import write_atomically
from keras_bot.errors import MisuseError, Terminated, one_line, unknown
from keras_bot.figures import optional_picture
from keras_bot.subprocesses import Job, run_jobs
from keras_bot.training.checkpoints.run_lock import lock_run
from keras_bot.training.curves import metric_label


@dataclasses.dataclass(frozen=True)
class Ablation:
    """Configuration of an ablation.

    Attributes:
        out: the ablation's directory.
        rows: as returned by `rows.make_rows`.
        seeds: one run per row and seed.
        mode: the mode of `rows.make_rows`.
        metric: metric of the tables; "" is the task's first.
        check_command: the command that starts the process that checks recipes, see `validate.check_recipes`.
    """

    out: pathlib.Path
    rows: Sequence[Row]
    seeds: Sequence[int]
    mode: str = "cumulative"
    metric: str = ""
    check_command: Sequence[str] = ()

    def runs(self) -> list[AblationRun]:
        """Returns all runs in order: every row with the first seed, then with the next, to fill the table early."""
        return [AblationRun(row, seed, self.out) for seed in self.seeds for row in self.rows]


def check_ablation(ablation: Ablation) -> tuple[TrainerInfo, dict[AblationRun, str]]:
    """Checks the recipes; returns facts about the trainer and each run's state (see `ledger`). Writes nothing.

    Raises:
        MisuseError: if a recipe can't be trained, the metric belongs to another task, or `out` contains other files,
            runs of other recipes, or runs that were changed by hand.
    """
    ledger = Ledger(ablation.out)
    new = ledger.new_rows(ablation.rows)
    states = {run: ledger.state(run) for run in ablation.runs()}
    trainer = check_recipes(new, ablation.check_command) if new else ledger.require_trainer()
    if ablation.metric and ablation.metric not in trainer.metrics:
        raise unknown("metric", ablation.metric, trainer.metrics)
    return trainer, states


def ablate(ablation: Ablation, *, workers: int = 1, log: Callable[[str], None] = print) -> dict:
    """Trains every row with every seed, skips finished runs, and writes the tables after each run.

    Args:
        ablation: what to run.
        workers: number of concurrent runs.
        log: called with each line of progress.

    Returns:
        The summary of `results.summarise`, which includes the failed runs and their reasons.

    Raises:
        MisuseError: as in `check_ablation`, before anything is written; or if another process is using `out`.
        KeyboardInterrupt, Terminated: after SIGINT, SIGTERM; the same call resumes the ablation.
    """
    trainer, _ = check_ablation(ablation)
    with _locked(ablation.out):
        ledger = Ledger(ablation.out)  # read again, now that no other process can write it
        ledger.trainer = trainer
        ledger.new_rows(ablation.rows)
        states = {run: ledger.state(run) for run in ablation.runs()}
        ledger.begin(ablation.runs(), mode=ablation.mode, seeds=list(ablation.seeds))
        progress = _Progress(ablation, ledger, log)
        for run in [run for run, state in states.items() if state == FINISHED]:
            progress.add_finished(run)
        jobs = {_job(run): run for run, state in states.items() if state != FINISHED}
        try:
            run_jobs(
                jobs,
                workers=workers,
                on_start=lambda job: progress.start(jobs[job], resume=states[jobs[job]] == STARTED),
                on_end=lambda job, error: progress.end(jobs[job], error),
            )
        except (KeyboardInterrupt, Terminated):
            log(f"{progress.count()}. Repeat the command to continue.")
            raise
        return progress.write_tables()


class _Progress:
    """Collects the results of runs, reports progress and writes the tables."""

    def __init__(self, ablation: Ablation, ledger: Ledger, log: Callable[[str], None]):
        self._ablation = ablation
        self._ledger = ledger
        self._log = log
        self._metric = ablation.metric or ledger.require_trainer().metrics[0]
        self._results: dict[tuple[str, int], RunResults] = {}
        self._failures: dict[tuple[str, int], str] = {}
        self._start_times: dict[AblationRun, float] = {}
        runs = ablation.runs()
        self._labels = {run: f"[{number}/{len(runs)}] {run.name}" for number, run in enumerate(runs, 1)}

    def add_finished(self, run: AblationRun):
        """Adds a run that an earlier command finished."""
        if not self._ledger.is_recorded(run):
            self._ledger.record(run)
        self._report(run, f"finished earlier, {self._read(run)}")

    def start(self, run: AblationRun, *, resume: bool):
        """Writes the flagfile of a run that starts, and reports the start."""
        self._start_times[run] = time.monotonic()
        title = f"Row {run.row.name} ({run.row.file}), seed {run.seed}"
        text = f"# {one_line(title)}\n" + "\n".join(run.recipe.flag_lines())
        run.flagfile.parent.mkdir(exist_ok=True)
        write_atomically(run.flagfile, f"{text}\n")
        self._report(run, f"{'resumed' if resume else 'started'}, output in {run.log}")

    def end(self, run: AblationRun, error: str):
        """Adds the results of a run, or the `error` that made it fail, and writes the tables."""
        seconds = time.monotonic() - self._start_times[run]
        if error:
            self._failures[run.row.name, run.seed] = error
            self._report(run, f"failed after {seconds:.0f} s: {error}")
        else:
            self._ledger.record(run)
            self._report(run, f"finished after {seconds:.0f} s, {self._read(run)}")
        self.write_tables()

    def _read(self, run):
        """Reads the results of a finished run and returns its metric as text."""
        results = self._results[run.row.name, run.seed] = read_results(run.directory, self._metric)
        return f"{metric_label(self._metric)} {100 * results.value:.2f} %"

    def _report(self, run, text):
        self._log(f"{self._labels[run]}: {text}")

    def count(self) -> str:
        """Returns the number of finished runs as text."""
        return f"{len(self._results)} of {len(self._labels)} runs finished"

    def write_tables(self) -> dict:
        """Writes the tables of the runs so far, then the optional pictures; returns the summary."""
        rows, seeds = self._ablation.rows, self._ablation.seeds
        summary = summarise(rows, seeds, self._results, self._failures, metric=self._metric, mode=self._ablation.mode)
        out, curves = self._ablation.out, mean_curves(rows, self._results)
        texts = {"table.json": tables.as_json, "table.csv": tables.as_csv, "table.md": tables.as_markdown}
        for name, text in texts.items():
            write_atomically(out / name, text(summary))
        with optional_picture(out / "table.png"):
            write_atomically(out / "table.png", plots.draw_table(summary))
        with optional_picture(out / "curves.png"):
            write_atomically(out / "curves.png", plots.draw_mean_curves(summary, curves))
        return summary


def _job(run):
    flags = (f"--flagfile={run.flagfile}", f"--run_dir={run.directory}", "--resume")
    return Job(run.name, (sys.executable, "-m", "keras_bot", "train", *flags), run.log)


@contextlib.contextmanager
def _locked(out: pathlib.Path) -> Iterator[None]:
    """Wraps `lock_run`; its error messages name the flag `--out`."""
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(lock_run(out))
        except MisuseError as error:
            raise MisuseError(f"--out={out}: {error}") from None
        yield
