"""The table of tricks: one row per trick of the paper, in the paper's order.

`keras-bot train --dry_run` and metrics.json list the active rows, `ablate --mode=leave_one_out` switches each off,
`bench refinements` switches on those that have settings, and the tests compare the README's table with these rows.
This module imports no backend.
"""

import dataclasses
import re
from collections.abc import Callable

from keras_bot.errors import MisuseError
from keras_bot.recipe import REFERENCE_BATCH_SIZE, Recipe

_RESNET_VARIANT = re.compile(r"(?P<family>(?:cifar_)?resnet\d+)_(?P<variant>b|c|d|vd)")


@dataclasses.dataclass(frozen=True)
class Trick:
    """One trick of the paper.

    Attributes:
        name: identifier, used for rows of an ablation.
        section: section of the paper.
        field: the recipe field that switches it on.
        is_active: whether a recipe uses it.
        describe: short description of an active trick, with its settings.
        off: the fields that switch it off, with their values for a recipe that uses it.
        settings: the paper's values of the fields that switch it on in any recipe; empty for tricks that depend on the
            machine, the network or a teacher.
        modules: files in `keras_bot/tricks/` that implement it.
        in_initial_weights: whether it changes the initial weights, so that it cannot be left out with `init_from`.
    """

    name: str
    section: str
    field: str
    is_active: Callable[[Recipe], bool]
    describe: Callable[[Recipe], str]
    off: Callable[[Recipe], dict[str, object]]
    settings: dict[str, object] = dataclasses.field(default_factory=dict)
    modules: tuple[str, ...] = ()
    in_initial_weights: bool = False


def _variant(recipe: Recipe) -> re.Match | None:
    return _RESNET_VARIANT.fullmatch(recipe.model)


def _defaults(*prefixes: str) -> Callable[[Recipe], dict[str, object]]:
    """Returns a function that gives the default of every field whose name starts with a prefix."""
    fields = [field for field in dataclasses.fields(Recipe) if field.name.startswith(prefixes)]
    return lambda recipe: {field.name: field.default for field in fields}


def baseline_decay_epochs(recipe: Recipe) -> tuple[int, ...]:
    """Scales the paper's 30, 60, 90 of 120 epochs to the recipe: unique whole epochs after the warmup."""
    parts = (round(recipe.epochs * part / 4) for part in (1, 2, 3))
    return tuple(sorted({epoch for epoch in parts if epoch > recipe.warmup_epochs}))


TRICKS = (
    Trick(
        name="tweak",
        section="4",
        field="model",
        is_active=lambda recipe: _variant(recipe) is not None,
        describe=lambda recipe: f"ResNet-{_variant(recipe)['variant'].upper()}",
        off=lambda recipe: {"model": f"{_variant(recipe)['family']}_a"},
        in_initial_weights=True,
    ),
    Trick(
        name="linear_scaling",
        section="3.1",
        field="linear_scaling",
        is_active=lambda recipe: recipe.linear_scaling,
        describe=lambda recipe: (
            f"linear scaling to {recipe.learning_rate * recipe.batch_size / REFERENCE_BATCH_SIZE:g}"
        ),
        off=_defaults("linear_scaling"),
        settings={"linear_scaling": True},
        modules=("lr_scaling",),
    ),
    Trick(
        name="warmup",
        section="3.1",
        field="warmup_epochs",
        is_active=lambda recipe: recipe.warmup_epochs > 0,
        describe=lambda recipe: f"warmup, {recipe.warmup_epochs:g} epoch{'' if recipe.warmup_epochs == 1 else 's'}",
        off=_defaults("warmup_epochs"),
        settings={"warmup_epochs": 5.0},
        modules=("warmup",),
    ),
    Trick(
        name="zero_gamma",
        section="3.1",
        field="zero_gamma",
        is_active=lambda recipe: recipe.zero_gamma,
        describe=lambda recipe: "zero gamma",
        off=_defaults("zero_gamma"),
        settings={"zero_gamma": True},
        modules=("zero_gamma",),
        in_initial_weights=True,
    ),
    Trick(
        name="no_bias_decay",
        section="3.1",
        field="no_bias_decay",
        is_active=lambda recipe: recipe.no_bias_decay,
        describe=lambda recipe: "no bias decay",
        off=_defaults("no_bias_decay"),
        settings={"no_bias_decay": True},
        modules=("nag", "no_bias_decay"),
    ),
    Trick(
        name="precision",
        section="3.2",
        field="precision",
        is_active=lambda recipe: recipe.precision != "float32",
        describe=lambda recipe: recipe.precision,
        off=_defaults("precision"),
        modules=("precision", "loss_scaling"),
    ),
    Trick(
        name="cosine",
        section="5.1",
        field="schedule",
        is_active=lambda recipe: recipe.schedule == "cosine",
        describe=lambda recipe: "cosine decay",
        off=lambda recipe: {"schedule": "step", "decay_epochs": baseline_decay_epochs(recipe)},
        settings={"schedule": "cosine"},
        modules=("decay",),
    ),
    Trick(
        name="smoothing",
        section="5.2",
        field="label_smoothing",
        is_active=lambda recipe: recipe.label_smoothing > 0,
        describe=lambda recipe: f"label smoothing, epsilon {recipe.label_smoothing:g}",
        off=_defaults("label_smoothing"),
        settings={"label_smoothing": 0.1},
        modules=("label_smoothing",),
    ),
    Trick(
        name="distillation",
        section="5.3",
        field="teacher",
        is_active=lambda recipe: bool(recipe.teacher),
        describe=lambda recipe: f"distillation, T {recipe.distill_temperature:g}",
        off=_defaults("teacher", "distill_"),
        modules=("distillation",),
    ),
    Trick(
        name="mixup",
        section="5.4",
        field="mixup_alpha",
        is_active=lambda recipe: recipe.mixup_alpha > 0,
        describe=lambda recipe: f"mixup, alpha {recipe.mixup_alpha:g}",
        off=_defaults("mixup_"),
        settings={"mixup_alpha": 0.2},
        modules=("mixup",),
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


def all_settings() -> dict[str, object]:
    """Returns the paper's values of all fields that switch on a trick in any recipe."""
    return {field: value for trick in TRICKS for field, value in trick.settings.items()}
