"""Validation of the recipe fields that depend on each other."""

from typing import Any

from keras_bot.errors import MisuseError


def check(recipe: Any) -> None:
    """Raises MisuseError for fields of a `Recipe` that contradict each other or have no effect."""
    _check_epochs(recipe)
    if recipe.head and recipe.task == "classification":
        raise MisuseError(f"--head={recipe.head} requires --task=detection or segmentation. Set --task or drop it.")
    for name, needed, flag in (
        ("distill_hard_weight", "teacher", recipe.distill_hard_weight is not None),
        ("teacher_cache", "teacher", recipe.teacher_cache),
        ("teacher_top_k", "teacher_cache", recipe.teacher_top_k),
    ):
        if flag and not getattr(recipe, needed):
            raise MisuseError(f"--{name} has no effect without --{needed}. Set --{needed}, or drop --{name}.")


def _check_epochs(recipe):
    epochs, warmup, decays = recipe.epochs, recipe.warmup_epochs, recipe.decay_epochs
    if warmup >= epochs:
        raise MisuseError(
            f"warmup_epochs={warmup:g} must be less than epochs={epochs}. Shorten the warmup or train longer."
        )
    if not all(isinstance(epoch, int) and epoch >= 1 for epoch in decays) or list(decays) != sorted(set(decays)):
        raise MisuseError(f"decay_epochs must be increasing whole numbers of at least 1, received {list(decays)}.")
    if recipe.schedule == "step" and decays and decays[0] <= warmup:
        raise MisuseError(
            f"decay_epochs must start after the {warmup:g} warmup epochs, received {decays[0]}. Decay later."
        )
    if recipe.mixup_off_epochs > epochs or (recipe.mixup_alpha and recipe.mixup_off_epochs == epochs):
        raise MisuseError(
            f"mixup_off_epochs must be less than epochs={epochs}, received {recipe.mixup_off_epochs}: mixup would "
            "never be on. Lower it, or set mixup_alpha and mixup_off_epochs to 0."
        )
