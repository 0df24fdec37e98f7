"""Gradient accumulation on JAX: one update from the mean gradient of several micro-batches, with the memory of one."""

import jax
import keras

from keras_bot.training.distributed.accumulate import check_divisible, check_steps


def accumulate_in_jax_step(trainee: keras.Model, steps: int) -> None:
    """Patches `train_step` like `accumulate_in_step`, for JAX, where a step sees the global batch.

    Micro-batch k consists of rows k, k + steps, …, so that every device has a share of each micro-batch.

    Args:
        trainee: compiled model. It takes batches of (x, y[, weights]); x and y may be nested.
        steps: number of accumulation steps, one micro-batch each. The global batch size must be a multiple of it.

    Raises:
        MisuseError: as in `accumulate_in_step`.
    """
    check_steps(steps)
    if steps > 1:
        trainee.train_step = lambda state, batch: _train_step(trainee, steps, state, batch)


def _train_step(trainee, steps, state, batch):
    """Runs Keras' `train_step` with a loop over the micro-batches."""
    trainable, non_trainable, optimizer, metrics = state
    data = keras.utils.unpack_x_y_sample_weight(batch)
    rows = next(leaf for leaf in jax.tree.leaves(data[0])).shape[0]
    check_divisible(rows, steps)
    micro_batches = jax.tree.map(lambda leaf: _divide(leaf, steps), data)
    forward_backward = jax.value_and_grad(trainee.compute_loss_and_updates, has_aux=True)

    def accumulate(carry, micro_batch):
        total_loss, totals, non_trainable, metrics = carry
        (_, (loss, predictions, non_trainable, metrics)), gradients = forward_backward(
            trainable, non_trainable, metrics, *micro_batch, training=True, optimizer_variables=optimizer
        )
        totals = jax.tree.map(lambda total, gradient: total + gradient.astype(total.dtype), totals, gradients)
        return (total_loss + loss.astype("float32"), totals, non_trainable, metrics), predictions

    zeros = jax.tree.map(lambda variable: jax.numpy.zeros(variable.shape, "float32"), trainable)
    carry = (jax.numpy.zeros(()), zeros, non_trainable, metrics)
    (total_loss, totals, non_trainable, metrics), predictions = jax.lax.scan(accumulate, carry, micro_batches)
    means = [(total / steps).astype(variable.dtype) for total, variable in zip(totals, trainable, strict=True)]
    trainable, optimizer = trainee.optimizer.stateless_apply(optimizer, means, trainable)
    x, y, weights = data
    predictions = jax.tree.map(_join, predictions)
    logs, metrics = trainee._update_metrics_variables(metrics, total_loss / steps, x, y, predictions, weights)
    return logs, (trainable, non_trainable, optimizer, metrics)


def _divide(leaf, steps):
    return leaf.reshape(leaf.shape[0] // steps, steps, *leaf.shape[1:]).swapaxes(0, 1)


def _join(micro_batches):
    """Restores the row order from before `_divide`."""
    return micro_batches.swapaxes(0, 1).reshape(-1, *micro_batches.shape[2:])
