"""The driver trains every row and seed in order, skips finished runs, and updates the tables after each run."""

import dataclasses
import json
import sys

import pytest

from keras_bot.ablation import driver
from keras_bot.ablation.driver import Ablation, ablate, check_ablation
from keras_bot.ablation.ledger import FINISHED, PENDING, STARTED
from keras_bot.ablation.rows import Row
from keras_bot.ablation.validate import TrainerInfo
from keras_bot.errors import MisuseError
from keras_bot.recipe import Recipe
from keras_bot.training.checkpoints.run_lock import lock_run

ROWS = (
    Row("base", "base.flags", Recipe(epochs=2)),
    Row("cosine", "b\ncosine.flags", Recipe(epochs=2, schedule="cosine")),
)
TRAINER = TrainerInfo(("top1", "top5"), ("jit_compile",))
ORDER = ["base/seed3", "cosine/seed3", "base/seed5", "cosine/seed5"]


class Clock:
    now = 100.0

    def monotonic(self):
        return self.now


class FakeTrainings:
    """Replaces `run_jobs`: writes the files of each training, or makes it fail; `stop_before` interrupts."""

    def __init__(self, monkeypatch):
        self.jobs, self.failing, self.stop_before, self.tables = [], {}, None, []
        self.clock = Clock()
        monkeypatch.setattr(driver, "time", self.clock)
        monkeypatch.setattr(driver, "run_jobs", self.run_jobs)
        monkeypatch.setattr(driver.plots, "draw_table", lambda summary: b"table")
        monkeypatch.setattr(
            driver.plots, "draw_mean_curves", lambda summary, curves: b"curves of " + repr(sorted(curves)).encode()
        )

    def run_jobs(self, jobs, *, workers, on_start, on_end):
        self.workers = workers
        for job in jobs:
            if job.name == self.stop_before:
                raise KeyboardInterrupt
            self.jobs.append(job)
            on_start(job)
            self.clock.now += 7.4
            if job.name not in self.failing:
                write_run(job.log.with_suffix(""), job)
            on_end(job, self.failing.get(job.name, ""))
            self.tables.append((job.log.parents[1] / "table.md").exists())


def write_run(folder, job):
    """Writes the results of a training: a top-1 of 0.5 plus a hundredth of its seed."""
    seed = int(job.name[-1])
    folder.mkdir()
    (folder / "run.flags").write_text(job.log.with_suffix(".flags").read_text())
    recipe = dict(line[2:].split("=", 1) for line in (folder / "run.flags").read_text().splitlines()[1:])
    metrics = {"recipe": recipe, "result": {"top1": 0.5 + seed / 100, "top5": 0.9, "epochs": 2}}
    metrics["network"] = {"parameters": 10, "flops": 20}
    (folder / "metrics.json").write_text(json.dumps(metrics))
    (folder / "history.csv").write_text("epoch,val_top1,val_top5,seconds\n1,0.1,0.8,5\n2,0.6,0.9,2\n")
    (folder / "curves.png").touch()


@pytest.fixture
def trainings(monkeypatch):
    return FakeTrainings(monkeypatch)


@pytest.fixture
def checks(monkeypatch):
    """The arguments of each recipe check."""
    calls = []
    monkeypatch.setattr(driver, "check_recipes", lambda *arguments: calls.append(arguments) or TRAINER)
    return calls


@pytest.fixture
def ablation(tmp_path, checks):
    return Ablation(tmp_path / "out", ROWS, (3, 5), check_command=("check",))


def test_every_row_is_run_with_the_first_seed_first(ablation):
    assert [run.name for run in ablation.runs()] == ORDER
    assert (ablation.mode, ablation.metric) == ("cumulative", "")


def test_each_run_is_a_training_with_its_own_flags(ablation, trainings):
    ablate(ablation, workers=3, log=lambda line: None)
    assert [job.name for job in trainings.jobs] == ORDER and trainings.workers == 3
    job, out = trainings.jobs[1], ablation.out
    flagfile, run_dir = out / "cosine" / "seed3.flags", out / "cosine" / "seed3"
    train = (sys.executable, "-m", "keras_bot", "train", f"--flagfile={flagfile}", f"--run_dir={run_dir}", "--resume")
    assert job.command == train and job.log == out / "cosine" / "seed3.log"
    lines = flagfile.read_text().splitlines()
    assert lines[0] == "# Row cosine (b\\ncosine.flags), seed 3"
    assert lines[1:] == dataclasses.replace(ROWS[1].recipe, seed=3).flag_lines()


def test_progress_is_logged(ablation, trainings):
    trainings.failing = {"cosine/seed3": "The loss became nan"}
    lines = []
    ablate(ablation, log=lines.append)
    out = ablation.out
    assert lines[:4] == [
        f"[1/4] base/seed3: started, output in {out / 'base' / 'seed3.log'}",
        "[1/4] base/seed3: finished after 7 s, top-1 53.00 %",
        f"[2/4] cosine/seed3: started, output in {out / 'cosine' / 'seed3.log'}",
        "[2/4] cosine/seed3: failed after 7 s: The loss became nan",
    ]
    assert len(lines) == 8


