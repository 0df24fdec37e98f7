"""`keras-bot ablate` as a user runs it: rejected flags, results, and that kills change nothing."""

import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import time

import pytest
from processes import expect_misuse, python_command, run_command, start_process
from tiny_training import ablate_in_this_process, use_tiny_network

from keras_bot.cli.commands.ablate import find_files, read_seeds, read_settings
from keras_bot.errors import MisuseError

TINY = """# What: a tiny network
# Paper:    76.03 / 92.81 top-1 / top-5 %
--dataset=digits
--transform=cifar
--image_size=8
--crop_padding=1
--color_jitter=0
--pca_noise=0
--cache
--model=cifar_resnet8_a
--width=0.1
--batch_size=256
"""


@pytest.fixture
def recipes(tmp_path):
    """A folder of recipes: a baseline, and it with warmup, with a much too large learning rate, with a run_dir."""
    folder = tmp_path / "recipes"
    folder.mkdir()
    (folder / "1_base.flags").write_text(TINY)
    (folder / "2_warmup.flags").write_text("--flagfile=1_base.flags\n--warmup_epochs=0.5\n")
    (folder / "named.txt").write_text("--flagfile=1_base.flags\n--run_dir=runs/mine\n")
    (folder / "explodes.flags").write_text("--flagfile=1_base.flags\n--learning_rate=1e30\n")
    return folder


START = """import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)
from keras_bot.cli.main import main; sys.exit(main())"""


def start(*arguments):
    """Starts the command in its own process."""
    return start_process(python_command(START, "ablate", *arguments), env={"PYTHONPATH": os.pathsep.join(sys.path)})


@pytest.fixture(params=["one process", pytest.param("own processes", marks=pytest.mark.thorough)])
def processes(request, monkeypatch):
    """Where the runs train: in this process a tiny network, or each in a process of its own."""
    if request.param == "one process":
        ablate_in_this_process(monkeypatch)
        use_tiny_network(monkeypatch)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", {}),
        ("epochs=3", {"epochs": "3"}),
        ("dataset=a=b,epochs=3", {"dataset": "a=b", "epochs": "3"}),
        ("epochs=1,decay_epochs=3,6,width=2", {"epochs": "1", "decay_epochs": "3,6", "width": "2"}),
        ("dataset=x,y.npz,epochs=1", {"dataset": "x,y.npz", "epochs": "1"}),
        ("decay_epochs=", {"decay_epochs": ""}),
    ],
)
def test_settings_may_contain_commas(text, expected):
    assert read_settings(text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("zero_gamma", "NAME=VALUE"),
        ("epochs=3,zero_gamma", "received 'zero_gamma'"),
        ("dataset=x,zero_gamma", "received 'zero_gamma'"),
        ("epochs=3,", "received ''"),
        ("zero_gama=true", "Did you mean zero_gamma"),
        ("seed=1", "Use --seeds"),
        ("epochs=3,epochs=4", "--set contains epochs twice"),
    ],
)
def test_invalid_settings_are_errors(text, message):
    with pytest.raises(MisuseError, match=message):
        read_settings(text)


@pytest.mark.parametrize("text", ["", "a", "0,", "-1", "1.5", "0,1,0", "4294967296"])
def test_invalid_seeds_are_errors(text):
    with pytest.raises(MisuseError, match="--seeds"):
        read_seeds(text)


def test_matches_are_sorted_and_the_order_of_parts_is_kept(recipes):
    last, pattern = f"{recipes}/explodes.flags", f"{recipes}/[0-9]*.flags"
    files = find_files(f"{last},{pattern}")
    assert [pathlib.Path(file).name for file in files] == ["explodes.flags", "1_base.flags", "2_warmup.flags"]
    assert read_seeds("2,0") == [2, 0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--recipes=", "--out=out"], "--recipes is required"),
        (["--recipes=recipes/*.md", "--out=out"], "No recipe matches recipes/*.md"),
        (["--recipes=recipes/gone.flags", "--out=out"], "Cannot read the flagfile recipes/gone.flags"),
        (["--recipes=recipes/1_base.flags"], "--out is required"),
        (["--recipes=recipes/1_base.flags,recipes/*_base.flags", "--out=out"], "recipes/1_base.flags twice"),
        (["--recipes=recipes/1*.flags", "recipes/2*.flags", "--out=out"], "Unexpected argument 'recipes/2*.flags'"),
        (["--recipes=recipes/*.flags", "--out=out", "--set=warmup_epochs=0"], "have the same settings"),
        (["--recipes=recipes/*.flags", "--out=out", "--set=epochs=x"], "1_base.flags: --epochs must be a whole"),
        (["--recipes=recipes/*.flags", "--out=out", "--set=epochs=0"], "epochs must be at least 1"),
        (["--recipes=recipes/*.flags", "--out=out", "--set=epochs=1", "--set", "width=1"], "--set was passed 2 times"),
        (["--recipes=recipes/*.flags", "--out=out", "--seeds=1,1"], "--seeds=1,1 contains a seed twice"),
        (["--recipes=recipes/*.flags", "--out=out", "--mode=leave_one_out"], "needs a single recipe"),
        (["--recipes=recipes/1*.flags", "--out=out", "--mode=leave_one_out"], "no trick that could be left out"),
        (["--recipes=recipes/*.flags", "--out=out", "--workers=0"], "--workers must be at least 1"),
        (["--recipes=recipes/*.flags", "--out=recipes"], "--out=recipes contains files but no ablation"),
        (["--recipes=recipes/named.txt", "--out=out"], "named.txt: --run_dir is not allowed"),
    ],
)
def test_misuse_is_one_line_and_exit_code_2(arguments, message, recipes, monkeypatch):
    monkeypatch.chdir(recipes.parent)
    before = sorted(recipes.parent.rglob("*"))
    assert message in expect_misuse("ablate", *arguments)
    assert sorted(recipes.parent.rglob("*")) == before, "a rejected command left files behind"


