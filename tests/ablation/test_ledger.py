"""An ablation's directory is recognised as it was left, and whatever was changed in it is named."""

import dataclasses
import errno
import json
import os

import pytest

from keras_bot.ablation.ledger import BEGUN, DONE, LEFT, Ledger, Run
from keras_bot.ablation.rows import Row
from keras_bot.ablation.validate import Trainer
from keras_bot.atomic_files import write_atomically
from keras_bot.errors import MisuseError, RunError
from keras_bot.recipe import Recipe

ROW = Row("1_base", "1_base.flags", Recipe(epochs=2))
TRAINER = Trainer(("top1", "top5"), ("jit_compile", "data_dir"))


@pytest.fixture
def out(tmp_path):
    """The directory of an ablation of one row by two seeds, begun."""
    out = tmp_path / "out"
    out.mkdir()
    ledger = Ledger(out)
    ledger.trainer = TRAINER
    ledger.begin(runs(out), mode="cumulative", seeds=[0, 1])
    return out


def runs(out, row=ROW):
    return [Run(row, seed, out) for seed in (0, 1)]


def leave(run, epochs=2, finished=True, **changes):
    """What a training leaves in its directory, as far as it is looked at."""
    recipe = dataclasses.replace(run.recipe, **changes)
    run.directory.mkdir(parents=True, exist_ok=True)
    (run.directory / "run.flags").write_text("# x\n" + "\n".join(recipe.flag_lines()))
    told = {"recipe": recipe.as_text(), "result": {"top1": 0.5, "epochs": epochs}}
    (run.directory / "metrics.json").write_text(json.dumps(told))
    (run.directory / "history.csv").write_text("epoch\n" + "\n".join(map(str, range(1, epochs + 1))))
    if finished:
        (run.directory / "curves.png").write_text("")


def changed(ledger, run, match):
    before = sorted((path, path.read_bytes()) for path in run.out.rglob("*") if path.is_file())
    with pytest.raises(MisuseError, match=match) as raised:
        ledger.state(run)
    assert str(run.directory) in str(raised.value)
    assert before == sorted((path, path.read_bytes()) for path in run.out.rglob("*") if path.is_file())


def test_a_run_is_left_then_begun_then_done(out):
    ledger, (run, other) = Ledger(out), runs(out)
    assert ledger.state(run) == LEFT
    leave(run, epochs=1, finished=False)
    assert ledger.state(run) == BEGUN
    leave(run, finished=False)  # killed between its last epoch and its end
    assert ledger.state(run) == BEGUN
    leave(run)
    assert ledger.state(run) == DONE and ledger.state(other) == LEFT
    ledger.record(run)
    again = Ledger(out)
    assert again.state(run) == DONE and again.is_recorded(run) and not again.is_recorded(other)


def test_it_tells_the_recipes_as_resolved(out):
    told = json.loads((out / "ablation.json").read_text())
    assert told["rows"]["1_base"] == {"file": "1_base.flags", "recipe": ROW.recipe.as_text()}
    assert set(told["runs"]) == {"1_base/seed0", "1_base/seed1"}
    assert (told["seeds"], told["metrics"], told["rows_in_order"]) == ([0, 1], ["top1", "top5"], ["1_base"])


@pytest.mark.parametrize("name", ["metrics.json", "history.csv"])
def test_records_that_were_changed_are_told(name, out):
    ledger, run = Ledger(out), runs(out)[0]
    leave(run)
    ledger.record(run)
    path = run.directory / name
    whole = path.read_text()
    path.write_text(whole.replace("2", "3"))
    changed(ledger, run, f"{name} isn't what the run left there")
    path.unlink()
    changed(Ledger(out), run, f"{name} isn't what the run left there")
    path.write_text(whole)
    assert ledger.state(run) == DONE


