"""States of the runs in an ablation's directory, and errors for whatever was changed in it."""

import dataclasses
import errno
import json
import os

import pytest
from builders import HISTORY, write_run

from keras_bot.ablation.ledger import FINISHED, PENDING, STARTED, AblationRun, Ledger
from keras_bot.ablation.rows import Row
from keras_bot.ablation.validate import TrainerInfo
from keras_bot.atomic_files import write_atomically
from keras_bot.errors import MisuseError, RunError
from keras_bot.recipe import Recipe

ROW = Row("1_base", "1_base.flags", Recipe(epochs=2))
TRAINER = TrainerInfo(("top1", "top5"), ("jit_compile", "data_dir"))


@pytest.fixture
def out(tmp_path):
    """The directory of a started ablation of one row with two seeds."""
    out = tmp_path / "out"
    out.mkdir()
    ledger = Ledger(out)
    ledger.trainer = TRAINER
    ledger.begin(runs(out), mode="cumulative", seeds=[0, 1])
    return out


def runs(out, row=ROW):
    return [AblationRun(row, seed, out) for seed in (0, 1)]


def write_files(run, epochs=2, finished=True, **changes):
    """Writes the files of a training that the ledger reads."""
    recipe = dataclasses.replace(run.recipe, **changes)
    write_run(run.directory, recipe, history=HISTORY[:epochs], result={"top1": 0.5, "epochs": epochs})
    if finished:
        (run.directory / "curves.png").write_text("")


def expect_error(ledger, run, match):
    """The run's state is an error that names the run directory, and nothing is written."""
    before = sorted((path, path.read_bytes()) for path in run.out.rglob("*") if path.is_file())
    with pytest.raises(MisuseError, match=match) as raised:
        ledger.state(run)
    assert str(run.directory) in str(raised.value)
    assert before == sorted((path, path.read_bytes()) for path in run.out.rglob("*") if path.is_file())


def test_a_run_is_pending_then_started_then_finished(out):
    ledger, (run, other) = Ledger(out), runs(out)
    assert ledger.state(run) == PENDING
    write_files(run, epochs=1, finished=False)
    assert ledger.state(run) == STARTED
    write_files(run, finished=False)  # killed between its last epoch and its end
    assert ledger.state(run) == STARTED
    write_files(run)
    assert ledger.state(run) == FINISHED and ledger.state(other) == PENDING
    ledger.record(run)
    again = Ledger(out)
    assert again.state(run) == FINISHED and again.is_recorded(run) and not again.is_recorded(other)


def test_it_contains_the_resolved_recipes(out):
    content = json.loads((out / "ablation.json").read_text())
    assert content["rows"]["1_base"] == {"file": "1_base.flags", "recipe": ROW.recipe.as_text()}
    assert set(content["runs"]) == {"1_base/seed0", "1_base/seed1"}
    assert (content["seeds"], content["metrics"], content["rows_in_order"]) == ([0, 1], ["top1", "top5"], ["1_base"])


@pytest.mark.parametrize("name", ["metrics.json", "history.csv"])
def test_edited_and_missing_records_are_errors(name, out):
    ledger, run = Ledger(out), runs(out)[0]
    write_files(run)
    ledger.record(run)
    path = run.directory / name
    original = path.read_text()
    path.write_text(original.replace("2", "3"))
    expect_error(ledger, run, f"{name} differs from the recorded SHA-256")
    path.unlink()
    expect_error(Ledger(out), run, f"{name} is missing")
    path.write_text(original)
    assert ledger.state(run) == FINISHED


def test_a_run_of_another_recipe_is_an_error(out):
    ledger, run = Ledger(out), runs(out)[0]
    write_files(run, zero_gamma=True, jit_compile="on")  # jit_compile may differ
    expect_error(ledger, run, "run.flags contains another recipe: zero_gamma was true, is false")
    (run.directory / "run.flags").unlink()
    expect_error(ledger, run, "metrics.json contains another recipe: zero_gamma was true, is false")
    write_files(run, seed=7)
    expect_error(ledger, run, "seed was 7, is 0")
    (run.directory / "metrics.json").write_text('{"recipe": 1')
    (run.directory / "run.flags").unlink()
    expect_error(ledger, run, "metrics.json cannot be read")
    write_files(run, jit_compile="on")
    assert ledger.state(run) == FINISHED


