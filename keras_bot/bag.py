"""The table of tricks: one row per trick of the paper, in the paper's order.

`keras-bot train --dry_run` and metrics.json list the active rows, `ablate --mode=leave_one_out` switches each off,
`bench refinements` switches on those that have settings, and the tests compare the README's table with these rows.
This module imports no backend.
"""

import dataclasses
import re
from collections.abc import Callable
from typing import Any

from keras_bot.errors import MisuseError
from keras_bot.recipe import REFERENCE_BATCH_SIZE, Recipe

_RESNET_VARIANT = re.compile(r"(?:cifar_)?resnet\d+_(b|c|d|vd)")


@dataclasses.dataclass(frozen=True)
class Trick:
    """One trick of the paper. A recipe uses it if its field differs from the default, unless `uses` says otherwise.

    Attributes:
        name: identifier, used for rows of an ablation.
        section: section of the paper.
        field: the recipe field that switches it on.
        describe: short description of an active trick, with its settings.
        settings: the paper's values of the fields that switch it on in any recipe; empty for tricks that depend on the
            machine, the network or a teacher.
        modules: files in `keras_bot/tricks/` that implement it.
        more_fields: prefixes of further fields that have no effect without the trick.
        uses: whether a recipe uses it; None compares the field with its default.
        replace: the fields that switch it off, with their values for a recipe; None resets its fields to the defaults.
        in_initial_weights: whether it changes the initial weights, so that it cannot be left out with `init_from`.
    """

    name: str
    section: str
    field: str
    describe: Callable[[Recipe], str]
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)
    modules: tuple[str, ...] = ()
    more_fields: tuple[str, ...] = ()
    uses: Callable[[Recipe], bool] | None = None
    replace: Callable[[Recipe], dict[str, Any]] | None = None
    in_initial_weights: bool = False

    def is_active(self, recipe: Recipe) -> bool:
        """Returns whether a recipe uses the trick."""
        return self.uses(recipe) if self.uses else getattr(recipe, self.field) != _DEFAULTS[self.field]

    def off(self, recipe: Recipe) -> dict[str, Any]:
        """Returns the fields that switch it off, with their values for a recipe that uses it."""
        if self.replace:
            return self.replace(recipe)
        return {name: _DEFAULTS[name] for name in _DEFAULTS if name == self.field or name.startswith(self.more_fields)}


_DEFAULTS = {field.name: field.default for field in dataclasses.fields(Recipe)}


def _variant(recipe: Recipe) -> str:
    """Returns the variant of a ResNet other than A: "b", "c", "d" or "vd"; "" for any other network."""
    match = _RESNET_VARIANT.fullmatch(recipe.model)
    return match[1] if match else ""


def baseline_decay_epochs(recipe: Recipe) -> tuple[int, ...]:
    """Scales the paper's 30, 60, 90 of 120 epochs to the recipe: unique whole epochs after the warmup."""
    parts = (round(recipe.epochs * part / 4) for part in (1, 2, 3))
    return tuple(sorted({epoch for epoch in parts if epoch > recipe.warmup_epochs}))


TRICKS = (
    Trick(
        name="tweak",
        section="4",
        field="model",
        describe=lambda recipe: f"ResNet-{_variant(recipe).upper()}",
        uses=lambda recipe: bool(_variant(recipe)),
        replace=lambda recipe: {"model": f"{recipe.model.rpartition('_')[0]}_a"},
        in_initial_weights=True,
    ),
    Trick(
        name="linear_scaling",
        section="3.1",
        field="linear_scaling",
        describe=lambda recipe: (
            f"linear scaling to {recipe.learning_rate * recipe.batch_size / REFERENCE_BATCH_SIZE:g}"
        ),
        settings={"linear_scaling": True},
        modules=("lr_scaling",),
    ),
    Trick(
        name="warmup",
        section="3.1",
        field="warmup_epochs",
        describe=lambda recipe: f"warmup, {recipe.warmup_epochs:g} epoch{'' if recipe.warmup_epochs == 1 else 's'}",
        settings={"warmup_epochs": 5.0},
        modules=("warmup",),
    ),
    Trick(
        name="zero_gamma",
        section="3.1",
        field="zero_gamma",
        describe=lambda recipe: "zero gamma",
        settings={"zero_gamma": True},
        modules=("zero_gamma",),
        in_initial_weights=True,
    ),
    Trick(
        name="no_bias_decay",
        section="3.1",
        field="no_bias_decay",
        describe=lambda recipe: "no bias decay",
        settings={"no_bias_decay": True},
        modules=("nag", "no_bias_decay"),
    ),
    Trick(
        name="precision",
        section="3.2",
        field="precision",
        describe=lambda recipe: recipe.precision,
        modules=("precision", "loss_scaling"),
    ),
    Trick(
        name="cosine",
        section="5.1",
        field="schedule",
        describe=lambda recipe: "cosine decay",
        settings={"schedule": "cosine"},
        modules=("decay",),
        uses=lambda recipe: recipe.schedule == "cosine",
        replace=lambda recipe: {"schedule": "step", "decay_epochs": baseline_decay_epochs(recipe)},
    ),
    Trick(
        name="smoothing",
        section="5.2",
        field="label_smoothing",
        describe=lambda recipe: f"label smoothing, epsilon {recipe.label_smoothing:g}",
        settings={"label_smoothing": 0.1},
        modules=("label_smoothing",),
    ),
    Trick(
        name="distillation",
        section="5.3",
        field="teacher",
        describe=lambda recipe: f"distillation, T {recipe.distill_temperature:g}",
        modules=("distillation",),
        more_fields=("teacher_", "distill_"),
    ),
    Trick(
        name="mixup",
        section="5.4",
        field="mixup_alpha",
        describe=lambda recipe: f"mixup, alpha {recipe.mixup_alpha:g}",
        settings={"mixup_alpha": 0.2},
        modules=("mixup",),
        more_fields=("mixup_",),
    ),
)


def active_tricks(recipe: Recipe) -> list[str]:
    """Returns descriptions of the tricks that the recipe uses, with the paper's sections."""
    return [f"{trick.describe(recipe)} ({trick.section})" for trick in TRICKS if trick.is_active(recipe)]


def without_each_trick(recipe: Recipe) -> dict[str, Recipe]:
    """Returns one recipe per active trick, which leaves that trick out, by the trick's name.

    Everything else stays the same, including the epochs. With `init_from`, tricks that change the initial weights are
    not left out.

    Raises:
        MisuseError: if no trick is active.
    """
    active = [trick for trick in TRICKS if trick.is_active(recipe)]
    if recipe.init_from:
        active = [trick for trick in active if not trick.in_initial_weights]
    if not active:
        raise MisuseError("The recipe uses no trick that could be left out. Use a recipe with tricks.")
    return {trick.name: without(recipe, trick.name) for trick in active}


def without(recipe: Recipe, name: str) -> Recipe:
    """Returns the recipe without the trick called `name`, whether it uses it or not."""
    trick = next(trick for trick in TRICKS if trick.name == name)
    return dataclasses.replace(recipe, **trick.off(recipe)) if trick.is_active(recipe) else recipe


def all_settings() -> dict[str, Any]:
    """Returns the paper's values of all fields that switch on a trick in any recipe."""
    return {field: value for trick in TRICKS for field, value in trick.settings.items()}