def test_another_recipes_run_is_told(out):
    ledger, run = Ledger(out), runs(out)[0]
    leave(run, zero_gamma=True, jit_compile="on")  # jit_compile may differ
    changed(ledger, run, "run.flags tells of another recipe: zero_gamma was true, is false")
    (run.directory / "run.flags").unlink()
    changed(ledger, run, "metrics.json tells of another recipe: zero_gamma was true, is false")
    leave(run, seed=7)
    changed(ledger, run, "seed was 7, is 0")
    (run.directory / "metrics.json").write_text('{"recipe": 1')
    (run.directory / "run.flags").unlink()
    changed(ledger, run, "metrics.json can't be read")
    leave(run, jit_compile="on")
    assert ledger.state(run) == DONE


def test_a_run_without_its_flags_and_a_file_in_its_place_are_told(out):
    ledger, (run, other) = Ledger(out), runs(out)
    leave(run)
    ledger.record(run)
    (run.directory / "run.flags").unlink()
    changed(ledger, run, r"run\.flags is missing")
    other.directory.write_text("mine")
    changed(ledger, other, "found a file")


def test_a_directory_that_was_deleted_whole_is_run_again(out):
    ledger, run = Ledger(out), runs(out)[0]
    leave(run)
    ledger.record(run)
    for path in run.directory.iterdir():
        path.unlink()
    run.directory.rmdir()
    assert Ledger(out).state(run) == LEFT


def test_a_row_whose_recipe_changed_is_refused_once_it_was_begun(out):
    other = Row("1_base", "1_base.flags", Recipe(epochs=3, jit_compile="off"))
    assert Ledger(out).unchecked([other]) == [other]
    leave(runs(out)[0], epochs=1, finished=False)
    with pytest.raises(
        MisuseError, match=r"row 1_base by another recipe \(epochs was 2, is 3\)\. Choose another --out"
    ):
        Ledger(out).unchecked([other])
    may_differ = Row("1_base", "1_base.flags", Recipe(epochs=2, jit_compile="off"))
    new = Row("2_new", "2.flags", Recipe(epochs=3))
    assert Ledger(out).unchecked([may_differ, new]) == [new]


def test_rows_and_seeds_can_be_added_and_what_was_done_stays(out):
    ledger, run = Ledger(out), runs(out)[1]
    leave(run)
    ledger.record(run)
    new = Row("2_new", "2.flags", Recipe(epochs=3))
    ledger.begin([Run(new, 5, out)], mode="cumulative", seeds=[5])
    again = Ledger(out)
    assert again.is_recorded(run) and again.unchecked([ROW, new]) == []
    assert json.loads((out / "ablation.json").read_text())["rows_in_order"] == ["2_new"]


def test_what_is_no_ablations_directory_is_told(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(MisuseError, match=r"holds other files \(notes\.txt\)"):
        Ledger(tmp_path)
    with pytest.raises(MisuseError, match="received the file"):
        Ledger(tmp_path / "notes.txt")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / ".lock").write_text("")
    Ledger(tmp_path / "empty")
    assert Ledger(tmp_path / "new").unchecked([ROW]) == [ROW] and not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("", r"Can't read .*ablation\.json"),
        ("[]", r"Expected .*ablation\.json as `keras-bot ablate` wrote it"),
        ("{}", r"Expected .*ablation\.json as `keras-bot ablate` wrote it"),
        (
            '{"metrics": ["top1"], "may_differ": [], "rows": {"a": 1}, "runs": {}}',
            r"Expected .*ablation\.json as `keras-bot ablate` wrote it",
        ),
        (
            '{"metrics": [], "may_differ": [], "rows": {}, "runs": {}}',
            r"Expected .*ablation\.json as `keras-bot ablate` wrote it",
        ),
    ],
)
def test_a_ledger_that_cannot_be_read_is_told(content, told, out):
    (out / "ablation.json").write_text(content)
    with pytest.raises(MisuseError, match=told):
        Ledger(out)


def test_a_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    def full_disk(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    path = tmp_path / "table.md"
    write_atomically(path, b"one")
    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(RunError, match=r"Can't write .*table.md: No space left on device\."):
        write_atomically(path, b"two")
    assert path.read_bytes() == b"one"