def test_a_run_without_flags_and_a_file_in_its_place_are_errors(out):
    ledger, (run, other) = Ledger(out), runs(out)
    write_files(run)
    ledger.record(run)
    (run.directory / "run.flags").unlink()
    expect_error(ledger, run, r"run\.flags is missing")
    other.directory.write_text("mine")
    expect_error(ledger, other, "is a file where the ablation needs a directory")


def test_a_run_whose_directory_was_deleted_is_pending(out):
    ledger, run = Ledger(out), runs(out)[0]
    write_files(run)
    ledger.record(run)
    for path in run.directory.iterdir():
        path.unlink()
    run.directory.rmdir()
    assert Ledger(out).state(run) == PENDING


def test_a_changed_recipe_is_rejected_once_a_run_has_started(out):
    other = Row("1_base", "1_base.flags", Recipe(epochs=3, jit_compile="off"))
    assert Ledger(out).new_rows([other]) == [other]
    write_files(runs(out)[0], epochs=1, finished=False)
    message = r"row 1_base with another recipe \(epochs was 2, is 3\)\. Choose another --out"
    with pytest.raises(MisuseError, match=message):
        Ledger(out).new_rows([other])
    may_differ = Row("1_base", "1_base.flags", Recipe(epochs=2, jit_compile="off"))
    new = Row("2_new", "2.flags", Recipe(epochs=3))
    assert Ledger(out).new_rows([may_differ, new]) == [new]


def test_rows_and_seeds_can_be_added_to_finished_runs(out):
    ledger, run = Ledger(out), runs(out)[1]
    write_files(run)
    ledger.record(run)
    new = Row("2_new", "2.flags", Recipe(epochs=3))
    ledger.begin([AblationRun(new, 5, out)], mode="cumulative", seeds=[5])
    again = Ledger(out)
    assert again.is_recorded(run) and again.new_rows([ROW, new]) == []
    assert json.loads((out / "ablation.json").read_text())["rows_in_order"] == ["2_new"]


def test_nothing_is_written_before_the_recipes_were_checked(tmp_path):
    with pytest.raises(ValueError, match="not checked"):
        Ledger(tmp_path).begin(runs(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_directories_without_an_ablation_are_rejected(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(MisuseError, match=r"contains files but no ablation \(notes\.txt\)"):
        Ledger(tmp_path)
    with pytest.raises(MisuseError, match=r"notes\.txt is a file"):
        Ledger(tmp_path / "notes.txt")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / ".lock").write_text("")
    Ledger(tmp_path / "empty")
    assert Ledger(tmp_path / "new").new_rows([ROW]) == [ROW] and not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", r"Cannot read .*ablation\.json"),
        ("[]", r"ablation\.json was edited, or not written by `keras-bot ablate`"),
        ("{}", r"ablation\.json was edited, or not written by `keras-bot ablate`"),
        (
            '{"metrics": ["top1"], "may_differ": [], "rows": {"a": 1}, "runs": {}}',
            r"ablation\.json was edited, or not written by `keras-bot ablate`",
        ),
        (
            '{"metrics": [], "may_differ": [], "rows": {}, "runs": {}}',
            r"ablation\.json was edited, or not written by `keras-bot ablate`",
        ),
    ],
)
def test_a_damaged_ledger_is_an_error(content, message, out):
    (out / "ablation.json").write_text(content)
    with pytest.raises(MisuseError, match=message):
        Ledger(out)


def test_a_failed_write_keeps_the_previous_file(tmp_path, monkeypatch):
    def full_disk(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    path = tmp_path / "table.md"
    write_atomically(path, b"one")
    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(RunError, match=r"Cannot write .*table.md: No space left on device\."):
        write_atomically(path, b"two")
    assert path.read_bytes() == b"one"
