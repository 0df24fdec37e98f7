"""AdamW for new heads on a trained network: Keras' own, but for what it clips on several replicas."""

import keras

from keras_bot.tricks.loss_scaling import SumFirst


@keras.saving.register_keras_serializable(package="keras_bot")
class AdamW(SumFirst, keras.optimizers.AdamW):
    """`keras.optimizers.AdamW`, with its arguments, that clips the gradient summed over replicas.

    Keras clips each replica's own before the sum, so a norm of 1 lets as much as the number of replicas through, and a
    step on several isn't one device's.
    """
