"""AdamW for new heads on a trained network: Keras' AdamW with replica-aware clipping and saved exclusions."""

import keras

from keras_bot.tricks.loss_scaling import SumFirst
from keras_bot.tricks.no_bias_decay import DecayExclusions


@keras.saving.register_keras_serializable(package="keras_bot")
class AdamW(SumFirst, DecayExclusions, keras.optimizers.AdamW):
    """`keras.optimizers.AdamW`, with the same arguments, that clips the gradient after summing it over replicas.

    Keras clips each replica's gradient before the sum. With a clip norm of 1 the sum can then have a norm of up to the
    number of replicas, and the step differs from that of one device. Unlike in Keras, `exclude_from_weight_decay` is
    saved with the optimizer.
    """
