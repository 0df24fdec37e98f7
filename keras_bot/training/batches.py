"""Settings of the input pipelines that follow from the recipe, and the transform of training batches."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from keras_bot.data import ops
from keras_bot.data.corrupt import CorruptLog
from keras_bot.recipe import Recipe
from keras_bot.training.distributed.strategy import Strategy
from keras_bot.tricks.label_smoothing import spread_epsilon
from keras_bot.tricks.mixup import is_mixed_epoch, mix_batch


def build_batch_transform(recipe: Recipe) -> Callable:
    """Returns the transform of a batch of images and one-hot labels: label smoothing, then mixup."""

    def transform(images, labels, seed, epoch):
        if recipe.label_smoothing:
            labels = spread_epsilon(labels, recipe.label_smoothing)
        if recipe.mixup_alpha:
            uniforms = tf.random.stateless_uniform([2], seed, alg="philox")  # the same on every device
            enabled = is_mixed_epoch(epoch, recipe.epochs, recipe.mixup_off_epochs)
            images, labels = mix_batch(images, labels, uniforms, recipe.mixup_alpha, enabled=enabled, ops=ops)
        return images, labels

    return transform


def image_dtype(recipe: Recipe) -> str:
    """Returns the dtype of training images, which is the compute dtype of the dtype policy."""
    return recipe.precision.removeprefix("mixed_")


def stream_options(
    recipe: Recipe,
    corrupt: CorruptLog | None,
    first_epoch: int,
    first_step: int,
    strategy: Strategy | None = None,
) -> dict[str, Any]:
    """Returns the arguments that the training pipelines of all tasks share."""
    return {
        "batch_size": recipe.batch_size,
        "flip": recipe.flip,
        "color_jitter": recipe.color_jitter,
        "pca_noise": recipe.pca_noise,
        "seed": recipe.seed,
        "first_epoch": first_epoch,
        "first_step": first_step,
        "epochs": recipe.epochs,
        "corrupt": corrupt,
        "shuffle_buffer": recipe.shuffle_buffer,
        "dtype": image_dtype(recipe),
        "ram_budget": recipe.ram_budget,
        **sharing(strategy),
    }


def sharing(strategy: Strategy | None) -> dict[str, Any]:
    """Returns the `worker` and `workers` arguments of a pipeline; none without a strategy."""
    return {"worker": strategy.worker, "workers": strategy.workers} if strategy else {}
