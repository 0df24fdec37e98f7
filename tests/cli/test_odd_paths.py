"""All commands in a folder with wildcards and mathtext in its name; paths that cannot be stored are refused."""

import json
import os

import pytest
from PIL import Image

from keras_bot.cli.commands.ablate import find_files
from keras_bot.cli.main import main

TINY = ["--dataset=digits", "--transform=cifar", "--image_size=8", "--crop_padding=1", "--color_jitter=0"]
TINY += ["--pca_noise=0", "--model=cifar_resnet8_a", "--width=0.1", "--batch_size=256", "--epochs=1"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a run in it."""
    folder = tmp_path_factory.mktemp("odd") / "_x[1]*? {a} $\\frac_^$ é"
    assert main(["train", *TINY, f"--run_dir={folder / 'run'}"]) == 0
    return folder


def error_line(capsys):
    """Returns stderr, which must be a single line."""
    (line,) = capsys.readouterr().err.strip().splitlines()
    return line


@pytest.mark.thorough
def test_a_run_there_is_evaluated_resumed_reported_and_finetuned(folder, capsys):
    run = folder / "run"
    assert main(["evaluate", f"--run_dir={run}"]) == 0
    assert main(["train", *TINY, f"--run_dir={run}", "--resume"]) == 0
    assert main(["report", str(run), f"--output={folder / 'page.html'}"]) == 0
    assert main(["data", *TINY, f"--grid={folder / 'grid.png'}"]) == 0
    assert main(["train", *TINY, f"--teacher={run}", f"--run_dir={folder / 'student'}"]) == 0
    assert main(["finetune", *TINY, f"--init_from={run}", f"--run_dir={folder / 'tuned'}"]) == 0
    assert capsys.readouterr().err == ""


def test_a_savedmodel_is_exported_elsewhere_and_can_be_moved_there(folder, tmp_path, capsys):
    export = ["export", f"--run_dir={folder / 'run'}", "--name=net"]
    assert main([*export, f"--output_dir={folder}"]) == 2
    assert "TensorFlow could not load it" in error_line(capsys) and not (folder / "net").exists()
    assert main([*export, f"--output_dir={tmp_path}"]) == 0
    assert 0 <= json.loads(capsys.readouterr().out.splitlines()[-1])["worst_difference"] <= 1e-5
    (tmp_path / "net").rename(folder / "moved")
    image = folder / "[1]*.png"
    Image.new("RGB", (9, 9)).save(image)
    assert main(["predict", f"--savedmodel={folder / 'moved'}", str(image)]) == 0
    assert main(["inspect", str(folder / "moved")]) == 0
    paths = [f"--init_from={folder / 'moved'}", f"--run_dir={folder / 'from_moved'}"]
    assert main(["finetune", *TINY, *paths]) == 0


@pytest.mark.parametrize("form", ["keras", "onnx", "litert"])
def test_the_other_formats_are_exported_there(form, folder, capsys):
    for package in {"onnx": ("onnx", "tf2onnx", "onnxruntime"), "litert": ("ai_edge_litert",)}.get(form, ()):
        pytest.importorskip(package)
    assert main(["export", f"--run_dir={folder / 'run'}", f"--output_dir={folder}", f"--format={form}"]) == 0
    line = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert line["worst_difference"] <= 1e-5 and main(["inspect", line["path"]]) == 0


def test_an_ablation_there_writes_its_tables_and_pictures(folder, capsys):
    recipes = folder / "recipes"
    recipes.mkdir()
    (recipes / "_a$\\frac$.flags").write_text("\n".join(TINY))
    assert main(["ablate", f"--recipes={recipes}/*.flags", f"--out={folder / 'out'}"]) == 0
    shown, error = capsys.readouterr()
    assert error == "" and shown.endswith("table.json, table.csv, table.md, table.png, curves.png\n")
    assert (folder / "out" / "table.png").exists() and "| `_a$\\frac$` |" in shown


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
def test_names_that_run_flags_cannot_store_are_refused(arguments, message, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["train", *TINY, *arguments]) == 2
    assert message in error_line(capsys)
    (tmp_path / "a.flags").write_text("\n".join(TINY))
    if "--run_dir=run" in arguments:
        assert main(["ablate", "--recipes=a.flags", f"--set={arguments[1][2:]}", "--out=out"]) == 2
    else:
        assert main(["ablate", "--recipes=a.flags", "--out=raw\udcff"]) == 2
    reasons = ("not valid UTF-8", "line break", "ends with whitespace")
    assert any(reason in message and reason in error_line(capsys) for reason in reasons) and os.listdir() == ["a.flags"]
