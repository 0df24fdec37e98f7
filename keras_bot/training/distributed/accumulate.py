"""Gradient accumulation: one update from the mean gradient of several parts, with the memory of one part."""

import keras
import tensorflow as tf
from keras.src.losses.loss import unscale_loss_for_distribution

from keras_bot.errors import MisuseError


def accumulate_in_step(trainee: keras.Model, parts: int):
    """Patches the compiled model's `train_step` to process each replica's batch in equal parts, one after another.

    The update and the metrics equal those of the whole batch up to rounding if the loss is a mean over images (Keras'
    "sum_over_batch_size") and the network treats each image independently. Batch norm does not: it normalises with the
    statistics of one part and updates its moving statistics once per part. Only this process's `train_step` changes.
    It replaces a `train_step` defined by the model's class or an earlier wrapper: call this before other wrappers.

    Args:
        trainee: compiled model. It takes batches of (x, y[, weights]); x and y may be nested.
        parts: number of consecutive parts per replica batch. The batch size must be a multiple of it.

    Raises:
        MisuseError: if `parts` is below 1 or, when the step is traced, if the batch size is not a multiple of `parts`.
    """
    check_parts(parts)
    if parts > 1:
        trainee.train_step = lambda batch: _train_step(trainee, parts, batch)


def check_parts(parts: int):
    """Raises MisuseError if `parts` is below 1."""
    if parts < 1:
        raise MisuseError(f"Expected at least 1 part to accumulate, received {parts}. Give 1 for the whole batch.")


def check_divides(images: int, parts: int):
    """Raises MisuseError unless a batch of `images` images divides into `parts` equal parts."""
    if images % parts or not images:
        raise MisuseError(
            f"Expected a replica's batch of {images} images to divide into {parts} parts. "
            "Choose another batch size or number of parts."
        )


def _train_step(trainee, parts, batch):
    """Runs Keras' `train_step` with a loop over the parts."""
    x, y, weights = keras.utils.unpack_x_y_sample_weight(batch)
    rows = _count_rows(x, parts)
    divided = tf.nest.map_structure(_divide(parts, rows), (x, y, weights))
    loss, gradients, predictions = _sum_over_parts(trainee, parts, divided)
    trainee._loss_tracker.update_state(unscale_loss_for_distribution(loss / parts), sample_weight=rows)
    variables = trainee.trainable_weights
    means = [g if g is None else tf.cast(g / parts, v.dtype) for g, v in zip(gradients, variables, strict=True)]
    trainee.optimizer.apply_gradients(zip(means, variables, strict=True))
    return trainee.compute_metrics(x, y, predictions, sample_weight=weights)


def _count_rows(x, parts):
    first = next(leaf for leaf in tf.nest.flatten(x) if leaf is not None)
    images = first.shape[0]
    if images is None:
        rows = tf.shape(first)[0]
        told = f"Expected a replica's batch of images to divide into {parts} parts"
        with tf.control_dependencies([tf.debugging.assert_equal(rows % parts, 0, told)]):
            return tf.identity(rows)
    check_divides(images, parts)
    return images


def _divide(parts, rows):
    def divide(tensor):
        if tensor is None:
            return None
        tensor = tf.convert_to_tensor(tensor)
        shape = tensor.shape[1:]
        tail = shape if shape.is_fully_defined() else tf.unstack(tf.shape(tensor)[1:], shape.rank)
        return tf.reshape(tensor, [parts, rows // parts, *tail])

    return divide


def _sum_over_parts(trainee, parts, divided):
    """Returns the summed loss, the summed float32 gradients (None where there is none) and all rows' predictions."""

    def part(index):
        return tf.nest.map_structure(lambda tensor: None if tensor is None else tensor[index], divided)

    spec = _spec_of_predictions(trainee, part(0)[0])
    used = []

    def body(index, loss, sums, collected):
        part_loss, gradients, predictions = _forward_backward(trainee, *part(index))
        used[:] = [gradient is not None for gradient in gradients]
        added = [
            total if gradient is None else total + tf.cast(tf.convert_to_tensor(gradient), total.dtype)
            for total, gradient in zip(sums, gradients, strict=True)
        ]
        leaves = tf.nest.flatten(predictions)
        written = [array.write(index, leaf) for array, leaf in zip(collected, leaves, strict=True)]
        return index + 1, loss + tf.cast(part_loss, loss.dtype), added, written

    nothing = [tf.zeros(variable.shape, "float32") for variable in trainee.trainable_weights]
    arrays = [tf.TensorArray(leaf.dtype, parts, element_shape=leaf.shape) for leaf in tf.nest.flatten(spec)]
    _, loss, sums, collected = tf.while_loop(
        lambda index, *_: index < parts, body, (0, tf.zeros(()), nothing, arrays), parallel_iterations=1
    )
    gradients = [total if use else None for total, use in zip(sums, used, strict=True)]
    return loss, gradients, tf.nest.pack_sequence_as(spec, [array.concat() for array in collected])


def _forward_backward(trainee, x, y, weights):
    training = {"training": True} if trainee._call_has_training_arg else {}
    with tf.GradientTape() as tape:
        predictions = trainee(x, **training)
        loss = trainee._compute_loss(x=x, y=y, y_pred=predictions, sample_weight=weights, training=True)
        scaled = trainee.optimizer.scale_loss(loss)
    return loss, tape.gradient(scaled, trainee.trainable_weights), predictions


def _spec_of_predictions(trainee, x):
    """Returns the TensorSpecs of the predictions for one part, which the loop needs before it runs."""

    def spec(tensor):
        return None if tensor is None else keras.KerasTensor(tensor.shape, tensor.dtype.name)

    outputs = trainee.compute_output_spec(tf.nest.map_structure(spec, x))
    return tf.nest.map_structure(lambda output: tf.TensorSpec(output.shape, output.dtype), outputs)
