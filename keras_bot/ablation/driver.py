"""Ablation driver: checks recipes, locks the directory, trains each run in a process, updates tables after each."""

import contextlib
import dataclasses
import pathlib
import sys
import time
from collections.abc import Callable, Iterator, Sequence

from keras_bot.ablation import plots, tables
from keras_bot.ablation.ledger import BEGUN, DONE, Ledger, Run
from keras_bot.ablation.results import mean_curves, read_run, summarise
from keras_bot.ablation.rows import Row
from keras_bot.ablation.validate import Trainer, check_recipes
from keras_bot.atomic_files import write_atomically
from keras_bot.errors import MisuseError, Terminated, one_line, unknown
from keras_bot.figures import optional_picture
from keras_bot.subprocesses import Job, run_jobs
from keras_bot.training.checkpoints.run_lock import lock_run


@dataclasses.dataclass(frozen=True)
class Ablation:
    """Configuration of an ablation.

    Attributes:
        out: the ablation's directory.
        rows: as returned by `rows.make_rows`.
        seeds: one run per row and seed.
        mode: the mode of `rows.make_rows`.
        metric: metric of the tables; "" is the task's first.
        checker: the command that starts the process that checks recipes, see `checking.check_recipes`.
    """

    out: pathlib.Path
    rows: Sequence[Row]
    seeds: Sequence[int]
    mode: str = "cumulative"
    metric: str = ""
    checker: Sequence[str] = ()

    def runs(self) -> list[Run]:
        """Returns all runs in order: every row with the first seed, then with the next, to fill the table early."""
        return [Run(row, seed, self.out) for seed in self.seeds for row in self.rows]


def look(ablation: Ablation) -> tuple[Trainer, dict[Run, str]]:
    """Checks the recipes; returns the trainer and each run's state (done, begun or left). Writes nothing.

    Raises:
        MisuseError: if a recipe can't be trained, the metric belongs to another task, or `out` contains other files,
            runs of other recipes, or runs that were changed by hand.
    """
    ledger = Ledger(ablation.out)
    new = ledger.unchecked(ablation.rows)
    states = {run: ledger.state(run) for run in ablation.runs()}
    trainer = check_recipes(new, ablation.checker) if new else ledger.trainer
    if ablation.metric and ablation.metric not in trainer.metrics:
        raise unknown("metric", ablation.metric, trainer.metrics)
    return trainer, states


def ablate(ablation: Ablation, *, workers: int = 1, tell: Callable[[str], None] = print) -> dict:
    """Trains every row with every seed, skips finished runs, and writes the tables after each run.

    Args:
        ablation: what to run.
        workers: number of concurrent runs.
        tell: called with each line of progress.

    Returns:
        The summary of `results.summarise`, which includes the failed runs and their reasons.

    Raises:
        MisuseError: as in `look`, before anything is written; or if another process is using `out`.
        KeyboardInterrupt, Terminated: after SIGINT, SIGTERM; the same call resumes the ablation.
    """
    trainer, _ = look(ablation)
    with _locked(ablation.out):
        ledger = Ledger(ablation.out)  # read again, now that no other process can write it
        ledger.trainer = trainer
        ledger.unchecked(ablation.rows)
        states = {run: ledger.state(run) for run in ablation.runs()}
        ledger.begin(ablation.runs(), mode=ablation.mode, seeds=list(ablation.seeds))
        progress = _Progress(ablation, ledger, tell)
        for run in [run for run, state in states.items() if state == DONE]:
            progress.take_done(run)
        jobs = {_job(run): run for run, state in states.items() if state != DONE}
        try:
            run_jobs(
                jobs,
                workers=workers,
                started=lambda job: progress.start(jobs[job], goes_on=states[jobs[job]] == BEGUN),
                ended=lambda job, why: progress.end(jobs[job], why),
            )
        except (KeyboardInterrupt, Terminated):
            tell(f"{progress.count()}; the same command goes on from here")
            raise
        return progress.write()


class _Progress:
    """Collects the results of runs, reports progress and writes the tables."""

    def __init__(self, ablation: Ablation, ledger: Ledger, tell: Callable[[str], None]):
        self._ablation = ablation
        self._ledger = ledger
        self._tell = tell
        self._metric = ablation.metric or ledger.trainer.metrics[0]
        self._figures, self._failures, self._began = {}, {}, {}
        runs = ablation.runs()
        self._places = {run: f"[{place}/{len(runs)}] {run.name}" for place, run in enumerate(runs, 1)}

    def take_done(self, run: Run):
        """Adds a run that an earlier command finished."""
        if not self._ledger.is_recorded(run):
            self._ledger.record(run)
        self._say(run, f"done before, {self._take(run)}")

    def start(self, run: Run, *, goes_on: bool):
        """Reports that a run starts and writes its flag file."""
        self._began[run] = time.monotonic()
        title = f"{run.row.name}, of {run.row.file}, with seed {run.seed}"
        text = f"# {one_line(title)}\n" + "\n".join(run.recipe.flag_lines())
        run.beside(".flags").parent.mkdir(exist_ok=True)
        write_atomically(run.beside(".flags"), f"{text}\n")
        self._say(run, f"{'goes on' if goes_on else 'begins'}, see {run.beside('.log')}")

    def end(self, run: Run, why: str):
        """Adds the results of a run, or the reason `why` it failed, and writes the tables."""
        took = f"{time.monotonic() - self._began[run]:.0f} s"
        if why:
            self._failures[run.row.name, run.seed] = why
            self._say(run, f"failed after {took}: {why}")
        else:
            self._ledger.record(run)
            self._say(run, f"{self._take(run)}, {took}")
        self.write()

    def _take(self, run):
        figures = self._figures[run.row.name, run.seed] = read_run(run.directory, self._metric)
        return f"{self._metric} {100 * figures.value:.2f} %"

    def _say(self, run, text):
        self._tell(f"{self._places[run]}: {text}")

    def count(self) -> str:
        """Returns a message with the number of finished runs."""
        return f"{len(self._figures)} of {len(self._places)} runs are done"

    def write(self) -> dict:
        """Writes the tables of the runs so far, then the optional pictures; returns the summary."""
        rows, seeds = self._ablation.rows, self._ablation.seeds
        summary = summarise(rows, seeds, self._figures, self._failures, metric=self._metric, mode=self._ablation.mode)
        out, curves = self._ablation.out, mean_curves(rows, self._figures)
        texts = {"table.json": tables.as_json, "table.csv": tables.as_csv, "table.md": tables.as_markdown}
        for name, text in texts.items():
            write_atomically(out / name, text(summary))
        with optional_picture(out / "table.png"):
            write_atomically(out / "table.png", plots.draw_table(summary))
        with optional_picture(out / "curves.png"):
            write_atomically(out / "curves.png", plots.draw_curves(summary, curves))
        return summary


def _job(run):
    flags = (f"--flagfile={run.beside('.flags')}", f"--run_dir={run.directory}", "--resume")
    return Job(run.name, (sys.executable, "-m", "keras_bot", "train", *flags), run.beside(".log"))


@contextlib.contextmanager
def _locked(out: pathlib.Path) -> Iterator[None]:
    """Wraps `lock_run`; its error messages name the flag `--out`."""
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(lock_run(out))
        except MisuseError as error:
            raise MisuseError(f"--out={out}: {error}") from None
        yield
