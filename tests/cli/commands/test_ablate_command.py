"""`keras-bot ablate` as a user runs it: what is refused, what comes of it, and that kills change nothing."""

import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import time

import pytest

from keras_bot.cli.commands.ablate import find_files, read_seeds, read_settings
from keras_bot.cli.main import main
from keras_bot.errors import MisuseError

TINY = """# What: a tiny one
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
    """A folder of recipes: a baseline, it with warmup, it with a learning rate that explodes, it with a directory."""
    folder = tmp_path / "recipes"
    folder.mkdir()
    (folder / "1_base.flags").write_text(TINY)
    (folder / "2_warmup.flags").write_text("--flagfile=1_base.flags\n--warmup_epochs=0.5\n")
    (folder / "named.txt").write_text("--flagfile=1_base.flags\n--run_dir=runs/mine\n")
    (folder / "explodes.flags").write_text("--flagfile=1_base.flags\n--learning_rate=1e30\n")
    return folder


def told(capsys):
    """What went to stderr, which must be one line and no traceback."""
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    return lines[0]


def start(*arguments, **options):
    """The command in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    code = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from keras_bot.cli.main import main; sys.exit(main())"
    )
    command = [sys.executable, "-c", code, "ablate", *map(str, arguments)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, env=environment, **pipes, **options)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("", {}),
        ("epochs=3", {"epochs": "3"}),
        ("dataset=a=b,epochs=3", {"dataset": "a=b", "epochs": "3"}),
        ("epochs=1,decay_epochs=3,6,width=2", {"epochs": "1", "decay_epochs": "3,6", "width": "2"}),
        ("dataset=x,y.npz,epochs=1", {"dataset": "x,y.npz", "epochs": "1"}),
        ("decay_epochs=", {"decay_epochs": ""}),
    ],
)
def test_settings_may_hold_commas(given, expected):
    assert read_settings(given) == expected


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("zero_gamma", "NAME=VALUE"),
        ("epochs=3,zero_gamma", "received 'zero_gamma'"),
        ("dataset=x,zero_gamma", "received 'zero_gamma'"),
        ("epochs=3,", "received ''"),
        ("zero_gama=true", "Did you mean zero_gamma"),
        ("seed=1", "Give --seeds"),
        ("epochs=3,epochs=4", "epochs once"),
    ],
)
def test_settings_of_another_form_are_told(given, message):
    with pytest.raises(MisuseError, match=message):
        read_settings(given)


@pytest.mark.parametrize("given", ["", "a", "0,", "-1", "1.5", "0,1,0", "4294967296"])
def test_seeds_of_another_form_are_told(given):
    with pytest.raises(MisuseError, match="--seeds"):
        read_seeds(given)


def test_patterns_are_sorted_and_the_order_given_is_kept(recipes):
    last, pattern = f"{recipes}/explodes.flags", f"{recipes}/[0-9]*.flags"
    files = find_files(f"{last},{pattern}")
    assert [pathlib.Path(file).name for file in files] == ["explodes.flags", "1_base.flags", "2_warmup.flags"]
    assert read_seeds("2,0") == [2, 0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--recipes=", "--out=out"], "Expected --recipes"),
        (["--recipes=recipes/*.md", "--out=out"], "match recipes/*.md, found none"),
        (["--recipes=recipes/gone.flags", "--out=out"], "Can't read the flagfile recipes/gone.flags"),
        (["--recipes=recipes/1_base.flags"], "Expected --out"),
        (["--recipes=recipes/1_base.flags,recipes/*_base.flags", "--out=out"], "recipes/1_base.flags twice"),
        (["--recipes=recipes/1*.flags", "recipes/2*.flags", "--out=out"], "received 'recipes/2*.flags'"),
        (["--recipes=recipes/*.flags", "--out=out", "--set=warmup_epochs=0"], "whose settings are the same"),
        (["--recipes=recipes/*.flags", "--out=out", "--set=epochs=x"], "1_base.flags: Expected --epochs as a whole"),
        (["--recipes=recipes/*.flags", "--out=out", "--set=epochs=0"], "Expected epochs at least 1"),
        (["--recipes=recipes/*.flags", "--out=out", "--set=epochs=1", "--set", "width=1"], "one --set"),
        (["--recipes=recipes/*.flags", "--out=out", "--seeds=1,1"], "each seed once"),
        (["--recipes=recipes/*.flags", "--out=out", "--mode=leave_one_out"], "one recipe with"),
        (["--recipes=recipes/1*.flags", "--out=out", "--mode=leave_one_out"], "a trick to leave out"),
        (["--recipes=recipes/*.flags", "--out=out", "--workers=0"], "--workers of at least 1"),
        (["--recipes=recipes/*.flags", "--out=recipes"], "recipes holds other files"),
        (["--recipes=recipes/named.txt", "--out=out"], "named.txt: Expected no --run_dir"),
    ],
)
def test_misuse_is_one_clear_line_and_exit_code_2(arguments, message, recipes, capsys, monkeypatch):
    monkeypatch.chdir(recipes.parent)
    before = sorted(recipes.parent.rglob("*"))
    assert main(["ablate", *arguments]) == 2
    assert message in told(capsys)
    assert sorted(recipes.parent.rglob("*")) == before, "a refused command left something behind"


