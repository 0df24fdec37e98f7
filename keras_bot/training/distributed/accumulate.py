"""Gradient accumulation: one update from the mean gradient of several micro-batches, with the memory of one."""

import keras
import tensorflow as tf
from keras.src.losses.loss import unscale_loss_for_distribution

from keras_bot.errors import MisuseError


def accumulate_in_step(trainee: keras.Model, steps: int) -> None:
    """Patches the compiled model's `train_step` to process each replica's batch as micro-batches, one after another.

    The update and the metrics equal those of the whole batch up to rounding if the loss is a mean over images (Keras'
    "sum_over_batch_size") and the network treats each image independently. Batch norm does not: it normalises with the
    statistics of one micro-batch and updates its moving statistics once per micro-batch. Only this process's
    `train_step` changes. It replaces a `train_step` defined by the model's class or an earlier wrapper: call this
    before other wrappers.

    Args:
        trainee: compiled model. It takes batches of (x, y[, weights]); x and y may be nested.
        steps: number of accumulation steps, one micro-batch of consecutive rows each. The batch size must be a multiple
            of it.

    Raises:
        MisuseError: if `steps` is below 1 or, when the step is traced, if the batch size is not a multiple of `steps`.
    """
    check_steps(steps)
    if steps > 1:
        trainee.train_step = lambda batch: _train_step(trainee, steps, batch)


def check_steps(steps: int) -> None:
    """Raises MisuseError if `steps` is below 1."""
    if steps < 1:
        raise MisuseError(f"--accumulation_steps={steps} must be at least 1. Use 1 to train without accumulation.")


def check_divisible(images: int, steps: int) -> None:
    """Raises MisuseError unless a batch of `images` images divides into `steps` equal micro-batches."""
    if images % steps or not images:
        raise MisuseError(
            f"A replica's batch of {images} images is not divisible by accumulation_steps={steps}. "
            "Change --batch_size or --accumulation_steps."
        )


def _train_step(trainee, steps, batch):
    """Runs Keras' `train_step` with a loop over the micro-batches."""
    x, y, weights = keras.utils.unpack_x_y_sample_weight(batch)
    rows = _count_rows(x, steps)
    micro_batches = tf.nest.map_structure(_divide(steps, rows), (x, y, weights))
    loss, gradients, predictions = _sum_over_steps(trainee, steps, micro_batches)
    trainee._loss_tracker.update_state(unscale_loss_for_distribution(loss / steps), sample_weight=rows)
    variables = trainee.trainable_weights
    means = [g if g is None else tf.cast(g / steps, v.dtype) for g, v in zip(gradients, variables, strict=True)]
    trainee.optimizer.apply_gradients(zip(means, variables, strict=True))
    return trainee.compute_metrics(x, y, predictions, sample_weight=weights)


def _count_rows(x, steps):
    """Returns the batch size, after checking that it is a multiple of `steps`."""
    first = next(leaf for leaf in tf.nest.flatten(x) if leaf is not None)
    images = first.shape[0]
    if images is None:
        rows = tf.shape(first)[0]
        message = f"A replica's batch is not divisible by accumulation_steps={steps}"
        with tf.control_dependencies([tf.debugging.assert_equal(rows % steps, 0, message)]):
            return tf.identity(rows)
    check_divisible(images, steps)
    return images


def _divide(steps, rows):
    """Returns a function from a tensor (rows, ...) to its micro-batches (steps, rows / steps, ...)."""

    def divide(tensor):
        if tensor is None:
            return None
        tensor = tf.convert_to_tensor(tensor)
        shape = tensor.shape[1:]
        tail = shape if shape.is_fully_defined() else tf.unstack(tf.shape(tensor)[1:], shape.rank)
        return tf.reshape(tensor, [steps, rows // steps, *tail])

    return divide


def _sum_over_steps(trainee, steps, micro_batches):
    """Returns the summed loss, the summed float32 gradients (None where there is none) and all rows' predictions."""

    def micro_batch(index):
        return tf.nest.map_structure(lambda tensor: None if tensor is None else tensor[index], micro_batches)

    spec = _spec_of_predictions(trainee, micro_batch(0)[0])
    has_gradient: list[bool] = []

    def body(index, total_loss, totals, arrays):
        loss, gradients, predictions = _forward_backward(trainee, *micro_batch(index))
        has_gradient[:] = [gradient is not None for gradient in gradients]
        totals = [
            total if gradient is None else total + tf.cast(tf.convert_to_tensor(gradient), total.dtype)
            for total, gradient in zip(totals, gradients, strict=True)
        ]
        leaves = tf.nest.flatten(predictions)
        arrays = [array.write(index, leaf) for array, leaf in zip(arrays, leaves, strict=True)]
        return index + 1, total_loss + tf.cast(loss, total_loss.dtype), totals, arrays

    zeros = [tf.zeros(variable.shape, "float32") for variable in trainee.trainable_weights]
    arrays = [tf.TensorArray(leaf.dtype, steps, element_shape=leaf.shape) for leaf in tf.nest.flatten(spec)]
    _, total_loss, totals, arrays = tf.while_loop(
        lambda index, *_: index < steps, body, (0, tf.zeros(()), zeros, arrays), parallel_iterations=1
    )
    gradients = [total if has else None for total, has in zip(totals, has_gradient, strict=True)]
    return total_loss, gradients, tf.nest.pack_sequence_as(spec, [array.concat() for array in arrays])


def _forward_backward(trainee, x, y, weights):
    training = {"training": True} if trainee._call_has_training_arg else {}
    with tf.GradientTape() as tape:
        predictions = trainee(x, **training)
        loss = trainee._compute_loss(x=x, y=y, y_pred=predictions, sample_weight=weights, training=True)
        scaled = trainee.optimizer.scale_loss(loss)
    return loss, tape.gradient(scaled, trainee.trainable_weights), predictions


def _spec_of_predictions(trainee, x):
    """Returns the TensorSpecs of the predictions for one micro-batch, which the loop needs before it runs."""

    def spec(tensor):
        return None if tensor is None else keras.KerasTensor(tensor.shape, tensor.dtype.name)

    outputs = trainee.compute_output_spec(tf.nest.map_structure(spec, x))
    return tf.nest.map_structure(lambda output: tf.TensorSpec(output.shape, output.dtype), outputs)
