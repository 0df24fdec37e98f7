"""Cost of the tricks in `BAG` (no distillation): time of a training step compared with the same step without them."""

import dataclasses
import statistics
import time

import keras

from keras_bot import data, tricks
from keras_bot.errors import expect_at_least_one
from keras_bot.recipe import Recipe
from keras_bot.training import assemble
from keras_bot.training.distributed.selection import build_strategy
from keras_bot.training.failures import user_errors

BAG = {
    "linear_scaling": True,
    "warmup_epochs": 1,
    "zero_gamma": True,
    "no_bias_decay": True,
    "schedule": "cosine",
    "label_smoothing": 0.1,
    "mixup_alpha": 0.2,
}


def bench_refinements(recipe: Recipe, *, steps: int = 10, repeats: int = 7) -> dict:
    """Times blocks of steps of one network with and without `BAG`, in turns, including the input pipeline.

    Args:
        recipe: network, data and precision for both; the fields in `BAG` are overwritten.
        steps: steps per block.
        repeats: number of blocks with `BAG`, and of blocks without it.

    Returns:
        Median seconds per step of `baseline` and `bag`, `ratio` (bag / baseline, the median over pairs of blocks) and
        `ratios` (sorted, one per pair).

    Raises:
        MisuseError: if a number isn't positive or the data can't be used.
    """
    expect_at_least_one(steps=steps, repeats=repeats)
    plain = {name: Recipe.__dataclass_fields__[name].default for name in BAG}
    recipes = {
        "baseline": dataclasses.replace(recipe, epochs=1000, **plain),
        "bag": dataclasses.replace(recipe, epochs=1000, **BAG),
    }
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

    def __init__(self, recipe, corrupt):
        keras.utils.set_random_seed(recipe.seed)
        source = assemble.open_source(recipe, "train")
        schedule = assemble.build_schedule(recipe, assemble.steps_in_epoch(recipe, source))
        model = assemble.build_model(recipe, source.num_classes)
        trainee = assemble.compile_trainee(recipe, model, schedule, build_strategy(recipe), teacher=None)
        trainee.make_train_function()
        self._step = trainee.train_function
        self._batches = iter(assemble.training_data(recipe, source, corrupt))

    def seconds(self, steps):
        began = time.perf_counter()
        for _ in range(steps):
            logs = self._step(self._batches)
        float(logs["loss"])  # waits for the device
        return time.perf_counter() - began
