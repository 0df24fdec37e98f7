"""A run directory has fixed paths, is never overwritten by accident, and only resumes the same recipe and data."""

import dataclasses
import json

import pytest

import keras_bot
from keras_bot.errors import MisuseError, RunError
from keras_bot.recipe import Recipe
from keras_bot.training.checkpoints import run_directory
from keras_bot.training.checkpoints.run_directory import (
    MAY_DIFFER,
    WORKERS_MAY_DIFFER,
    RunDirectory,
    check_same_data,
    read_metrics,
    run_flags,
)

RECIPE = Recipe(epochs=4, schedule="cosine", seed=3)
DATASET = {
    "name": "flowers",
    "train_images": 8,
    "eval_images": 4,
    "class_names": ["a", "b"],
    "train_checksum": "12",
    "eval_checksum": "34",
}


def write_run(path, epochs=1, checkpoints=("step-00000004.npz",), recipe=RECIPE, metrics=True):
    """Writes what a run of some epochs leaves."""
    (path / "checkpoints").mkdir(parents=True)
    (path / "run.flags").write_text(run_flags(recipe))
    if metrics:
        result = {"result": {"epochs": epochs}, "dataset": DATASET}
        (path / "metrics.json").write_text(json.dumps(result))
    for name in checkpoints:
        (path / "checkpoints" / name).touch()
    return path


@pytest.fixture
def run(tmp_path):
    return write_run(tmp_path / "run")


def contents(path):
    return {str(file.relative_to(path)) for file in path.rglob("*")}


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("flags", "run.flags"),
        ("history", "history.csv"),
        ("metrics", "metrics.json"),
        ("curves", "curves.png"),
        ("tensorboard", "tensorboard"),
        ("checkpoints", "checkpoints"),
        ("model", "model.keras"),
        ("best", "best.keras"),
    ],
)
def test_every_file_has_its_place(name, file, tmp_path):
    directory = RunDirectory(str(tmp_path / "run"), RECIPE)
    assert directory.path == tmp_path / "run" and getattr(directory, name) == tmp_path / "run" / file


@pytest.mark.parametrize("options", [{}, {"resume": True}, {"overwrite": True}])
def test_opening_writes_and_deletes_nothing(options, tmp_path, run):
    RunDirectory(tmp_path / "new", RECIPE, **options)
    assert not (tmp_path / "new").exists()
    before = contents(run)
    if options:
        RunDirectory(run, RECIPE, **options)
    assert contents(run) == before


def test_resume_and_overwrite_exclude_each_other(tmp_path):
    with pytest.raises(MisuseError, match=r"^--resume and --overwrite cannot be combined\. Use one of them\.$"):
        RunDirectory(tmp_path, RECIPE, resume=True, overwrite=True)


