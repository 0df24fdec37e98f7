"""Each active trick can be left out, alone, and none is forgotten: `bag.active_tricks` lists them."""

import dataclasses
import pathlib

import pytest

from keras_bot import models
from keras_bot.bag import TRICKS, active_tricks, baseline_decay_epochs, without_each_trick
from keras_bot.cli.commands.ablate import read_file
from keras_bot.errors import MisuseError
from keras_bot.recipe import Recipe

FLAGS = pathlib.Path(__file__).parents[1] / "flags"
FULL = Recipe(
    model="resnet50_d",
    batch_size=1024,
    linear_scaling=True,
    warmup_epochs=5,
    zero_gamma=True,
    no_bias_decay=True,
    precision="mixed_float16",
    schedule="cosine",
    label_smoothing=0.1,
    teacher="teacher.keras",
    distill_hard_weight=0.5,
    mixup_alpha=0.2,
    mixup_off_epochs=20,
    epochs=200,
)


def check_each_is_left_out_alone(recipe):
    active = active_tricks(recipe)
    without = without_each_trick(recipe)
    left_out = []
    for one_less in without.values():
        still = active_tricks(one_less)
        assert len(still) == len(active) - 1
        left_out += [trick for trick in active if trick not in still]
    assert sorted(left_out) == sorted(active)


def test_each_trick_of_a_full_recipe_is_left_out_alone():
    check_each_is_left_out_alone(FULL)
    assert len(without_each_trick(FULL)) == len(TRICKS)  # FULL uses all tricks


@pytest.mark.parametrize("name", ["quickstart.flags", "cifar10.flags", "paper/table6/resnet50_d_smoothing.flags"])
def test_and_of_the_recipes_that_are_here(name):
    check_each_is_left_out_alone(read_file(str(FLAGS / name), []))


def test_every_network_with_a_tweak_has_one_without():
    for name in models.names():
        recipe = dataclasses.replace(Recipe(zero_gamma=True), model=name)
        without = without_each_trick(recipe)
        assert ("tweak" in without) == any(trick.startswith("ResNet") for trick in active_tricks(recipe))
        if "tweak" in without:
            assert models.info(without["tweak"].model).variant == "A"
            assert without["tweak"].model in models.names()


@pytest.mark.parametrize(
    ("epochs", "warmup", "expected"),
    [
        (120, 0, (30, 60, 90)),  # the paper's
        (200, 5, (50, 100, 150)),
        (30, 2, (8, 15, 22)),
        (3, 1, (2,)),
        (3, 0, (1, 2)),
        (1, 0, (1,)),
    ],
)
def test_without_cosine_the_steps_are_the_baselines_scaled(epochs, warmup, expected):
    recipe = Recipe(schedule="cosine", epochs=epochs, warmup_epochs=warmup)
    assert baseline_decay_epochs(recipe) == expected
    off = without_each_trick(recipe)["cosine"]
    assert (off.schedule, off.decay_epochs) == ("step", expected)


def test_without_distillation_nothing_of_it_is_left():
    off = without_each_trick(FULL)["distillation"]
    assert (off.teacher, off.distill_hard_weight) == ("", None)
    assert without_each_trick(FULL)["mixup"].mixup_off_epochs == 0


def test_what_the_weights_hold_is_not_left_out():
    recipe = dataclasses.replace(FULL, init_from="runs/resnet50_d")
    assert set(without_each_trick(FULL)) - set(without_each_trick(recipe)) == {"tweak", "zero_gamma"}


def test_a_recipe_without_tricks_is_refused():
    with pytest.raises(MisuseError, match="uses no trick that could be left out"):
        without_each_trick(Recipe())