def test_the_summary_has_results_and_failures(ablation, trainings):
    trainings.failing = {"cosine/seed3": "The loss became nan"}
    summary = ablate(ablation, log=lambda line: None)
    base, cosine = summary["rows"]
    assert (base["seeds"], base["values"], base["failed"]) == ([3, 5], [0.53, 0.55], {})
    assert (cosine["seeds"], cosine["failed"]) == ([5], {"3": "The loss became nan"})
    assert (summary["metric"], summary["mode"], summary["seeds"]) == ("top1", "cumulative", [3, 5])
    assert json.loads((ablation.out / "table.json").read_text()) == summary
    assert (ablation.out / "table.csv").read_text().startswith("name,") and trainings.tables == [True] * 4
    assert (ablation.out / "table.md").read_text().startswith("top-1 after the last epoch")
    assert (ablation.out / "table.png").read_bytes() == b"table"
    assert (ablation.out / "curves.png").read_bytes() == b"curves of ['base', 'cosine']"


def test_another_metric_of_the_task_can_be_chosen(ablation, trainings):
    summary = ablate(dataclasses.replace(ablation, metric="top5", mode="leave_one_out"), log=lambda line: None)
    assert (summary["metric"], summary["mode"], summary["rows"][0]["values"]) == ("top5", "leave_one_out", [0.9, 0.9])
    with pytest.raises(MisuseError, match="Unknown metric 'map'"):
        check_ablation(dataclasses.replace(ablation, metric="map"))


def test_finished_runs_are_not_repeated(ablation, trainings):
    first = ablate(ablation, log=lambda line: None)
    trainings.jobs.clear()
    lines = []
    assert ablate(ablation, log=lines.append) == first and not trainings.jobs
    assert lines == [
        f"[{n}/4] {name}: finished earlier, top-1 {value}"
        for n, (name, value) in enumerate(zip(ORDER, ("53.00 %", "53.00 %", "55.00 %", "55.00 %"), strict=True), 1)
    ]


def test_a_failed_run_is_repeated(ablation, trainings):
    trainings.failing = {"cosine/seed3": "The loss became nan"}
    ablate(ablation, log=lambda line: None)
    trainings.failing, trainings.jobs = {}, []
    summary = ablate(ablation, log=lambda line: None)
    assert [job.name for job in trainings.jobs] == ["cosine/seed3"] and summary["rows"][1]["failed"] == {}


def test_an_interruption_says_how_to_continue(ablation, trainings):
    trainings.stop_before = "base/seed5"
    lines = []
    with pytest.raises(KeyboardInterrupt):
        ablate(ablation, log=lines.append)
    assert lines[-1] == "2 of 4 runs finished. Repeat the command to continue."
    run = ablation.runs()[2]
    run.directory.mkdir()
    (run.directory / "run.flags").write_text("\n".join(run.recipe.flag_lines()))  # it had started to train
    trainings.stop_before, states = None, check_ablation(ablation)[1]
    assert list(states.values()) == [FINISHED, FINISHED, STARTED, PENDING]
    (run.directory / "run.flags").unlink()
    run.directory.rmdir()
    trainings.jobs.clear()
    ablate(ablation, log=lines.append)
    assert [job.name for job in trainings.jobs] == ORDER[2:]


def test_a_started_run_is_reported_as_resumed(ablation, trainings, monkeypatch):
    run = ablation.runs()[0]
    trainings.stop_before = "base/seed3"
    with pytest.raises(KeyboardInterrupt):
        ablate(ablation, log=lambda line: None)
    run.directory.mkdir(parents=True)
    (run.directory / "run.flags").write_text("\n".join(run.recipe.flag_lines()))
    monkeypatch.setattr(driver, "run_jobs", lambda jobs, *, on_start, **_: [on_start(job) for job in jobs])
    lines = []
    ablate(ablation, log=lines.append)
    words = [line.split(": ")[1].split(",")[0] for line in lines]
    assert words == ["resumed", "started", "started", "started"]


def test_only_new_rows_are_checked(ablation, trainings, checks):
    ablate(dataclasses.replace(ablation, rows=ROWS[:1]), log=lambda line: None)
    assert checks == [([ROWS[0]], ("check",))]
    trainer, states = check_ablation(ablation)
    assert checks[1:] == [([ROWS[1]], ("check",))] and trainer == TRAINER
    assert list(states.values()) == [FINISHED, PENDING, FINISHED, PENDING]
    check_ablation(dataclasses.replace(ablation, rows=ROWS[:1]))
    assert len(checks) == 2


def test_checking_writes_nothing(ablation):
    check_ablation(ablation)
    assert not ablation.out.exists()


def test_a_directory_in_use_is_refused(ablation, trainings):
    with lock_run(ablation.out), pytest.raises(MisuseError, match=rf"^--out={ablation.out}: Another process"):
        ablate(ablation)
    assert not trainings.jobs


def test_a_picture_that_fails_does_not_stop_the_ablation(ablation, trainings, monkeypatch, capsys):
    def fail(*_):
        raise ValueError("no font")

    monkeypatch.setattr(driver.plots, "draw_table", fail)
    summary = ablate(ablation, log=lambda line: None)
    assert summary["rows"][0]["values"] == [0.53, 0.55] and not (ablation.out / "table.png").exists()
    assert f"cannot create {ablation.out / 'table.png'}: no font" in capsys.readouterr().err