@pytest.mark.parametrize("options", [{}, {"resume": True}, {"overwrite": True}])
def test_a_file_is_no_run_directory(options, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(MisuseError) as raised:
        RunDirectory(tmp_path / "file", RECIPE, **options)
    assert str(raised.value) == f"The run directory {tmp_path / 'file'} is a file. Choose another path."


@pytest.mark.parametrize("options", [{}, {"resume": True}, {"overwrite": True}])
def test_a_directory_with_other_files_is_refused(options, tmp_path):
    (tmp_path / "thesis.txt").touch()
    with pytest.raises(MisuseError) as raised:
        RunDirectory(tmp_path, RECIPE, **options)
    message = f"{tmp_path} contains files that are not part of a keras_bot run. Choose another directory."
    assert str(raised.value) == message


@pytest.mark.parametrize("name", [".lock", ".run.flags.123.part"])
def test_the_lock_and_partial_files_of_a_kill_do_not_count(name, tmp_path):
    (tmp_path / name).touch()
    RunDirectory(tmp_path, RECIPE)
    (tmp_path / "run.flags.part").touch()
    with pytest.raises(MisuseError, match="not part of a keras_bot run"):
        RunDirectory(tmp_path, RECIPE)


def test_an_empty_directory_and_one_that_only_began_are_new(tmp_path):
    (tmp_path / "empty").mkdir()
    RunDirectory(tmp_path / "empty", RECIPE)
    began = write_run(tmp_path / "began", checkpoints=(), metrics=False, recipe=Recipe(seed=9))
    RunDirectory(began, RECIPE)  # also with another recipe: nothing was trained


@pytest.mark.parametrize("kept", ["metrics", "checkpoints"])
def test_a_run_is_not_overwritten_without_the_flag(kept, tmp_path):
    path = write_run(tmp_path / "run", metrics=kept == "metrics", checkpoints=["x"] if kept == "checkpoints" else [])
    with pytest.raises(MisuseError) as raised:
        RunDirectory(path, RECIPE)
    assert str(raised.value) == (
        f"{path} already contains a run of this recipe. Use --resume to continue it or --overwrite to delete it."
    )
    RunDirectory(path, RECIPE, resume=True)
    RunDirectory(path, RECIPE, overwrite=True)


@pytest.mark.parametrize("options", [{}, {"resume": True}])
def test_a_run_of_another_recipe_is_refused(options, run):
    other = dataclasses.replace(RECIPE, seed=5, label_smoothing=0.1)
    with pytest.raises(MisuseError) as raised:
        RunDirectory(run, other, **options)
    assert str(raised.value) == (
        f"{run} contains a run of another recipe (label_smoothing was 0.0, is 0.1; seed was 3, is 5). "
        "Choose another directory, or use --overwrite to delete that run."
    )
    RunDirectory(run, other, overwrite=True)


CHANGED = {
    "data_dir": "/other",
    "max_corrupt": 99,
    "strategy": "one_device",
    "ram_budget": 99,
    "jit_compile": "off",
    "checkpoint_every": 9,
    "keep_checkpoints": 9,
    "teacher_cache": "cache",
}


def test_the_fields_of_the_machine_may_change_when_resuming(tmp_path):
    assert tuple(CHANGED) == MAY_DIFFER
    recipe = dataclasses.replace(RECIPE, teacher="teacher.keras")
    path = write_run(tmp_path / "run", recipe=recipe)
    RunDirectory(path, dataclasses.replace(recipe, **CHANGED), resume=True)
    with pytest.raises(MisuseError, match=r"another recipe \(batch_size was 256, is 8\)"):
        RunDirectory(path, dataclasses.replace(recipe, batch_size=8, **CHANGED), resume=True)


def test_workers_must_agree_on_the_steps_between_checkpoints():
    assert set(MAY_DIFFER) - set(WORKERS_MAY_DIFFER) == {"checkpoint_every"}


@pytest.mark.parametrize(("epochs", "refused"), [(1, False), (2, True), (3, True)])
@pytest.mark.parametrize("folder", [True, False])
def test_a_run_without_its_checkpoints_is_not_resumed(epochs, refused, folder, tmp_path):
    path = write_run(tmp_path / "run", epochs=epochs, checkpoints=())
    if not folder:
        (path / "checkpoints").rmdir()
    if not refused:  # the row of an epoch is written before its checkpoint
        RunDirectory(path, RECIPE, resume=True)
        return
    with pytest.raises(MisuseError) as raised:
        RunDirectory(path, RECIPE, resume=True)
    assert str(raised.value) == (
        f"{path / 'checkpoints'} contains no checkpoints, although {epochs} epochs are done. Restore them, or use "
        "--overwrite to start over."
    )
    RunDirectory(path, RECIPE, overwrite=True)


def test_beginning_writes_the_recipe(tmp_path):
    RunDirectory(tmp_path, RECIPE).begin()
    text = (tmp_path / "run.flags").read_text()
    assert text == run_flags(RECIPE) and contents(tmp_path) == {"run.flags"}


def test_run_flags_is_a_flagfile_with_a_header():
    lines = run_flags(RECIPE).split("\n")
    version = keras_bot.__version__
    assert lines[0] == (f"# keras_bot {version}: keras-bot train --flagfile=run.flags --run_dir=… repeats this run.")
    assert lines[1:] == [*RECIPE.flag_lines(), ""]


@pytest.fixture
def full_run(run):
    """A run with every file that one can have, and files of the user."""
    files = ("history.csv", "curves.png", "model.keras", "best.keras", "table.md", "predictions.png")
    for name in (*files, "tensorboard/train/events", "notes.txt", ".lock"):
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).touch()
    return run


