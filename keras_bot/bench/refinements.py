"""Cost of the tricks (without distillation): time of a training step compared with the same step without them."""

import dataclasses
import statistics
import time
from typing import Any

import keras

from keras_bot import data, tricks
from keras_bot.bag import all_settings, without
from keras_bot.bench.trainee import build_trainee
from keras_bot.errors import expect_at_least_one
from keras_bot.recipe import Recipe
from keras_bot.tasks.classification import Classification
from keras_bot.training.distributed.selection import build_strategy
from keras_bot.training.failures import user_errors


def bench_refinements(recipe: Recipe, *, steps: int = 10, repeats: int = 7) -> dict:
    """Times blocks of steps of one network with and without the bag of tricks, in turns, including the input pipeline.

    Args:
        recipe: network, data and precision for both; the fields in the bag of tricks are overwritten.
        steps: steps per block.
        repeats: number of blocks with the bag of tricks, and of blocks without it.

    Returns:
        Median seconds per step of `baseline` and `bag`, `ratio` (bag / baseline, the median over pairs of blocks) and
        `ratios` (sorted, one per pair).

    Raises:
        MisuseError: if a number isn't positive or the data can't be used.
    """
    expect_at_least_one(steps=steps, repeats=repeats)
    bag: dict[str, Any] = all_settings()
    baseline: dict[str, Any] = {field.name: field.default for field in dataclasses.fields(Recipe) if field.name in bag}
    recipe = dataclasses.replace(without(recipe, "distillation"), epochs=1000)
    recipes = {"baseline": dataclasses.replace(recipe, **baseline), "bag": dataclasses.replace(recipe, **bag)}
    corrupt = data.CorruptLog(recipe.max_corrupt)
    with tricks.mixed_precision(recipe.precision), user_errors(corrupt):
        runners = {name: _Runner(each, corrupt) for name, each in recipes.items()}
        for runner in runners.values():
            runner.seconds(2)
        pairs = []
        for repeat in range(repeats):
            order = list(runners) if repeat % 2 else list(runners)[::-1]
            pairs.append({name: runners[name].seconds(steps) / steps for name in order})
    return {
        "baseline": statistics.median(pair["baseline"] for pair in pairs),
        "bag": statistics.median(pair["bag"] for pair in pairs),
        "ratio": statistics.median(pair["bag"] / pair["baseline"] for pair in pairs),
        "ratios": sorted(round(pair["bag"] / pair["baseline"], 3) for pair in pairs),
    }


class _Runner:
    """A compiled network with its training data."""

    def __init__(self, recipe: Recipe, corrupt: data.CorruptLog) -> None:
        keras.utils.set_random_seed(recipe.seed)
        task = Classification()
        source = task.open_source(recipe, "train")
        _, trainee = build_trainee(recipe, source, build_strategy(recipe))
        trainee.make_train_function()
        self._step = trainee.train_function
        self._batches = iter(task.training_data(recipe, source, corrupt))

    def seconds(self, steps):
        start = time.perf_counter()
        for _ in range(steps):
            logs = self._step(self._batches)
        float(logs["loss"])  # waits for the device
        return time.perf_counter() - start
