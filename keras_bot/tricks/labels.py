"""Checks of labels: probabilities (…, K), which one-hot rows are, or class indices (batch,) or (batch, 1).

Blending or smoothing class indices gives numbers that look like labels and are none, so the tricks refuse them. Values
that can be read at once are checked at once and raise ValueError. Inside a graph they can't be read: a row that is
wrong becomes NaN there, so the loss does too, and TensorFlow without XLA, as in `tf.data`, stops with an error that
carries the name of the check.
"""

import keras
import numpy as np
from keras import ops

_TOLERANCE = 0.01  # half precision rounds
_PROBABILITIES = "labels_are_not_one_hot_or_probabilities"
_INDICES = "labels_are_no_class_indices"


def read(tensor) -> np.ndarray | None:
    """The values of an array or tensor of any framework as float64; None inside a graph, where there are none."""
    try:
        return np.asarray(tensor).astype("float64")
    except Exception:  # a symbolic tensor: each framework has an error of its own
        return None


def is_integer(labels) -> bool:
    """Whether the dtype of an array or tensor of any framework is an integer's. Booleans are none."""
    return "int" in keras.backend.standardize_dtype(labels.dtype)


def check_probabilities(labels):
    """Raises ValueError for labels that are class indices, or whose values, if they can be read, are no probabilities.

    Args:
        labels: (…, K), an array or tensor of any framework. Integers must be one-hot rows of K >= 2.
    """
    shape = tuple(labels.shape)
    if is_integer(labels) and (len(shape) < 2 or shape[-1] == 1):
        raise ValueError(
            f"labels of shape {shape} and dtype {keras.backend.standardize_dtype(labels.dtype)} are class indices, but "
            "one-hot or soft labels (batch, classes) are needed. Apply keras.ops.one_hot first; cast binary labels "
            "(batch, 1) to float."
        )
    values = read(labels)
    if values is None or not values.size:
        return
    inside = (values >= -_TOLERANCE) & (values <= 1 + _TOLERANCE)
    if not inside.all():
        raise ValueError(
            f"labels must be one-hot or probabilities between 0 and 1, received {_first(values, inside)}. "
            "Apply keras.ops.one_hot to class indices first."
        )
    if is_integer(labels) and (values.sum(axis=-1) != 1).any():
        raise ValueError("integer labels must be one-hot or probabilities, received rows that don't sum to 1.")


def as_probabilities(labels):
    """Labels (…, K) as float32, after `check_probabilities`; in a graph wrong rows become NaN or stop it.

    Raises:
        ValueError: as `check_probabilities`.
    """
    check_probabilities(labels)
    wide = ops.cast(labels, "float32")
    if read(labels) is not None:
        return wide
    inside = ops.all((wide >= -_TOLERANCE) & (wide <= 1 + _TOLERANCE), axis=-1)
    if is_integer(labels):
        inside = ops.logical_and(inside, ops.sum(wide, axis=-1) == 1)
    return _guarded(wide, inside, _PROBABILITIES)


def as_float_probabilities(labels):
    """`as_probabilities` that keeps a float dtype, and the type of what isn't a tensor of Keras' backend.

    So it takes TensorFlow's tensors in `tf.data` where Keras runs on another backend; what only a graph knows of these
    is not checked.
    """
    check_probabilities(labels)
    is_float = keras.backend.is_float_dtype(keras.backend.standardize_dtype(labels.dtype))
    if not ops.is_tensor(labels):
        if isinstance(labels, np.ndarray):
            return labels if is_float else labels.astype("float32")
        if not is_float:
            raise ValueError(f"labels must be floats here, received {labels.dtype}. Cast them first.")
        return labels
    if is_float and read(labels) is not None:
        return labels
    checked = as_probabilities(labels)
    return ops.cast(checked, labels.dtype) if is_float else checked


def check_indices(labels, classes: int):
    """Raises ValueError for class indices that aren't whole numbers of 0 to K - 1, as far as that can be known.

    Args:
        labels: (batch,) or (batch, 1). Floats are allowed where their values can be read; in a graph they may be
            blends of indices, and are refused.
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


def one_hot(labels, classes: int):
    """Class indices (batch,) or (batch, 1) -> float32 (batch, K). In a graph, wrong ones become NaN or stop it."""
    flat = ops.reshape(labels, (-1,))
    indices = ops.cast(flat, "int32")
    rows = ops.one_hot(indices, classes, dtype="float32")
    if read(labels) is not None:
        return rows
    right = ops.logical_and(indices >= 0, indices < classes)
    right = ops.logical_and(right, ops.cast(indices, flat.dtype) == flat)
    return _guarded(rows, right, _INDICES)


def _first(values, right):
    """The first few values that are wrong, for a message."""
    wrong = values[~right][:5]
    return ", ".join(f"{value:g}" for value in wrong)


def _guarded(labels, right, name):
    """`labels` (…, K), where `right` (…,) is false NaN; TensorFlow without XLA raises an error with `name` in it."""
    with keras.name_scope(name):
        poisoned = ops.where(ops.expand_dims(right, -1), labels, float("nan"))
        if keras.backend.backend() != "tensorflow":
            return poisoned
        # Its kernel is the one operation of Keras that checks values in a graph: 1 is no index of one class.
        index = ops.where(ops.reshape(right, (-1,)), 0, 1)
        logits = ops.zeros((ops.shape(index)[0], 1))
        zeros = ops.sparse_categorical_crossentropy(index, logits, from_logits=True)
        return poisoned + ops.reshape(zeros, (*ops.shape(right), 1))
