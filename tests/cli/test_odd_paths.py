"""All commands in a folder with wildcards and mathtext in its name; paths that cannot be stored are refused."""

import os
import shutil

import pytest
from builders import NO_COLOR, tiny_flags, write_image
from processes import expect_misuse, run_command
from tiny_training import ablate_in_this_process, use_tiny_network

from keras_bot.cli.commands.ablate import find_files

TINY = tiny_flags(**NO_COLOR)


@pytest.fixture(scope="module")
def folder(run_dir, tmp_path_factory):
    """A folder with a run in it."""
    folder = tmp_path_factory.mktemp("odd") / "_x[1]*? {a} $\\frac_^$ é"
    shutil.copytree(run_dir, folder / "run")
    return folder


@pytest.mark.thorough
def test_a_network_is_trained_there_and_used_by_every_command(folder, tmp_path):
    run = folder / "new"
    for command in (
        ["train", *TINY, f"--run_dir={run}"],
        ["train", *TINY, f"--run_dir={run}", "--resume"],
        ["evaluate", f"--run_dir={run}"],
        ["report", run, f"--output={folder / 'page.html'}"],
        ["data", *TINY, f"--grid={folder / 'grid.png'}"],
        ["train", *TINY, f"--teacher={run}", f"--run_dir={folder / 'student'}"],
        ["finetune", *TINY, f"--init_from={run}", f"--run_dir={folder / 'tuned'}"],
    ):
        assert run_command(*command).err == ""
    exported = run_command("export", f"--run_dir={run}", "--name=net", f"--output_dir={tmp_path}").result
    assert 0 <= exported["worst_difference"] <= 1e-5
    moved = (tmp_path / "net").rename(folder / "to finetune")
    run_command("finetune", *TINY, f"--init_from={moved}", f"--run_dir={folder / 'from_moved'}")


def test_a_savedmodel_is_not_exported_there(folder):
    export = ["export", f"--run_dir={folder / 'run'}", "--name=net", f"--output_dir={folder}"]
    assert "TensorFlow could not load it" in expect_misuse(*export) and not (folder / "net").exists()


def test_a_savedmodel_that_was_moved_there_can_be_used(folder, savedmodel):
    moved = shutil.copytree(savedmodel, folder / "moved")
    image = write_image(folder / "[1]*.png")
    assert image.name in run_command("predict", f"--savedmodel={moved}", image).out
    run_command("inspect", moved)


@pytest.mark.parametrize("form", ["keras", "onnx", "litert"])
def test_the_other_formats_are_exported_there(form, folder):
    for package in {"onnx": ("onnx", "tf2onnx", "onnxruntime"), "litert": ("ai_edge_litert",)}.get(form, ()):
        pytest.importorskip(package)
    command = ["export", f"--run_dir={folder / 'run'}", f"--output_dir={folder}", f"--format={form}"]
    line = run_command(*command).result
    assert line["worst_difference"] <= 1e-5
    run_command("inspect", line["path"])


@pytest.mark.thorough
def test_an_ablation_there_writes_its_tables_and_pictures(folder, monkeypatch):
    ablate_in_this_process(monkeypatch)
    use_tiny_network(monkeypatch)
    recipes = folder / "recipes"
    recipes.mkdir()
    (recipes / "_a$\\frac$.flags").write_text("\n".join(TINY))
    done = run_command("ablate", f"--recipes={recipes}/*.flags", f"--out={folder / 'out'}")
    assert done.err == "" and done.out.endswith("table.json, table.csv, table.md, table.png, curves.png\n")
    assert (folder / "out" / "table.png").exists() and "| `_a$\\frac$` |" in done.out


def test_a_pattern_below_a_folder_with_wildcards_in_its_name(tmp_path):
    for name in ("r[1]", "r1"):
        (tmp_path / name).mkdir()
        for file in ("a.flags", "b.flags"):
            (tmp_path / name / file).write_text("")
    found = [str(tmp_path / "r[1]" / file) for file in ("a.flags", "b.flags")]
    assert find_files(f"{tmp_path}/r[1]/*.flags") == found
    assert find_files(f"{tmp_path}/r[1]/a.flags,{tmp_path}/r[1]/b*.flags") == found
    assert find_files(f"{tmp_path}/r[0-9]/a*.flags") == [str(tmp_path / "r1" / "a.flags")]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--run_dir=raw\udcff"], "--run_dir='raw\\udcff' is not valid UTF-8"),
        (["--run_dir=run", "--dataset=raw\udcff"], "--dataset='raw\\udcff' is not valid UTF-8"),
        (["--run_dir=run", "--dataset=photos "], "--dataset='photos ' ends with whitespace"),
        (["--run_dir=run", "--dataset=new\nline"], "--dataset='new\\nline' has a line break"),
    ],
)
def test_names_that_run_flags_cannot_store_are_refused(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert message in expect_misuse("train", *TINY, *arguments)
    (tmp_path / "a.flags").write_text("\n".join(TINY))
    changes = [f"--set={arguments[1][2:]}", "--out=out"] if "--run_dir=run" in arguments else ["--out=raw\udcff"]
    error = expect_misuse("ablate", "--recipes=a.flags", *changes)
    (reason,) = (text for text in ("not valid UTF-8", "line break", "ends with whitespace") if text in message)
    assert reason in error and os.listdir() == ["a.flags"]
