"""Images that can't be decoded: they are logged and stepped over, and end a run only when there are too many.

ImageNet's own archives hold a few damaged files, and a copy on a worn disk holds more. `guarded_map` turns a
record whose function fails into a stand-in element in the same place, so that the number and the order of
elements never depend on what is broken; `CorruptLog` keeps the names.
"""

import os
import threading
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from keras_bot.errors import RunError

_SHOWN = 5


class CorruptLog:
    """The distinct names of records that could not be decoded, in the order in which they were met.

    Args:
        max_corrupt: how many distinct records may fail. One more raises inside the pipeline; the caller of
        the
            pipeline then sees a `tf.errors.OpError`, asks `exceeded` and raises `error()`.
    """

    def __init__(self, max_corrupt: int):
        self.max_corrupt = max_corrupt
        self._names: dict[str, None] = {}
        self._lock = threading.Lock()

    @property
    def names(self) -> list[str]:
        """The names so far."""
        return list(self._names)

    @property
    def exceeded(self) -> bool:
        """Whether more than `max_corrupt` distinct records failed."""
        return len(self._names) > self.max_corrupt

    def report(self, name: str) -> None:
        """Note that the record `name` failed; a name counts once.

        Raises:
            RunError: when there are now too many.
        """
        with self._lock:
            self._names[name] = None
        if self.exceeded:
            raise self.error()

    def error(self) -> RunError:
        """The error for too many of them: the count and the first few names."""
        names = self.names
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        return RunError(
            f"Expected at most {self.max_corrupt} images that can't be decoded, met {len(names)}: "
            f"{', '.join(names[:_SHOWN])}{more}. Mend or remove them, or allow more (max_corrupt)."
        )

    def report_failed(self, names: tf.Tensor, ok: tf.Tensor) -> tf.Operation | tf.Tensor:
        """In a graph: report the names, string (N,), where ok, bool (N,), is False. Free when all are ok."""

        def report_all(failed: np.ndarray) -> np.bool_:
            for name in failed:
                self.report(name.decode(errors="replace"))
            return np.True_

        def python() -> tf.Tensor:
            failed = tf.boolean_mask(names, tf.logical_not(ok))
            return tf.numpy_function(report_all, [failed], tf.bool, stateful=True)

        return tf.cond(tf.reduce_all(ok), lambda: tf.constant(True), python)


def guarded_map(
    dataset: tf.data.Dataset, function: Callable, stand_in: Callable, parallel: bool = True
) -> tf.data.Dataset:
    """`dataset.map(function)`, in order and parallel, where an element that raises becomes its `stand_in`.

    Each element becomes a data set of one, whose errors are ignored and behind which the stand-in waits;
    `take(1)` sees to it that the stand-in is made only when it's needed. Costs about 3 % of a JPEG's decoding
    and cropping.

    Args:
        dataset: elements are tuples.
        function: takes the parts of an element.
        stand_in: the same, with equal output signature; must not fail.
        parallel: False runs one element at a time.
    """

    def one(*element) -> tf.data.Dataset:
        single = tf.data.Dataset.from_tensors(element)
        made = single.map(function).ignore_errors()
        return made.concatenate(single.map(stand_in)).take(1)

    workers = 2 * (os.cpu_count() or 1) if parallel else 1
    return dataset.interleave(
        one,
        cycle_length=workers,
        num_parallel_calls=tf.data.AUTOTUNE if parallel else None,
        deterministic=True,
    )
