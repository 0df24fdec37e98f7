"""Colour and mixup inside the training step, so that the host's cores are left to decoding."""

from collections.abc import Callable

import keras

from keras_bot import data


def finish_in_step(trainee: keras.Model, batch_transform: Callable, dtype: str):
    """Lets the training step of a compiled model take what `train_pipeline(augment_on="device")` gives.

    The host then sends a quarter of the bytes of a float32 batch. Only this process's `train_step` changes: evaluation,
    prediction and what is saved stay as they are. Each replica mixes its own part of the batch.
    """
    step = trainee.train_step
    trainee.train_step = lambda batch: step(data.finish_batch(*batch, batch_transform, dtype))
