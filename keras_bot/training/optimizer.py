"""Optimizer of a recipe: the paper's Nesterov momentum, or AdamW for new heads on a trained network."""

import keras

from keras_bot import tricks
from keras_bot.errors import MisuseError
from keras_bot.recipe import Recipe
from keras_bot.training.finetune import layer_multipliers
from keras_bot.tricks.loss_scaling import SumFirst
from keras_bot.tricks.no_bias_decay import DecayExclusions


@keras.saving.register_keras_serializable(package="keras_bot")
class AdamW(SumFirst, DecayExclusions, keras.optimizers.AdamW):
    """`keras.optimizers.AdamW`, with the same arguments, that clips the gradient after summing it over replicas.

    Keras clips each replica's gradient before the sum. With a clip norm of 1 the sum can then have a norm of up to the
    number of replicas, and the step differs from that of one device. Unlike in Keras, `exclude_from_weight_decay` is
    saved with the optimizer.
    """


def build_optimizer(
    recipe: Recipe, schedule: keras.optimizers.schedules.LearningRateSchedule | float, network: keras.Model
) -> keras.optimizers.Optimizer:
    """Builds the recipe's optimizer, with loss scaling for float16.

    Args:
        recipe: selects AdamW, or Nesterov momentum with L2 in the gradient, on kernels only or on all weights.
        schedule: learning rate schedule, or a number.
        network: the network to train, whose variables decide which weights decay.

    Raises:
        MisuseError: if `layer_decay` is combined with AdamW.
    """
    optimizer = _adamw(recipe, schedule, network) if recipe.optimizer == "adamw" else _nag(recipe, schedule, network)
    return tricks.LossScaling(optimizer) if recipe.precision == "mixed_float16" else optimizer


def _adamw(recipe, schedule, network):
    if recipe.layer_decay < 1:
        raise MisuseError("--layer_decay is only supported for --optimizer=nag, but --optimizer is adamw. Drop one.")
    optimizer = AdamW(schedule, weight_decay=recipe.weight_decay, global_clipnorm=recipe.global_clipnorm or None)
    excluded = tricks.split_by_decay(network)[1] if recipe.no_bias_decay else []
    if excluded:
        optimizer.exclude_from_weight_decay(var_list=excluded)
    return optimizer


def _nag(recipe, schedule, network):
    return tricks.NAG(
        schedule,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        decayed_variables="kernels" if recipe.no_bias_decay else "all",
        lr_multipliers=layer_multipliers(network, recipe.layer_decay) if recipe.layer_decay < 1 else None,
        global_clipnorm=recipe.global_clipnorm or None,
    )
