"""A network of one convolution, and trainings of it: whole runs that take a fraction of a ResNet's time to trace."""

import dataclasses
import pathlib

import keras
import pytest
from processes import run_command

from keras_bot.ablation import driver
from keras_bot.ablation.validate import TrainerInfo, plan_recipes
from keras_bot.recipe import Recipe
from keras_bot.tasks import classification
from keras_bot.trainer import describe, train


def tiny_network(classes: int = 4, filters: int = 4) -> keras.Model:
    """Returns a convolution, batch norm, ReLU, pooling and a dense layer: images of any size to logits.

    The layers have names, because checkpoints contain names of optimizer variables, which contain those of layers.
    """
    layers = keras.layers
    images = keras.Input((None, None, 3), name="images")
    x = layers.Conv2D(filters, 3, strides=2, padding="same", use_bias=False, name="conv")(images)
    x = layers.ReLU(name="relu")(layers.BatchNormalization(name="bn")(x))
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(images, layers.Dense(classes, dtype="float32", name="logits")(x), name="tiny")


def use_tiny_network(monkeypatch: pytest.MonkeyPatch):
    """Lets every training of a classifier in this process build `tiny_network`, whose filters the `width` scales."""

    def build(recipe, num_classes, class_names=()):
        return tiny_network(num_classes, filters=round(16 * recipe.width))

    monkeypatch.setattr(classification, "build_classifier", build)


def train_tiny(recipe: Recipe, run_dir: pathlib.Path, **options) -> dict:
    """Trains `tiny_network` by a recipe; `options` are those of `train`."""
    with pytest.MonkeyPatch.context() as patch:
        use_tiny_network(patch)
        return train(recipe, run_dir, progress_bar=False, **options)


def write_network(run_dir: pathlib.Path, recipe: Recipe, network: keras.Model) -> dict:
    """Saves a network as the result of a run and returns the facts that `train` writes to metrics.json."""
    task = classification.Classification()
    run_dir.mkdir(parents=True, exist_ok=True)
    task.save(network, run_dir / "model.keras")
    return describe(recipe, network, *(task.open_source(recipe, split) for split in ("train", "eval")))


def ablate_in_this_process(monkeypatch):
    """Lets `keras-bot ablate` check recipes and train in this process, one run after the other."""
    monkeypatch.setattr(driver, "run_jobs", _run_jobs)
    monkeypatch.setattr(driver, "check_recipes", _check_recipes)


def _run_jobs(jobs, *, workers, on_start, on_end):
    for job in jobs:
        on_start(job)
        done = run_command(*job.command[3:], code=None)  # without python -m keras_bot
        job.log.write_text(done.out + done.err)
        on_end(job, done.code and f"{done.error.removeprefix('keras-bot: ')} (exit code {done.code})")


def _check_recipes(rows, command):
    return TrainerInfo(**plan_recipes([(row.name, row.file, dataclasses.asdict(row.recipe)) for row in rows]))
