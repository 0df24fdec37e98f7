"""On JAX, a batch in parts: one update from the mean gradient, with the memory of one part."""

import jax
import keras

from keras_bot.training.accumulate import check_divides, check_parts


def accumulate_in_jax_step(trainee: keras.Model, parts: int):
    """`accumulate_in_step` on JAX, where the batch is the global one.

    Part k is the rows k, k + parts, …, so that every device has its share of each part.

    Args:
        trainee: compiled. It takes batches of (x, y[, weights]); x and y may be nested.
        parts: into how many to divide a batch. Its size must be a multiple.

    Raises:
        MisuseError: as `accumulate_in_step`.
    """
    check_parts(parts)
    if parts > 1:
        trainee.train_step = lambda state, batch: _train_step(trainee, parts, state, batch)


def _train_step(trainee, parts, state, batch):
    """Keras' `train_step`, but for the loop."""
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
    """The rows of `_divide`, where they were."""
    return parts.swapaxes(0, 1).reshape(-1, *parts.shape[2:])
