"""Steps per epoch, warmup steps and the exact learning rate of a recipe at every step."""

import math
import types

import numpy as np
import pytest

from keras_bot import tricks
from keras_bot.errors import MisuseError
from keras_bot.recipe import Recipe
from keras_bot.training.schedule import build_schedule, count_steps, count_warmup_steps, peak_learning_rate

STEPS = 10  # per epoch
BASE = {"epochs": 6, "decay_epochs": (2, 4), "learning_rate": 0.2}


def source(size, num_classes=4):
    return types.SimpleNamespace(name="flowers", size=size, num_classes=num_classes)


def rates(recipe, steps_per_epoch=STEPS):
    """Returns the schedule's learning rate at every step of the training and at the two steps after it."""
    steps = np.arange(recipe.epochs * steps_per_epoch + 2)
    return np.broadcast_to(build_schedule(recipe, steps_per_epoch)(steps), steps.shape)  # a constant is a scalar


def expected_rate(recipe, step, steps_per_epoch=STEPS):
    """Returns the learning rate of one step, with Python floats, from the recipe's fields alone."""
    peak = recipe.learning_rate * (recipe.batch_size / 256 if recipe.linear_scaling else 1)
    warmup = int(recipe.warmup_epochs * steps_per_epoch)
    if step < warmup:
        return peak * (step + 1) / warmup
    progress = min(1, (step - warmup) / (recipe.epochs * steps_per_epoch - warmup))
    match recipe.schedule:
        case "step":
            drops = sum(step >= epoch * steps_per_epoch for epoch in recipe.decay_epochs)
            return peak * recipe.decay_factor**drops
        case "cosine":
            return peak * (1 + math.cos(math.pi * progress)) / 2
        case "poly":
            return peak * (1 - progress) ** 0.9
        case "constant":
            return peak


@pytest.mark.parametrize("schedule", ["step", "cosine", "poly", "constant"])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"warmup_epochs": 1.5},
        {"warmup_epochs": 0.1},
        {"learning_rate": 0.7},
        {"batch_size": 64},
        {"batch_size": 64, "linear_scaling": True},
        {"batch_size": 1024, "linear_scaling": True, "warmup_epochs": 1.0},
        {"decay_factor": 0.3},
        {"decay_epochs": (3, 4, 5)},
        {"decay_epochs": ()},
        {"epochs": 9},
    ],
    ids=str,
)
def test_the_learning_rate_of_every_step_follows_the_recipe(schedule, changes):
    recipe = Recipe(**{**BASE, "schedule": schedule, **changes})
    expected = [expected_rate(recipe, step) for step in range(recipe.epochs * STEPS + 2)]
    np.testing.assert_allclose(rates(recipe), expected, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"schedule": "step"}, {0: 0.1, 299: 0.1, 300: 0.01, 599: 0.01, 600: 0.001, 900: 1e-4, 1199: 1e-4}),
        ({"schedule": "cosine"}, {0: 0.1, 600: 0.05, 400: 0.075, 800: 0.025, 1200: 0.0}),
        ({"schedule": "cosine", "warmup_epochs": 5.0}, {0: 0.002, 24: 0.05, 49: 0.1, 50: 0.1, 625: 0.05, 1200: 0.0}),
        ({"schedule": "constant"}, {0: 0.1, 1199: 0.1}),
        ({"schedule": "poly"}, {0: 0.1, 600: 0.1 * 0.5**0.9, 1200: 0.0}),
        ({"batch_size": 1024, "linear_scaling": True}, {0: 0.4, 299: 0.4, 300: 0.04}),
    ],
    ids=str,
)
def test_the_defaults_are_the_papers_schedule(changes, expected):
    actual = rates(Recipe(**changes))
    np.testing.assert_allclose([actual[step] for step in expected], list(expected.values()), rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize(
    ("schedule", "kind", "warmup_epochs"),
    [
        ("step", tricks.StepDecay, 0),
        ("cosine", tricks.CosineDecay, 0),
        ("poly", tricks.PolyDecay, 0),
        ("constant", tricks.StepDecay, 0),
        ("cosine", tricks.Warmup, 1),
    ],
)
def test_a_recipe_without_warmup_has_no_warmup_schedule(schedule, kind, warmup_epochs):
    built = build_schedule(Recipe(**BASE, schedule=schedule, warmup_epochs=warmup_epochs), STEPS)
    assert type(built) is kind


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"linear_scaling": False, "batch_size": 1024}, 0.2),
        ({"linear_scaling": True, "batch_size": 256}, 0.2),
        ({"linear_scaling": True, "batch_size": 128}, 0.1),
        ({"linear_scaling": True, "batch_size": 1024}, 0.8),
        ({"linear_scaling": True, "batch_size": 256, "learning_rate": 0.3}, 0.3),
    ],
    ids=str,
)
def test_the_peak_learning_rate(changes, expected):
    assert peak_learning_rate(Recipe(**{**BASE, **changes})) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, 0),
        ({"warmup_epochs": 1}, 10),
        ({"warmup_epochs": 1.26}, 13),
        ({"warmup_epochs": 1.24}, 12),
        ({"warmup_epochs": 0.04}, 0),
        ({"warmup_epochs": 1.99}, 19),  # the decay at epoch 2 needs a step before it
        ({"warmup_epochs": 1.99, "schedule": "cosine"}, 20),
        ({"warmup_epochs": 1.99, "schedule": "poly"}, 20),
        ({"warmup_epochs": 5.99, "schedule": "cosine"}, 59),
        ({"warmup_epochs": 5.99, "decay_epochs": ()}, 59),
        ({"warmup_epochs": 5.99, "decay_epochs": (1,), "schedule": "constant"}, 59),
    ],
    ids=str,
)
def test_the_number_of_warmup_steps(changes, expected):
    assert count_warmup_steps(Recipe(**{**BASE, **changes}), STEPS) == expected


