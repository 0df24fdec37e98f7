"""AdamW for new heads on a trained network: Keras' own, but for clipping on several replicas and saved exclusions."""

import keras

from keras_bot.tricks.loss_scaling import SumFirst
from keras_bot.tricks.no_bias_decay import DecayExclusions


@keras.saving.register_keras_serializable(package="keras_bot")
class AdamW(SumFirst, DecayExclusions, keras.optimizers.AdamW):
    """`keras.optimizers.AdamW`, with its arguments, that clips the gradient summed over replicas.

    Keras clips each replica's own before the sum, so a norm of 1 lets as much as the number of replicas through, and a
    step on several isn't one device's. `exclude_from_weight_decay` is saved with the optimizer, which Keras forgets.
    """
