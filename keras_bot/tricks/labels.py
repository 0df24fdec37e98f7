"""Validation of labels: probabilities (…, K), including one-hot rows, or class indices (batch,) or (batch, 1).

Mixing or smoothing class indices produces meaningless numbers, so the tricks reject them. Eager values are checked
immediately and raise ValueError. Values inside a graph can't be read: an invalid row becomes NaN, and so does the loss.
TensorFlow without XLA, as in `tf.data`, raises an error that contains the name of the check instead.
"""

import keras
import numpy as np
from keras import ops

from keras_bot.tensors import Tensor

_TOLERANCE = 0.01  # for rounding in half precision
_PROBABILITIES = "labels_are_not_one_hot_or_probabilities"
_INDICES = "labels_are_no_class_indices"


def read(tensor: Tensor) -> np.ndarray | None:
    """Returns the values of an array or tensor of any framework as float64, or None for a symbolic tensor."""
    try:
        return np.asarray(tensor).astype("float64")
    except Exception:  # symbolic tensor: every framework raises a different error
        return None


def is_integer(labels: Tensor) -> bool:
    """Returns whether an array or tensor of any framework has an integer dtype. Booleans don't count."""
    return "int" in keras.backend.standardize_dtype(labels.dtype)


def check_probabilities(labels: Tensor) -> bool:
    """Raises ValueError if labels are class indices, or if their values can be read and aren't probabilities.

    Args:
        labels: (…, K), an array or tensor of any framework. Integers must be one-hot rows with K >= 2.

    Returns:
        Whether the values could be read.
    """
    shape = tuple(labels.shape)
    if is_integer(labels) and (len(shape) < 2 or shape[-1] == 1):
        raise ValueError(
            f"labels of shape {shape} and dtype {keras.backend.standardize_dtype(labels.dtype)} are class indices, but "
            "one-hot or soft labels (batch, classes) are needed. Apply keras.ops.one_hot first; cast binary labels "
            "(batch, 1) to float."
        )
    values = read(labels)
    if values is None:
        return False
    inside = (values >= -_TOLERANCE) & (values <= 1 + _TOLERANCE)
    if not inside.all():
        raise ValueError(
            f"labels must be one-hot or probabilities between 0 and 1, received {_first(values, inside)}. "
            "Apply keras.ops.one_hot to class indices first."
        )
    if is_integer(labels) and (values.sum(axis=-1) != 1).any():
        raise ValueError("integer labels must be one-hot or probabilities, received rows that don't sum to 1.")
    return True


def as_probabilities(labels: Tensor) -> Tensor:
    """Validates labels (…, K) and returns them as float32; in a graph, invalid rows become NaN or raise an error.

    Raises:
        ValueError: as `check_probabilities`.
    """
    is_checked = check_probabilities(labels)
    wide = ops.cast(labels, "float32")
    if is_checked:
        return wide
    inside = ops.all((wide >= -_TOLERANCE) & (wide <= 1 + _TOLERANCE), axis=-1)
    if is_integer(labels):
        inside = ops.logical_and(inside, ops.sum(wide, axis=-1) == 1)
    return _guarded(wide, inside, _PROBABILITIES)


def as_float_probabilities(labels: Tensor) -> Tensor:
    """Validates labels like `as_probabilities`, but keeps float dtypes and the type of non-backend tensors.

    It therefore accepts TensorFlow tensors in `tf.data` when Keras runs on another backend; the values of those are
    not checked inside a graph.
    """
    is_float = keras.backend.is_float_dtype(keras.backend.standardize_dtype(labels.dtype))
    if ops.is_tensor(labels):
        checked = as_probabilities(labels)
        return ops.cast(checked, labels.dtype) if is_float else checked
    check_probabilities(labels)
    if isinstance(labels, np.ndarray):
        return labels if is_float else labels.astype("float32")
    if not is_float:
        raise ValueError(f"labels must be floats here, received {labels.dtype}. Cast them first.")
    return labels


def check_indices(labels: Tensor, classes: int) -> None:
    """Raises ValueError if class indices aren't whole numbers from 0 to K - 1, as far as their values can be read.

    Args:
        labels: (batch,) or (batch, 1). Floats are only allowed if their values can be read; in a graph they could be
            mixed indices.
        classes: K.
    """
    values = read(labels)
    if values is None:
        if not is_integer(labels):
            raise ValueError(
                f"class indices must have an integer dtype inside a graph, received "
                f"{keras.backend.standardize_dtype(labels.dtype)} of shape "
                f"{tuple(labels.shape)}: they may have been mixed or smoothed. Cast them to int32, or pass one-hot "
                "labels (batch, classes)."
            )
        return
    right = (values == np.round(values)) & (values >= 0) & (values < classes)
    if not right.all():
        raise ValueError(
            f"class indices must be whole numbers from 0 to {classes - 1}, received {_first(values, right)}. "
            "Number the classes from 0; pass labels that were mixed or smoothed as (batch, classes)."
        )


def one_hot(labels: Tensor, classes: int) -> Tensor:
    """Converts class indices (batch,) or (batch, 1) to float32 (batch, K).

    In a graph, invalid indices become NaN or raise an error.
    """
    flat = ops.reshape(labels, (-1,))
    indices = ops.cast(flat, "int32")
    rows = ops.one_hot(indices, classes, dtype="float32")
    if read(labels) is not None:
        return rows
    right = ops.logical_and(indices >= 0, indices < classes)
    right = ops.logical_and(right, ops.cast(indices, flat.dtype) == flat)
    return _guarded(rows, right, _INDICES)


def _first(values, right):
    """Formats the first five invalid values for a message."""
    wrong = values[~right][:5]
    return ", ".join(f"{value:g}" for value in wrong)


def _guarded(labels, right, name):
    """Sets rows of `labels` to NaN where `right` is false; TensorFlow without XLA raises an error containing `name`."""
    with keras.name_scope(name):
        poisoned = ops.where(ops.expand_dims(right, -1), labels, float("nan"))
        if keras.backend.backend() != "tensorflow":
            return poisoned
        # The only Keras operation whose TensorFlow kernel checks values in a graph: index 1 is invalid for one class.
        index = ops.where(ops.reshape(right, (-1,)), 0, 1)
        logits = ops.zeros((ops.shape(index)[0], 1))
        zeros = ops.sparse_categorical_crossentropy(index, logits, from_logits=True)
        return poisoned + ops.reshape(zeros, (*ops.shape(right), 1))
