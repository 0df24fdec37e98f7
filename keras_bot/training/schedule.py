"""Learning rate schedule of a recipe, and the numbers of steps that it depends on."""

from typing import Any

import keras

from keras_bot import tricks
from keras_bot.errors import MisuseError
from keras_bot.recipe import REFERENCE_BATCH_SIZE, Recipe


def count_steps(recipe: Recipe, source: Any, workers: int = 1) -> int:
    """Returns the number of whole batches per epoch.

    Raises:
        MisuseError: if there is no whole batch, or fewer than 2 classes in a task other than detection.
    """
    if source.num_classes < 2 and recipe.task != "detection":
        classes = f"{source.num_classes} {'class' if source.num_classes == 1 else 'classes'}"
        raise MisuseError(f"{source.name} has {classes}, but training needs at least 2.")
    share = recipe.batch_size // workers if recipe.shard_by == "file" else recipe.batch_size
    if share > source.size:
        raise MisuseError(
            f"--batch_size={share} is larger than the {source.size} training images of {source.name}. "
            "Use a smaller batch."
        )
    return source.size // share


def peak_learning_rate(recipe: Recipe) -> float:
    """Returns the learning rate at the end of the warmup."""
    if recipe.linear_scaling:
        return tricks.linear_scaling(recipe.learning_rate, recipe.batch_size, REFERENCE_BATCH_SIZE)
    return recipe.learning_rate


def count_warmup_steps(recipe: Recipe, steps_per_epoch: int) -> int:
    """Returns the number of warmup steps, capped to leave at least one step before the first decay or the end."""
    end = recipe.decay_epochs[0] if recipe.schedule == "step" and recipe.decay_epochs else recipe.epochs
    return min(round(recipe.warmup_epochs * steps_per_epoch), end * steps_per_epoch - 1)


def build_schedule(recipe: Recipe, steps_per_epoch: int) -> keras.optimizers.schedules.LearningRateSchedule:
    """Builds the learning rate schedule. `decay_epochs` count from the start of training, including the warmup."""
    peak = peak_learning_rate(recipe)
    warmup_steps = count_warmup_steps(recipe, steps_per_epoch)
    decay_steps = recipe.epochs * steps_per_epoch - warmup_steps
    if recipe.schedule == "step":
        boundaries = [epoch * steps_per_epoch - warmup_steps for epoch in recipe.decay_epochs]
        schedule = tricks.StepDecay(peak, boundaries, recipe.decay_factor)
    elif recipe.schedule == "cosine":
        schedule = tricks.CosineDecay(peak, decay_steps)
    elif recipe.schedule == "poly":
        schedule = tricks.PolyDecay(peak, decay_steps)
    else:
        schedule = tricks.StepDecay(peak, [], recipe.decay_factor)
    return tricks.Warmup(schedule, warmup_steps) if warmup_steps else schedule