def test_overwriting_deletes_the_run_and_nothing_else(full_run):
    RunDirectory(full_run, Recipe(seed=9), overwrite=True).begin()
    assert contents(full_run) == {"run.flags", "notes.txt", ".lock"}
    assert "--seed=9" in (full_run / "run.flags").read_text()


def test_resuming_keeps_every_file_and_notes_the_new_settings(full_run):
    before = contents(full_run)
    RunDirectory(full_run, dataclasses.replace(RECIPE, max_corrupt=77), resume=True).begin()
    assert contents(full_run) == before
    assert "--max_corrupt=77" in (full_run / "run.flags").read_text()


def test_overwriting_nothing_is_no_error(tmp_path):
    RunDirectory(tmp_path, RECIPE, overwrite=True).begin()
    assert contents(tmp_path) == {"run.flags"}


@pytest.mark.parametrize(
    ("name", "value", "change"),
    [
        ("train_images", 9, "train_images was 8, is 9"),
        ("eval_images", 5, "eval_images was 4, is 5"),
        ("class_names", ["a", "c"], "the class names have changed"),
        ("class_names", ["b", "a"], "the class names have changed"),
    ],
)
def test_a_run_is_not_resumed_on_other_data(name, value, change, run):
    with pytest.raises(MisuseError) as raised:
        check_same_data(RunDirectory(run, RECIPE, resume=True), {"dataset": DATASET}, {**DATASET, name: value})
    assert str(raised.value) == (
        f"{run} contains a run on other data: {change}. Restore the data, choose another directory, or use "
        "--overwrite to delete that run."
    )


@pytest.mark.parametrize("name", ["train_checksum", "eval_checksum"])
def test_changed_images_are_reported_but_training_continues(name, run, capsys):
    directory = RunDirectory(run, RECIPE, resume=True)
    check_same_data(directory, {"dataset": DATASET}, {**DATASET, name: "99"})
    assert capsys.readouterr().err == (
        f"keras-bot: some images have changed since {run} was stopped ({name} was {DATASET[name]}, is 99); training "
        "continues with them.\n"
    )


def test_a_changed_checksum_does_not_hide_a_changed_size(run):
    dataset = {"train_checksum": "1", "train_images": 8}
    with pytest.raises(MisuseError, match="train_images was 8, is 9"):
        check_same_data(
            RunDirectory(run, RECIPE, resume=True),
            {"dataset": dataset},
            {"train_checksum": "2", "train_images": 9},
        )


@pytest.mark.parametrize("progress", [{}, {"dataset": {}}, {"dataset": {**DATASET, "name": "moved"}}])
def test_the_same_data_under_another_name_are_accepted(progress, run, capsys):
    check_same_data(RunDirectory(run, RECIPE, resume=True), progress, DATASET)
    assert capsys.readouterr().err == ""


def test_metrics_are_read(run):
    assert read_metrics(run)["result"] == {"epochs": 1} == read_metrics(str(run))["result"]


def test_missing_metrics_are_the_users_error(tmp_path):
    with pytest.raises(MisuseError) as raised:
        read_metrics(tmp_path)
    assert str(raised.value) == (f"{tmp_path} is not a run directory: it contains no metrics.json. Train there first.")


@pytest.mark.parametrize(
    "content",
    ['{"result": ', "[]", '{"dataset": {"class_names": []}}', '{"result": {}, "dataset": {}}', '{"result": {}}'],
)
def test_damaged_metrics_are_reported(content, run):
    (run / "metrics.json").write_text(content)
    with pytest.raises(RunError) as raised:
        read_metrics(run)
    message = str(raised.value)
    assert message.startswith(f"Cannot read {run / 'metrics.json'}: ")
    assert message.endswith(". It was edited or truncated.")


def test_the_recipe_is_written_atomically(tmp_path, monkeypatch):
    written = []
    monkeypatch.setattr(run_directory, "write_atomically", lambda path, text: written.append((path, text)))
    RunDirectory(tmp_path, RECIPE).begin()
    assert written == [(tmp_path / "run.flags", run_flags(RECIPE))] and contents(tmp_path) == set()
