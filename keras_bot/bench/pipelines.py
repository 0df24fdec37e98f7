"""Comparison of the accuracy reached with `data.train_pipeline` and with the plain pipeline, over seeds."""

import dataclasses
import math
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_bot import data, tricks
from keras_bot.bench.plain_pipeline import PlainConfig, plain_pipeline
from keras_bot.bench.trainee import build_trainee
from keras_bot.errors import MisuseError, RunError, expect_at_least_one, unknown
from keras_bot.recipe import Recipe
from keras_bot.tasks.classification import Classification
from keras_bot.training.batches import build_batch_transform
from keras_bot.training.distributed.selection import build_strategy
from keras_bot.training.evaluate import evaluate
from keras_bot.training.failures import user_errors
from keras_bot.training.schedule import count_steps

ARMS = ("fast", "plain")
NOISE = 2.0  # standard errors of the difference


def bench_pipelines(
    recipe: Recipe,
    *,
    seeds: int = 3,
    arms: Sequence[str] = ARMS,
    on_trained: Callable[[dict], None] = lambda result: None,
) -> dict:
    """Trains the recipe once per seed and pipeline, and evaluates after the last epoch.

    Args:
        recipe: must have JPEG images and the transform "imagenet". The first seed is `recipe.seed`.
        seeds: number of consecutive seeds.
        arms: "fast" (`data.train_pipeline`), "plain" or both; for a seed, both start from the same weights.
        on_trained: called after each training run with a dict of arm, seed, top1 and seconds.

    Returns:
        For each arm its top1 (fractions, one per seed), mean and sample std (None for one seed). With both arms also
        difference (fast minus plain), standard_error of the difference and within_noise: whether the difference is at
        most two standard errors (both None for one seed).

    Raises:
        MisuseError: for an unknown arm, no arm, no seed, or data that the plain pipeline does not support.
        RunError: if a training run fails.
    """
    for arm in arms:
        if arm not in ARMS:
            raise unknown("arm", arm, ARMS)
    if not arms:
        raise MisuseError(f"--arms is empty. Pass {', '.join(ARMS)} or both.")
    expect_at_least_one(seeds=seeds)
    _check_recipe(recipe)
    top1: dict[str, list[float]] = {arm: [] for arm in ARMS if arm in arms}
    for seed in range(recipe.seed, recipe.seed + seeds):
        for arm in top1:
            start = time.perf_counter()
            top1[arm].append(train_once(dataclasses.replace(recipe, seed=seed), arm))
            seconds = round(time.perf_counter() - start, 1)
            on_trained({"arm": arm, "seed": seed, "top1": top1[arm][-1], "seconds": seconds})
    return {"seeds": seeds, "epochs": recipe.epochs, "model": recipe.model, **compare(top1)}


def train_once(recipe: Recipe, arm: str) -> float:
    """Trains once with one pipeline and returns the top-1 accuracy (fraction) on all evaluation images."""
    keras.utils.clear_session()
    task = Classification()
    train_source, eval_source = (task.open_source(recipe, split) for split in ("train", "eval"))
    corrupt = data.CorruptLog(recipe.max_corrupt)
    steps = count_steps(recipe, train_source)
    build_batches: Callable[..., tf.data.Dataset] = task.training_data
    if arm == "plain":
        recipe, build_batches = dataclasses.replace(recipe, augment_on="host"), plain_training_data
    strategy = build_strategy(recipe)
    keras.utils.set_random_seed(recipe.seed)
    with tricks.mixed_precision(recipe.precision), strategy.scope():
        model, trainee = build_trainee(recipe, train_source, strategy)
        eval_data = task.evaluation_data(recipe, eval_source, corrupt)
        strategy.build_from_spec(trainee, eval_data)
        try:
            with user_errors(corrupt):
                trainee.fit(
                    build_batches(recipe, train_source, corrupt),
                    epochs=recipe.epochs,
                    steps_per_epoch=steps,
                    shuffle=False,
                    verbose=0,
                    callbacks=[tricks.StopOnNonFinite()],
                )
        except tricks.NonFiniteLoss as error:
            raise RunError(f"{arm} pipeline, seed {recipe.seed}: {error}") from None
        return evaluate(model, eval_data, corrupt=corrupt)["top1"]


def plain_training_data(recipe: Recipe, source: data.Source, corrupt: data.CorruptLog) -> tf.data.Dataset:
    """Like `Classification.training_data`, with the plain pipeline: all records in memory, no corrupt images."""
    del corrupt
    records = list(source.records().as_numpy_iterator())
    if not all(isinstance(record["image"], bytes) and record["image"][:2] == b"\xff\xd8" for record in records):
        raise MisuseError(f"The plain pipeline requires JPEGs, but {source.name} contains other images.")
    config = PlainConfig(**{field.name: getattr(recipe, field.name) for field in dataclasses.fields(PlainConfig)})
    images, labels = ([record[part] for record in records] for part in ("image", "label"))
    return plain_pipeline(images, labels, source.num_classes, config, build_batch_transform(recipe))


def compare(top1: dict[str, list[float]]) -> dict:
    """Computes the statistics that `bench_pipelines` returns from each arm's accuracies."""
    several = min(map(len, top1.values())) > 1
    report: dict[str, dict[str, Any]] = {
        arm: {
            "top1": values,
            "mean": statistics.mean(values),
            "std": statistics.stdev(values) if several else None,
        }
        for arm, values in top1.items()
    }
    if len(top1) < 2:
        return report
    difference = report["fast"]["mean"] - report["plain"]["mean"]
    error = math.sqrt(sum(report[arm]["std"] ** 2 / len(top1[arm]) for arm in ARMS)) if several else None
    within = None if error is None else abs(difference) <= NOISE * error
    return {**report, "difference": difference, "standard_error": error, "within_noise": within}


def _check_recipe(recipe):
    if recipe.teacher_cache:
        raise MisuseError("--teacher_cache is not supported: the plain pipeline produces different batches. Drop it.")
    if recipe.transform != "imagenet":
        raise MisuseError(f"The plain pipeline requires --transform=imagenet, received {recipe.transform}.")