def test_a_warmup_of_nearly_all_steps_leaves_one_step_at_the_peak():
    recipe = Recipe(epochs=1, warmup_epochs=0.9, schedule="cosine")
    np.testing.assert_allclose(rates(recipe, steps_per_epoch=2), [0.1, 0.1, 0, 0], atol=1e-8)


@pytest.mark.parametrize(
    ("size", "batch_size", "workers", "changes", "expected"),
    [
        (100, 10, 1, {}, 10),
        (109, 10, 1, {}, 10),
        (110, 10, 1, {}, 11),
        (10, 10, 1, {}, 1),
        (100, 10, 2, {}, 10),  # sharing by example, each worker sees every batch's rows
        (100, 10, 2, {"shard_by": "file"}, 20),  # `size` is then one worker's part
        (100, 10, 1, {"shard_by": "file"}, 10),
        (5, 10, 2, {"shard_by": "file"}, 1),
    ],
)
def test_an_epoch_has_the_whole_batches_only(size, batch_size, workers, changes, expected):
    assert count_steps(Recipe(batch_size=batch_size, **changes), source(size), workers) == expected


@pytest.mark.parametrize(
    ("size", "workers", "changes", "share"),
    [(9, 1, {}, 10), (9, 2, {}, 10), (4, 2, {"shard_by": "file"}, 5)],
)
def test_a_batch_larger_than_the_data_is_refused(size, workers, changes, share):
    message = rf"^--batch_size={share} is larger than the {size} training images of flowers\. Use a smaller batch\.$"
    with pytest.raises(MisuseError, match=message):
        count_steps(Recipe(batch_size=10, **changes), source(size), workers)


@pytest.mark.parametrize(("num_classes", "words"), [(1, "1 class"), (0, "0 classes")])
@pytest.mark.parametrize("task", ["classification", "segmentation"])
def test_fewer_than_two_classes_are_refused(num_classes, words, task):
    with pytest.raises(MisuseError, match=rf"^flowers has {words}, but training needs at least 2\.$"):
        count_steps(Recipe(batch_size=10, task=task), source(100, num_classes))


def test_a_detector_of_one_class_trains():
    assert count_steps(Recipe(batch_size=10, task="detection"), source(100, num_classes=1)) == 10
    assert count_steps(Recipe(batch_size=10), source(100, num_classes=2)) == 10