def test_rows_of_one_seed_and_one_that_fails(recipes, tmp_path, capsys):
    """The whole way: what is done, what failed and why, what a second command finds, and refuses."""
    out = tmp_path / "out"
    rows = [f"--recipes={recipes}/1*.flags,{recipes}/explodes.flags", f"--out={out}"]
    command = [*rows, "--set=epochs=1"]
    assert main(["ablate", *command, "--workers=2"]) == 1
    shown, error = capsys.readouterr()
    assert "[1/2] 1_base/seed0: top1 " in shown and "[2/2] explodes/seed0: failed after" in shown
    assert "| `explodes` | – |" in shown and "table.md" in shown.splitlines()[-1]
    assert "1 of 2 runs failed, first explodes with seed 0: The loss became" in error.splitlines()[-1]
    assert len(error.splitlines()) == 1, error
    table = json.loads((out / "table.json").read_text())
    base, failed = table["rows"]
    trained = json.loads((out / "1_base/seed0/metrics.json").read_text())
    assert base["values"] == [trained["result"]["top1"]] and base["parameters"] == trained["network"]["parameters"]
    assert base["paper"] == 0.7603 and failed["values"] == [] and "The loss became" in failed["failed"]["0"]
    assert {"table.md", "table.csv", "table.png", "curves.png"} < {path.name for path in out.iterdir()}

    assert main(["ablate", *command, "--dry_run"]) == 0
    assert "2 runs: 1 done, 1 begun, 0 left" in capsys.readouterr().out
    assert main(["ablate", *command, "--metric=top3", "--dry_run"]) == 2
    assert "Did you mean top5 or top1" in told(capsys)
    assert main(["ablate", *rows, "--set=epochs=2"]) == 2
    assert "row 1_base by another recipe (epochs was 1, is 2)" in told(capsys)
    history = out / "1_base/seed0/history.csv"
    history.write_text(history.read_text().replace("1,", "2,", 1))
    assert main(["ablate", *command]) == 2
    assert f"{history.parent} was changed: history.csv" in told(capsys)


@pytest.mark.slow
def test_recipes_are_checked_before_any_run(recipes, tmp_path, capsys):
    for setting, message in (
        ("dataset=/no/where", "1_base.flags (row 1_base): No folder '/no/where'"),
        ("model=resnet51_d", "Did you mean resnet50_d"),
        ("batch_size=1443", "batch_size of at most the 1442 training images"),
        ("teacher=gone.keras", "gone.keras"),
    ):
        assert main(["ablate", f"--recipes={recipes}/*.flags", f"--set={setting}", f"--out={tmp_path / 'out'}"]) == 2
        assert message in told(capsys)
    assert not (tmp_path / "out").exists()


def without_timing(out):
    told = json.loads((out / "table.json").read_text())
    del told["timing"]
    return json.dumps(told)


@pytest.mark.slow
def test_kills_at_random_moments_change_nothing(recipes, tmp_path):
    """Two rows by two seeds: by turns kill -9 and SIGTERM, from the first second on."""
    command = [f"--recipes={recipes}/[12]*.flags", "--seeds=3,1", "--set=epochs=8,checkpoint_every=2,decay_epochs=4,6"]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    process = start(*command, f"--out={whole}")
    began = time.monotonic()
    shown, error = process.communicate()
    took = time.monotonic() - began
    assert process.returncode == 0, error
    draw, lives = random.Random(int(os.environ.get("KERAS_BOT_KILL_SEED", "0"))), []
    while True:
        process = start(*command, f"--out={killed}")
        try:
            shown, error = process.communicate(timeout=draw.uniform(1, took / 4) if len(lives) < 12 else None)
        except subprocess.TimeoutExpired:
            process.send_signal((signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT)[len(lives) % 4])
            shown, error = process.communicate(timeout=90)
        lives.append(process.returncode)
        assert process.returncode in (0, -signal.SIGKILL, -signal.SIGTERM, 143, 130), error
        assert " is training in" not in shown + error, "a training outlived its ablation"
        if process.returncode == 0:
            break
    print(f"unbroken {took:.0f} s; exit codes {lives}")
    assert len(lives) > 5
    assert without_timing(killed) == without_timing(whole)
    for name in ("curves.png", "table.png"):
        assert (killed / name).read_bytes() == (whole / name).read_bytes()
    again = start(*command, f"--out={killed}")
    shown, _ = again.communicate()
    assert again.returncode == 0 and shown.count("done before") == 4
