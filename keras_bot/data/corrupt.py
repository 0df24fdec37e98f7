"""Handling of images that cannot be decoded: they are logged and skipped, and stop a run only if there are too many.

ImageNet's own archives contain a few damaged files, and a copy on a failing disk has more. `guarded_batches`
leaves such records out of their batch and returns the places of the others; `CorruptLog` records their names.
"""

import os
import threading
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import tensorflow as tf

from keras_bot.data.python_ops import numpy_function
from keras_bot.errors import RunError, first_few


class CorruptLog:
    """Log of the distinct names of records that could not be decoded, in order of occurrence.

    Args:
        max_corrupt: maximum number of distinct records that may fail. One more raises inside the pipeline; the
            caller then receives a `tf.errors.OpError`, checks `exceeded` and raises `error()`.
        names: names logged by an earlier part of the run.
    """

    def __init__(self, max_corrupt: int, names: Iterable[str] = ()) -> None:
        self.max_corrupt = max_corrupt
        self._names: dict[str, None] = dict.fromkeys(names)
        self._lock = threading.Lock()

    @property
    def names(self) -> list[str]:
        """The names logged so far."""
        return list(self._names)

    @property
    def exceeded(self) -> bool:
        """Whether more than `max_corrupt` distinct records have failed."""
        return len(self._names) > self.max_corrupt

    def report(self, name: str) -> None:
        """Logs that the record `name` failed; each name counts once.

        Raises:
            RunError: more than `max_corrupt` records have failed.
        """
        with self._lock:
            self._names[name] = None
        if self.exceeded:
            raise self.error()

    def error(self) -> RunError:
        """Returns the error for too many failed records, with their count and the first few names."""
        names = self.names
        return RunError(
            f"{len(names)} images can't be decoded, but at most {self.max_corrupt} may fail: {first_few(names)}. "
            "Fix or remove them, or allow more (max_corrupt)."
        )

    def report_missing(self, source: Any, keys: tuple, places: tf.Tensor) -> tf.Tensor:
        """Reports, in a graph, the failed records of a batch; calls Python only if there are any.

        Also raises RunError in the graph if no record of the source can be decoded.

        Args:
            source, keys: as in `call_for_rows`.
            places: places of the decoded records in the batch, int32 (b,).

        Returns:
            A bool tensor to use as a control dependency.
        """

        failed: set[bytes] = set()

        def report_each(names: np.ndarray) -> np.bool_:
            failed.update(names)
            for name in names:
                self.report(name.decode(errors="replace"))
            if len(failed) >= source.size:
                raise RunError(f"None of the {source.size} images of {source.name} can be decoded.")
            return np.True_

        missing = tf.where(tf.logical_not(_mask(places, tf.size(keys[0]))))[:, 0]
        return call_for_rows(report_each, source, keys, missing)


def call_for_rows(callback: Callable, source: Any, keys: tuple, rows: tf.Tensor, *values: tf.Tensor) -> tf.Tensor:
    """Calls `callback(names, *values)` in Python, from a graph, for some rows of a batch, unless there are none.

    Args:
        callback: receives the names of the records, and returns True or raises.
        source: the `Source` of the records.
        keys: (positions (B,), components of the keys, each (B,)), as returned by `guarded_batches`.
        rows: the rows' places in the batch, integer (n,).
        *values: further arguments of the callback, each (n, ...).

    Returns:
        A bool tensor to use as a control dependency.
    """

    def call() -> tf.Tensor:
        names = source.record_name(*(tf.gather(part, rows) for part in keys[1]))
        return tf.ensure_shape(numpy_function(callback, [names, *values], tf.bool), [])

    return tf.cond(tf.size(rows) > 0, call, lambda: tf.constant(True))


def guarded_batches(
    keys: tf.data.Dataset, make: Callable, batch_size: int, drop_remainder: bool = False
) -> tf.data.Dataset:
    """Computes `keys.map(make).batch(batch_size)` in order and in parallel, without the elements whose `make` raises.

    Errors are ignored inside a separate data set per batch, so that a failure does not affect other batches and its
    place is known. This adds 4 % to the cost of decoding and cropping. (A data set per element, with a fallback
    element, cost 0.3 ms per image, 20 %.)

    Args:
        keys: data set of tuples.
        make: components of a key -> tuple of tensors of known shape.
        batch_size: keys per batch.
        drop_remainder: whether to drop an incomplete last batch.

    Returns:
        Data set of (keys of the whole batch, places of the successful elements int32 (b,), their values (b, ...)).
    """
    workers = os.cpu_count() or 1

    def numbered(place: tf.Tensor, key: tuple) -> tuple[tf.Tensor, tuple]:
        return place, make(*key)

    def one(*batch) -> tf.data.Dataset:
        places = tf.range(tf.shape(batch[0])[0])
        made = tf.data.Dataset.from_tensor_slices((places, batch))
        made = made.map(numbered, num_parallel_calls=workers, deterministic=True).ignore_errors().batch(batch_size)
        none = tf.nest.map_structure(lambda spec: tf.zeros([0, *spec.shape[1:]], spec.dtype), made.element_spec)
        made = made.concatenate(tf.data.Dataset.from_tensors(none)).take(1)
        return tf.data.Dataset.zip(tf.data.Dataset.from_tensors(batch), made).map(lambda key, done: (key, *done))

    batches = keys.batch(batch_size, drop_remainder=drop_remainder)
    # Two batches at a time, so that the cores stay busy while the last images of a batch are decoded.
    return batches.interleave(one, cycle_length=2, num_parallel_calls=2, deterministic=True)


def fill_missing(
    parts: tuple[tf.Tensor, ...], places: tf.Tensor, batch_size: int, blank: tuple, repeat_rows: bool = False
) -> tuple[tf.Tensor, ...]:
    """Scatters the rows to their places in a full batch and fills the rest.

    Args:
        parts: tensors (b, ...).
        places: index in the batch of each row of `parts`, int32 (b,).
        batch_size: B.
        blank: fill value of each part.
        repeat_rows: whether to fill missing places with the existing rows in turn instead; `blank` is then only used
            if b is 0.

    Returns:
        The parts as tensors (B, ...).
    """

    def spread() -> tuple[tf.Tensor, ...]:
        whole, count = _mask(places, batch_size), tf.size(places)
        own = tf.cumsum(tf.cast(whole, tf.int32)) - 1
        others = tf.range(batch_size) % tf.maximum(count, 1) if repeat_rows else count  # row b is blank
        rows = tf.where(whole, own, others)
        ends = ([[0, 1]] + [[0, 0]] * (part.shape.rank - 1) for part in parts)
        padded = (tf.pad(*part, constant_values=value) for *part, value in zip(parts, ends, blank, strict=True))
        return tuple(tf.gather(part, rows) for part in padded)

    full = tf.cond(tf.size(places) == batch_size, lambda: parts, spread)
    return tuple(tf.ensure_shape(part, [batch_size, *part.shape[1:]]) for part in full)


def _mask(places: tf.Tensor, size: int | tf.Tensor) -> tf.Tensor:
    """Returns a bool mask (size,), True at `places`."""
    return tf.scatter_nd(places[:, None], tf.ones_like(places), [size]) > 0
