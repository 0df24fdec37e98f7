"""A run that version 0.1.0 left after 2 of 4 epochs is resumed and ends like the uninterrupted run of that version.

`compat/stopped` is the interrupted run without its best.keras, `compat/whole` what the uninterrupted one ended with.
"""

import io
import json
import pathlib
import shutil
import zipfile

import h5py
import numpy as np
import pytest
from builders import read_history
from processes import run_command

from keras_bot.cli.flags import read_recipe
from keras_bot.recipe import RENAMED, Recipe

FOLDER = pathlib.Path(__file__).parent / "compat"
STOPPED, WHOLE = FOLDER / "stopped", FOLDER / "whole"
TOLERANCE = 1e-4  # other CPUs round differently


def read_weights(path):
    """Returns the arrays of a .keras file by their names in it, without building the network."""
    with zipfile.ZipFile(path) as archive:
        file = h5py.File(io.BytesIO(archive.read("model.weights.h5")), "r")
    weights = {}
    file.visititems(lambda name, item: weights.update({name: item[()]} if isinstance(item, h5py.Dataset) else {}))
    return weights


@pytest.fixture(scope="module")
def resumed(tmp_path_factory):
    """The resumed run."""
    run = tmp_path_factory.mktemp("compat") / "run"
    shutil.copytree(STOPPED, run)
    command = ["train", f"--flagfile={STOPPED / 'run.flags'}", f"--run_dir={run}", "--resume"]
    done = run_command(*command)
    assert done.err == "", "a run.flags of the previous version must load silently"
    assert [line.split(" - ")[0] for line in done.out.splitlines()[:-1]] == ["epoch 3/4", "epoch 4/4"]
    return run


def test_the_stored_flags_give_the_recipe(capsys):
    text = (STOPPED / "run.flags").read_text()
    assert all(f"--{old}=" in text and f"--{new}=" not in text for old, new in RENAMED.items())
    recipe = read_recipe(STOPPED)
    assert (recipe.keep_checkpoints, recipe.accumulation_steps, recipe.jit_compile) == (1, 2, "off")
    assert (recipe.global_clipnorm, recipe.map_metric, recipe.shard_by) == (5.0, "voc", "example")
    assert recipe.as_text().keys() == Recipe().as_text().keys()
    assert capsys.readouterr().err == ""


def test_the_resumed_run_ends_with_the_same_weights(resumed):
    weights = read_weights(resumed / "model.keras")
    with np.load(WHOLE / "weights.npz") as expected:
        assert weights.keys() == set(expected.files)
        differences = {name: np.abs(weights[name] - expected[name]).max() for name in expected.files}
    worst = max(differences, key=differences.get)
    print(f"largest difference: {differences[worst]} in {worst}")  # 0.0 on the machine that wrote the files
    assert differences[worst] < TOLERANCE


def test_the_resumed_run_ends_with_the_same_metrics(resumed):
    metrics, expected = (json.loads((folder / "metrics.json").read_text()) for folder in (resumed, WHOLE))
    for name in ("top1", "top5", "loss", "best_top1", "epochs"):
        assert metrics["result"][name] == pytest.approx(expected["result"][name], abs=1e-3), name
    rows, expected = read_history(resumed), read_history(WHOLE)
    assert [row["epoch"] for row in rows] == [row["epoch"] for row in expected] == ["1", "2", "3", "4"]
    for name in ("loss", "top1", "val_loss", "val_top1", "learning_rate"):
        values, wanted = ([float(row[name]) for row in part] for part in (rows, expected))
        assert values == pytest.approx(wanted, abs=1e-3), name
