"""Gradient accumulation on JAX: one update from the mean gradient of several parts, with the memory of one part."""

import jax
import keras

from keras_bot.training.distributed.accumulate import check_divides, check_parts


def accumulate_in_jax_step(trainee: keras.Model, parts: int):
    """Patches `train_step` like `accumulate_in_step`, for JAX, where a step sees the global batch.

    Part k consists of rows k, k + parts, …, so that every device holds a share of each part.

    Args:
        trainee: compiled model. It takes batches of (x, y[, weights]); x and y may be nested.
        parts: number of parts per global batch. The batch size must be a multiple of it.

    Raises:
        MisuseError: as in `accumulate_in_step`.
    """
    check_parts(parts)
    if parts > 1:
        trainee.train_step = lambda state, batch: _train_step(trainee, parts, state, batch)


def _train_step(trainee, parts, state, batch):
    """Runs Keras' `train_step` with a loop over the parts."""
    trainable, untrained, optimizer, metrics = state
    data = keras.utils.unpack_x_y_sample_weight(batch)
    rows = next(leaf for leaf in jax.tree.leaves(data[0])).shape[0]
    check_divides(rows, parts)
    divided = jax.tree.map(lambda leaf: _divide(leaf, parts), data)
    slope = jax.value_and_grad(trainee.compute_loss_and_updates, has_aux=True)

    def add_part(carry, part):
        total, gradients, untrained, metrics = carry
        (_, (loss, predictions, untrained, metrics)), more = slope(
            trainable, untrained, metrics, *part, training=True, optimizer_variables=optimizer
        )
        gradients = jax.tree.map(lambda held, new: held + new.astype(held.dtype), gradients, more)
        return (total + loss.astype("float32"), gradients, untrained, metrics), predictions

    nothing = jax.tree.map(lambda variable: jax.numpy.zeros(variable.shape, "float32"), trainable)
    carry = (jax.numpy.zeros(()), nothing, untrained, metrics)
    (total, gradients, untrained, metrics), predictions = jax.lax.scan(add_part, carry, divided)
    means = [(held / parts).astype(variable.dtype) for held, variable in zip(gradients, trainable, strict=True)]
    trainable, optimizer = trainee.optimizer.stateless_apply(optimizer, means, trainable)
    x, y, weights = data
    predictions = jax.tree.map(_join, predictions)
    logs, metrics = trainee._update_metrics_variables(metrics, total / parts, x, y, predictions, weights)
    return logs, (trainable, untrained, optimizer, metrics)


def _divide(leaf, parts):
    return leaf.reshape(leaf.shape[0] // parts, parts, *leaf.shape[1:]).swapaxes(0, 1)


def _join(parts):
    """Restores the row order from before `_divide`."""
    return parts.swapaxes(0, 1).reshape(-1, *parts.shape[2:])
