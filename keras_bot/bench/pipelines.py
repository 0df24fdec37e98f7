"""Comparison of the accuracy reached with `data.train_pipeline` and with the plain pipeline, over seeds."""

import dataclasses
import math
import statistics
import time
from collections.abc import Callable, Sequence

import keras
import tensorflow as tf

from keras_bot import data, tricks
from keras_bot.bench.plain_pipeline import plain_pipeline
from keras_bot.errors import MisuseError, RunError, expect_at_least_one, unknown
from keras_bot.recipe import Recipe
from keras_bot.tasks.classification import build_trainee
from keras_bot.training import assemble
from keras_bot.training.distributed.selection import build_strategy
from keras_bot.training.evaluate import evaluate
from keras_bot.training.failures import user_errors

ARMS = ("fast", "plain")
NOISE = 2.0  # standard errors of the difference


def bench_pipelines(
    recipe: Recipe,
    *,
    seeds: int = 3,
    arms: Sequence[str] = ARMS,
    tell: Callable[[dict], None] = lambda finished: None,
) -> dict:
    """Trains the recipe once per seed and pipeline, and evaluates after the last epoch.

    Args:
        recipe: must have JPEG images and the transform "imagenet". The first seed is `recipe.seed`.
        seeds: number of consecutive seeds.
        arms: "fast" (`data.train_pipeline`), "plain" or both; for a seed, both start from the same weights.
        tell: called after each training with a dict of arm, seed, top1 and seconds.

    Returns:
        For each arm its top1 (fractions, one per seed), mean and sample std (None for one seed). With both arms also
        difference (fast minus plain), standard_error of the difference and within_noise: whether the difference is at
        most two standard errors (both None for one seed).

    Raises:
        MisuseError: for an unknown arm, no arm, no seed, or data that the plain pipeline can't read.
        RunError: if a training fails.
    """
    for arm in arms:
        if arm not in ARMS:
            raise unknown("arm", arm, ARMS)
    if not arms:
        raise MisuseError(f"Expected at least one arm of {' and '.join(ARMS)}, received none.")
    expect_at_least_one(seeds=seeds)
    _check_recipe(recipe)
    top1 = {arm: [] for arm in ARMS if arm in arms}
    for seed in range(recipe.seed, recipe.seed + seeds):
        for arm in top1:
            began = time.perf_counter()
            top1[arm].append(train_once(dataclasses.replace(recipe, seed=seed), arm))
            took = round(time.perf_counter() - began, 1)
            tell({"arm": arm, "seed": seed, "top1": top1[arm][-1], "seconds": took})
    return {"seeds": seeds, "epochs": recipe.epochs, "model": recipe.model, **compare(top1)}


def train_once(recipe: Recipe, arm: str) -> float:
    """Trains once with one pipeline and returns the top-1 accuracy (fraction) on all evaluation images."""
    keras.utils.clear_session()
    train_source, eval_source = (assemble.open_source(recipe, split) for split in ("train", "eval"))
    corrupt = data.CorruptLog(recipe.max_corrupt)
    steps = assemble.steps_in_epoch(recipe, train_source)
    make = assemble.training_data
    if arm == "plain":
        recipe, make = dataclasses.replace(recipe, augment_on="host"), plain_training_data
    strategy = build_strategy(recipe)
    keras.utils.set_random_seed(recipe.seed)
    with tricks.mixed_precision(recipe.precision), strategy.scope():
        model, trainee = build_trainee(recipe, train_source, strategy)
        eval_data = assemble.evaluation_data(recipe, eval_source, corrupt)
        strategy.build_from_spec(trainee, eval_data)
        try:
            with user_errors(corrupt):
                trainee.fit(
                    make(recipe, train_source, corrupt),
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
    """`assemble.training_data` by the plain pipeline, with all records in memory; it knows no broken image."""
    del corrupt
    records = list(source.records().as_numpy_iterator())
    if not all(isinstance(record["image"], bytes) and record["image"][:2] == b"\xff\xd8" for record in records):
        raise MisuseError(f"Expected JPEGs for the plain pipeline, but {source.name} holds other images.")
    return plain_pipeline(
        [record["image"] for record in records],
        [record["label"] for record in records],
        source.num_classes,
        batch_size=recipe.batch_size,
        image_size=recipe.image_size,
        epochs=recipe.epochs,
        flip=recipe.flip,
        color_jitter=recipe.color_jitter,
        pca_noise=recipe.pca_noise,
        min_area=recipe.min_area,
        seed=recipe.seed,
        batch_transform=assemble.build_batch_transform(recipe),
    )


def compare(top1: dict[str, list[float]]) -> dict:
    """Computes the statistics that `bench_pipelines` returns from each arm's accuracies."""
    several = min(map(len, top1.values())) > 1
    report = {
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
    error = None
    if several:
        error = math.sqrt(sum(report[arm]["std"] ** 2 / len(top1[arm]) for arm in ARMS))
    within = abs(difference) <= NOISE * error if several else None
    return {**report, "difference": difference, "standard_error": error, "within_noise": within}


def _check_recipe(recipe):
    if recipe.teacher_cache:
        raise MisuseError(
            "Expected no --teacher_cache, received one: it is of other batches than the plain pipeline's."
        )
    if recipe.transform != "imagenet":
        raise MisuseError(f"Expected --transform=imagenet for the plain pipeline, received {recipe.transform}.")
