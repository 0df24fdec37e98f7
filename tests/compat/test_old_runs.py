"""Run directories and ablations of version 0.1.0 are read and continued, without warnings about renamed fields.

`run/` is a training of four epochs. `ablation/` was stopped by SIGTERM: two of its four runs were finished, the third
had trained all its epochs, the fourth had not started. Files that later commands do not read were removed, and the
.keras files were compressed. `recipes/` are the recipes of the ablation.
"""

import hashlib
import json
import pathlib
import shutil

import pytest
from processes import run_command
from tiny_training import ablate_in_this_process

FOLDER = pathlib.Path(__file__).parent
FINISHED = ("1_base/seed0", "2_no_mixup/seed0")


def run_silently(*arguments):
    """Runs a command that must succeed without output to stderr; returns its output."""
    done = run_command(*arguments)
    assert done.err == ""
    return done


@pytest.fixture
def run(tmp_path):
    return shutil.copytree(FOLDER / "run", tmp_path / "run")


@pytest.fixture
def ablation(tmp_path, monkeypatch):
    """A copy of the ablation in the current directory, which also contains the recipes."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(FOLDER / "recipes", tmp_path / "recipes")
    return shutil.copytree(FOLDER / "ablation", tmp_path / "ablation")


def read_hashes(ablation):
    """Returns the recorded SHA-256 of the records of the runs that were finished."""
    runs = json.loads((ablation / "ablation.json").read_text())["runs"]
    return {name: runs[name]["files"] for name in FINISHED}


@pytest.mark.thorough
def test_an_old_ablation_continues(ablation, monkeypatch):
    ablate_in_this_process(monkeypatch)
    hashes = read_hashes(ablation)
    before = json.loads((ablation / "table.json").read_text())["rows"]
    output = run_command("ablate", "--recipes=recipes/*.flags", "--seeds=0,1", "--out=ablation", "--workers=2").out
    assert output.count("finished earlier") == 2 and output.count(": finished after ") == 2
    assert "[3/4] 1_base/seed1: resumed" in output and "[4/4] 2_no_mixup/seed1: started" in output
    assert read_hashes(ablation) == hashes
    for name in FINISHED:
        assert {
            file: hashlib.sha256((ablation / name / file).read_bytes()).hexdigest() for file in hashes[name]
        } == hashes[name]
    after = json.loads((ablation / "table.json").read_text())["rows"]
    assert [row["values"][0] for row in after] == [row["values"][0] for row in before]
    assert [row["seeds"] for row in after] == [[0, 1], [0, 1]] and not any(row["failed"] for row in after)
    assert after[0]["values"][1] == 0.5  # its epochs were trained by version 0.1.0
    assert all((ablation / row / "seed1/model.keras").exists() for row in ("1_base", "2_no_mixup"))
    logs = [log.read_text() for log in ablation.glob("*/seed1.log")]
    assert len(logs) == 2 and not any("is now" in log for log in logs)


def test_the_state_of_an_old_ablation_is_listed(ablation):
    done = run_command("ablate", "--recipes=recipes/*.flags", "--seeds=0,1", "--out=ablation", "--dry_run")
    assert "4 runs: 2 finished, 1 started, 1 pending" in done.out


def test_an_old_run_is_reported(run, tmp_path):
    done = run_silently("report", run, f"--output={tmp_path / 'page.html'}")
    assert done.result["runs"]["run"]["top1"] == 0.5
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "keras_bot 0.1.0" in page and "global_clipnorm" in page and "clip_norm<" not in page
    assert "Loss by epoch" in page and "Reliability diagram" in page


def test_an_old_run_is_evaluated(run):
    result = run_silently("evaluate", f"--run_dir={run}").result
    recorded = json.loads((run / "metrics.json").read_text())["result"]
    assert result["images"] == 48
    assert [result[name] for name in ("top1", "top5", "loss")] == pytest.approx(
        [recorded[name] for name in ("top1", "top5", "loss")], rel=1e-5
    )
