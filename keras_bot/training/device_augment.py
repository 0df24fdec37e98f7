"""Colour augmentation and mixup inside the training step, which leaves the host's cores to decoding."""

from collections.abc import Callable

import keras

from keras_bot import data


def finish_in_step(trainee: keras.Model, batch_transform: Callable, dtype: str):
    """Patches `train_step` of a compiled model to accept the batches of `train_pipeline(augment_on="device")`.

    The host then sends a quarter of the bytes of a float32 batch. Only this process's `train_step` changes; evaluation,
    prediction and saving do not. Each replica mixes its own rows of the batch.
    """
    step = trainee.train_step
    trainee.train_step = lambda batch: step(data.finish_batch(*batch, batch_transform, dtype))
