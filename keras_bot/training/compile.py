"""Compilation of the model to fit: optimizer, losses, XLA, and the parts of its training step that Keras lacks."""

from collections.abc import Callable
from typing import Any

import keras

from keras_bot import data
from keras_bot.recipe import Recipe
from keras_bot.training.batches import image_dtype
from keras_bot.training.distributed.strategy import Strategy


def compile_trainee(
    recipe: Recipe,
    trainee: keras.Model,
    network: keras.Model,
    optimizer: keras.optimizers.Optimizer,
    strategy: Strategy,
    *,
    losses: dict[str, Any],
    step_transform: Callable | None = None,
) -> None:
    """Compiles the model to fit, prepares its training step for the replicas and builds the optimizer's variables.

    Args:
        recipe: recipe of the run.
        trainee: the model to fit: `network` or a model around it.
        network: the network to train.
        optimizer: result of `build_optimizer`.
        strategy: strategy of the run.
        losses: loss and metrics, arguments of Keras' `compile`; {} for models with their own.
        step_transform: transform of images and labels in the step, for `augment_on="device"`; None without it.
    """
    jit = strategy.use_jit(recipe) and getattr(trainee, "supports_jit", True)
    trainee.compile(optimizer=optimizer, jit_compile=jit, **losses)
    strategy.prepare_step(trainee, network, sync_bn=recipe.sync_bn, accumulation_steps=recipe.accumulation_steps)
    if step_transform:
        augment_in_step(trainee, step_transform, image_dtype(recipe))
    trainee.optimizer.build(network.trainable_variables)


def augment_in_step(trainee: keras.Model, batch_transform: Callable, dtype: str) -> None:
    """Patches `train_step` of a compiled model to accept the batches of a pipeline with `augment_on="device"`.

    The host then sends a quarter of the bytes of a float32 batch. Only this process's `train_step` changes; evaluation,
    prediction and saving do not. Each replica mixes its own rows of the batch.
    """
    step = trainee.train_step

    def train_step(batch):
        inputs, labels = batch
        return step(data.finish_batch(inputs, labels, batch_transform, dtype))

    trainee.train_step = train_step