def test_rows_of_one_seed_and_one_that_fails(recipes, tmp_path, processes):
    """A finished and a failed run, then further commands with the same directory."""
    out = tmp_path / "out"
    rows = [f"--recipes={recipes}/1*.flags,{recipes}/explodes.flags", f"--out={out}"]
    data = "dataset=synthetic,num_classes=4,synthetic_images=16,batch_size=8"
    command = ["ablate", *rows, f"--set=epochs=1,{data}"]
    done = run_command(*command, "--workers=2", code=1)
    assert "[1/2] 1_base/seed0: finished after " in done.out and "[2/2] explodes/seed0: failed after" in done.out
    assert "| `explodes` | – |" in done.out and "table.md" in done.out.splitlines()[-1]
    assert "1 of 2 runs failed, the first is explodes with seed 0: The loss became" in done.error
    table = json.loads((out / "table.json").read_text())
    base, failed = table["rows"]
    trained = json.loads((out / "1_base/seed0/metrics.json").read_text())
    assert base["values"] == [trained["result"]["top1"]] and base["parameters"] == trained["network"]["parameters"]
    assert base["paper"] == 0.7603 and failed["values"] == [] and "The loss became" in failed["failed"]["0"]
    assert {"table.md", "table.csv", "table.png", "curves.png"} < {path.name for path in out.iterdir()}

    assert "2 runs: 1 finished, 1 started, 0 pending" in run_command(*command, "--dry_run").out
    assert "Did you mean top5 or top1" in expect_misuse(*command, "--metric=top3", "--dry_run")
    longer = expect_misuse("ablate", *rows, f"--set=epochs=2,{data}")
    assert "row 1_base with another recipe (epochs was 1, is 2)" in longer
    history = out / "1_base/seed0/history.csv"
    history.write_text(history.read_text().replace("1,", "2,", 1))
    assert f"{history.parent} was changed: history.csv" in expect_misuse(*command)


@pytest.mark.thorough
def test_recipes_are_checked_before_any_run(recipes, tmp_path):
    for setting, message in (
        ("dataset=/no/where", "1_base.flags (row 1_base): No folder '/no/where'"),
        ("model=resnet51_d", "Did you mean resnet50_d"),
        ("batch_size=1443", "--batch_size=1443 is larger than the 1442 training images"),
        ("teacher=gone.keras", "gone.keras"),
    ):
        command = ["ablate", f"--recipes={recipes}/*.flags", f"--set={setting}", f"--out={tmp_path / 'out'}"]
        assert message in expect_misuse(*command)
    assert not (tmp_path / "out").exists()


def read_table(out):
    """Returns table.json without the timing."""
    table = json.loads((out / "table.json").read_text())
    del table["timing"]
    return json.dumps(table)


@pytest.mark.soak
def test_kills_at_random_moments_change_nothing(recipes, tmp_path):
    """Two rows with two seeds, killed by SIGKILL, SIGTERM and SIGINT from the first second on."""
    command = [f"--recipes={recipes}/[12]*.flags", "--seeds=3,1", "--set=epochs=8,checkpoint_every=2,decay_epochs=4,6"]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    process = start(*command, f"--out={whole}")
    began = time.monotonic()
    shown, error = process.communicate()
    took = time.monotonic() - began
    assert process.returncode == 0, error
    draw, exit_codes = random.Random(int(os.environ.get("KERAS_BOT_KILL_SEED", "0"))), []
    while True:
        process = start(*command, f"--out={killed}")
        try:
            shown, error = process.communicate(timeout=draw.uniform(1, took / 4) if len(exit_codes) < 12 else None)
        except subprocess.TimeoutExpired:
            process.send_signal((signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT)[len(exit_codes) % 4])
            shown, error = process.communicate(timeout=90)
        exit_codes.append(process.returncode)
        assert process.returncode in (0, -signal.SIGKILL, -signal.SIGTERM, 143, 130), error
        assert " is training in" not in shown + error, "a training outlived its ablation"
        if process.returncode == 0:
            break
    print(f"{took:.0f} s without interruption; exit codes {exit_codes}")
    assert len(exit_codes) > 5
    assert read_table(killed) == read_table(whole)
    for name in ("curves.png", "table.png"):
        assert (killed / name).read_bytes() == (whole / name).read_bytes()
    again = start(*command, f"--out={killed}")
    shown, _ = again.communicate()
    assert again.returncode == 0 and shown.count("finished earlier") == 4
