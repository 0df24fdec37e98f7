"""On which devices a run computes, and whether XLA compiles its step."""

import warnings

import keras
import tensorflow as tf

from keras_bot.errors import MisuseError
from keras_bot.recipe import Recipe


def build_strategy(recipe: Recipe) -> tf.distribute.Strategy:
    """One device, or one replica a GPU (a logical CPU where there is no GPU) by MirroredStrategy.

    Raises:
        MisuseError: if the batch can't be divided among the replicas.
    """
    gpus = tf.config.list_logical_devices("GPU")
    if recipe.strategy == "one_device" or (recipe.strategy == "auto" and len(gpus) < 2):
        return tf.distribute.get_strategy()
    strategy = tf.distribute.MirroredStrategy([device.name for device in gpus or tf.config.list_logical_devices("CPU")])
    replicas = strategy.num_replicas_in_sync
    if recipe.batch_size % replicas:
        raise MisuseError(
            f"Expected a batch_size that {replicas} replicas can share equally, received {recipe.batch_size}. "
            f"Try {max(1, round(recipe.batch_size / replicas)) * replicas}."
        )
    if recipe.precision == "mixed_float16" and replicas > 1:
        warnings.warn(
            "Keras scales a mixed_float16 loss by one replica's gradients alone: an overflow in another replica can "
            "ruin the weights. precision=mixed_bfloat16 needs no loss scaling.",
            stacklevel=2,
        )
    return strategy


def build_from_spec(trainee: keras.Model, batches: tf.data.Dataset):
    """Builds loss and metrics from the form of an evaluation batch: images, labels and weights.

    Keras would draw a batch for it, which isn't what the network takes when the training step augments it, and
    average the replicas' parts of it.
    """
    trainee._symbolic_build(data_batch=batches.element_spec)
    trainee._maybe_symbolic_build = lambda **_: None


def use_jit(recipe: Recipe, strategy: tf.distribute.Strategy) -> bool:
    """Whether to compile the step with XLA.

    `auto` says yes on a single GPU only: on a CPU XLA's convolutions are slower than oneDNN's (BUILD_NOTES.md), and
    with several replicas Keras' loss scaling breaks under XLA (keras issue 21366).
    """
    if recipe.jit == "auto":
        return bool(tf.config.list_logical_devices("GPU")) and strategy.num_replicas_in_sync == 1
    return recipe.jit == "on"
