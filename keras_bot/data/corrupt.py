"""Images that can't be decoded: they are logged and stepped over, and end a run only when there are too many.

ImageNet's own archives hold a few damaged files, and a copy on a worn disk holds more. `guarded_batches`
leaves such records out of their batch and tells which they were; `CorruptLog` keeps their names.
"""

import os
import threading
from collections.abc import Callable, Iterable

import numpy as np
import tensorflow as tf

from keras_bot.data.in_python import in_python
from keras_bot.errors import RunError, first_few


class CorruptLog:
    """The distinct names of records that could not be decoded, in the order in which they were met.

    Args:
        max_corrupt: how many distinct records may fail. One more raises inside the pipeline; the caller of the
            pipeline then sees a `tf.errors.OpError`, asks `exceeded` and raises `error()`.
        names: of those that an earlier part of the run met.
    """

    def __init__(self, max_corrupt: int, names: Iterable[str] = ()):
        self.max_corrupt = max_corrupt
        self._names: dict[str, None] = dict.fromkeys(names)
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
        return RunError(
            f"Expected at most {self.max_corrupt} images that can't be decoded, met {len(names)}: "
            f"{first_few(names)}. Mend or remove them, or allow more (max_corrupt)."
        )

    def report_missing(self, source, keys: tuple, places: tf.Tensor) -> tf.Tensor:
        """In a graph: report those of a batch that couldn't be made; calls no Python where there are none.

        Raises RunError there also when no record of the source is left.

        Args:
            source, keys: as in `tell`.
            places: of the records that could be made, int32 (b,).

        Returns:
            A bool to depend on.
        """

        failed: set[bytes] = set()

        def report_each(names: np.ndarray) -> np.bool_:
            failed.update(names)
            for name in names:
                self.report(name.decode(errors="replace"))
            if len(failed) >= source.size:
                raise RunError(f"Expected images in {source.name}, but none of its {source.size} can be decoded.")
            return np.True_

        missing = tf.where(tf.logical_not(_mask(places, tf.size(keys[0]))))[:, 0]
        return tell(report_each, source, keys, missing)


def tell(told: Callable, source, keys: tuple, rows: tf.Tensor, *values: tf.Tensor) -> tf.Tensor:
    """In a graph: `told(names, *values)` in Python of some rows of a batch; no Python where there are none.

    Args:
        told: returns True or raises.
        source: the `Source` of the records.
        keys: (positions (B,), parts of the keys, each (B,)), as `guarded_batches` returns them.
        rows: the places in the batch, integer (n,).
        values: what else is told of them, each (n, ...).

    Returns:
        A bool to depend on.
    """

    def call() -> tf.Tensor:
        names = source.record_name(*(tf.gather(part, rows) for part in keys[1]))
        return tf.ensure_shape(in_python(told, [names, *values], tf.bool), [])

    return tf.cond(tf.size(rows) > 0, call, lambda: tf.constant(True))


def guarded_batches(
    keys: tf.data.Dataset, make: Callable, batch_size: int, drop_remainder: bool = False
) -> tf.data.Dataset:
    """`keys.map(make).batch(batch_size)`, in order and in parallel, less the elements whose `make` raises.

    Errors are ignored inside a data set made for each batch, so that a failure takes nothing from other
    batches and its place is known. It costs 4 % of decoding and cropping. (A data set for each element, with a
    stand-in behind it, cost 0.3 ms an image, 20 %.)

    Args:
        keys: elements are tuples.
        make: the parts of a key -> tuple of tensors of known shape.
        batch_size: keys in a batch.
        drop_remainder: leave out a last batch of fewer keys.

    Returns:
        Data set of (keys of the whole batch, places that could be made int32 (b,), what was made (b, ...)).
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
    # Two batches at a time, so that the cores have work while the last images of one are made.
    return batches.interleave(one, cycle_length=2, num_parallel_calls=2, deterministic=True)


def full_batch(
    parts: tuple[tf.Tensor, ...], places: tf.Tensor, batch_size: int, blank: tuple, in_turn: bool = False
) -> tuple[tf.Tensor, ...]:
    """A full batch again: what could be made in its places, and in the others what is blank.

    Args:
        parts: tensors (b, ...).
        places: theirs in the batch, int32 (b,).
        batch_size: B.
        blank: the number that fills a place of each part.
        in_turn: what could be made, in turn, takes the missing places too; they are blank only if b is 0.

    Returns:
        As many tensors (B, ...).
    """

    def spread() -> tuple[tf.Tensor, ...]:
        whole, count = _mask(places, batch_size), tf.size(places)
        own = tf.cumsum(tf.cast(whole, tf.int32)) - 1
        others = tf.range(batch_size) % tf.maximum(count, 1) if in_turn else count  # row b is blank
        rows = tf.where(whole, own, others)
        ends = ([[0, 1]] + [[0, 0]] * (part.shape.rank - 1) for part in parts)
        padded = (tf.pad(*part, constant_values=value) for *part, value in zip(parts, ends, blank, strict=True))
        return tuple(tf.gather(part, rows) for part in padded)

    full = tf.cond(tf.size(places) == batch_size, lambda: parts, spread)
    return tuple(tf.ensure_shape(part, [batch_size, *part.shape[1:]]) for part in full)


def _mask(places: tf.Tensor, size: int | tf.Tensor) -> tf.Tensor:
    """Bool (size,), True at places."""
    return tf.scatter_nd(places[:, None], tf.ones_like(places), [size]) > 0
