"""What the README shows works as it stands there."""

import pathlib
import re

import pytest

from keras_bot.cli.flags import Flags
from keras_bot.cli.main import COMMANDS

ROOT = pathlib.Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_the_tricks_in_ones_own_fit(tmp_path, monkeypatch):
    import keras

    monkeypatch.chdir(tmp_path)
    snippet = next(block for block in blocks("python") if "Sequential" in block)
    told = {}
    exec(snippet, told)
    assert told["accuracy"] > 0.9
    again = keras.saving.load_model("digits.keras")
    assert again.evaluate(told["images"][1500:], told["labels"][1500:], verbose=0)[1] == pytest.approx(told["accuracy"])


def test_the_subset_of_cifar10_is_a_data_set(tmp_path, monkeypatch):
    import keras
    import numpy as np

    from keras_bot import data

    def like_keras(count):
        return np.zeros((count, 32, 32, 3), np.uint8), np.arange(count, dtype=np.uint8)[:, None] % 10

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(keras.datasets.cifar10, "load_data", lambda: (like_keras(50000), like_keras(10000)))
    exec(next(block for block in blocks("python") if "cifar10" in block), {})
    sizes = [data.open_source("cifar10_10k_2k.npz", split).size for split in ("train", "eval")]
    assert sizes == [10000, 2000]


def test_the_pipeline_in_ones_own_fit(image_folder, tmp_path, monkeypatch):
    import keras

    image_folder(classes=2, train=40, val=3, name="path/to/photos")
    monkeypatch.chdir(tmp_path)
    layers = [keras.Input((224, 224, 3)), keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(2, "softmax")]
    told = {"model": keras.Sequential(layers)}
    snippet = next(block for block in blocks("python") if "data.pipeline" in block)
    assert "epochs = 20\n" in snippet
    exec(snippet.replace("epochs = 20\n", "epochs = 3\n"), told)
    history = told["model"].history
    assert history.epoch == list(range(3)) and "val_accuracy" in history.history
    assert len(told["train"]) == 3 and len(told["held_out"]) == 1


def test_the_commands_and_flags_exist():
    flags = Flags("train", "", recipe=True).help()
    used = re.findall(r"keras-bot ([\w-]+)", " ".join(blocks("bash")))
    assert used and set(used) <= set(COMMANDS)
    table = README[README.index("| trick |") : README.index("`keras-bot train … --dry_run`")]
    for name in re.findall(r"`--(\w+)", table):
        assert f"--{name}" in flags


def test_the_files_it_names_are_there():
    named = re.findall(r"flags/[\w/]+\.flags", README) + re.findall(r"\]\((\.readme/[\w.]+|\w+\.md)\)", README)
    assert named
    assert [name for name in named if not (ROOT / name).exists()] == []
