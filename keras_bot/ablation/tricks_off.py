"""Recipes with one trick switched off: the fields to change for each trick of `assemble.active_tricks`."""

import dataclasses
import re

from keras_bot.errors import MisuseError
from keras_bot.recipe import Recipe

_TWEAKED = re.compile(r"((?:cifar_)?resnet\d+)_(?:b|c|d|vd)")
_IN_THE_WEIGHTS = ("tweak", "zero_gamma")


def without_each_trick(recipe: Recipe) -> dict[str, Recipe]:
    """Returns the recipe without each of its active tricks, by the trick's name, in the paper's order.

    Everything else stays the same, including the epochs. With `init_from`, tweak and zero gamma are never left out:
    they are part of the initial weights.

    Raises:
        MisuseError: if no trick is active.
    """
    changes = {name: knobs for name, (active, knobs) in _tricks(recipe).items() if active}
    if recipe.init_from:
        changes = {name: knobs for name, knobs in changes.items() if name not in _IN_THE_WEIGHTS}
    if not changes:
        raise MisuseError("Expected a recipe with a trick to leave out, received one without any. Give a fuller one.")
    return {name: dataclasses.replace(recipe, **knobs) for name, knobs in changes.items()}


def _tricks(recipe):
    """Returns for each trick whether it is active, and the fields that switch it off."""
    tweaked = _TWEAKED.fullmatch(recipe.model)
    step = {"schedule": "step", "decay_epochs": baseline_decay_epochs(recipe)}
    return {
        "tweak": (tweaked, {"model": f"{tweaked[1]}_a" if tweaked else ""}),
        "linear_scaling": (recipe.linear_scaling, {"linear_scaling": False}),
        "warmup": (recipe.warmup_epochs > 0, {"warmup_epochs": 0.0}),
        "zero_gamma": (recipe.zero_gamma, {"zero_gamma": False}),
        "no_bias_decay": (recipe.no_bias_decay, {"no_bias_decay": False}),
        "precision": (recipe.precision != "float32", {"precision": "float32"}),
        "cosine": (recipe.schedule == "cosine", step),
        "smoothing": (recipe.label_smoothing > 0, {"label_smoothing": 0.0}),
        "distillation": (recipe.teacher, _defaults("teacher", "distill_")),
        "mixup": (recipe.mixup_alpha > 0, _defaults("mixup_")),
    }


def baseline_decay_epochs(recipe: Recipe) -> tuple[int, ...]:
    """Scales the paper's 30, 60, 90 of 120 epochs to the recipe: unique whole epochs after the warmup."""
    parts = (round(recipe.epochs * part / 4) for part in (1, 2, 3))
    return tuple(sorted({epoch for epoch in parts if epoch > recipe.warmup_epochs}))


def _defaults(*prefixes):
    return {field.name: field.default for field in dataclasses.fields(Recipe) if field.name.startswith(prefixes)}
