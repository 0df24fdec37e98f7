"""Batch stream shared by the pipelines of all tasks: order, random draws, corrupt records and sharding over workers.

    ordered keys -> this worker's keys -> batches of `make`, without undecodable records -> `check`
    -> fill the missing places -> `finish` -> prefetch

A task defines how to make an example from a record and how to finish a batch. Its source has `name`, `size`, `keys`,
`read` and `record_name` like `data.source.Source`.

One training stream covers all epochs; no batch spans two. Order and draws depend only on (seed, epoch, position):
each use has its own stream number, and the position counted over all epochs is the second half of a stateless seed.
A run resumed at any step therefore sees exactly the data of an uninterrupted run from there on, with any number of
cores, and decodes none of the preceding images. Keeping that order costs no speed.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from keras_bot.data.augment import color
from keras_bot.data.batches import RAM_BUDGET, seed_at
from keras_bot.data.corrupt import CorruptLog, full_batch, guarded_batches
from keras_bot.data.sharding import WorkerRows
from keras_bot.errors import MisuseError

BATCH = 4  # stream number of the seeds for `batch_transform`
_ORDER, _EXAMPLE, _JITTER, _PCA = range(4)

Check = Callable[[Any, tuple, tf.Tensor, tuple], tuple]


@dataclasses.dataclass(frozen=True)
class TrainingStream:
    """The records of a training run, their order and their random draws.

    Attributes:
        source: the source of the records.
        rows: the rows of each batch that this worker makes.
        epochs, seed, first_epoch, first_step, color_jitter, pca_noise: as in `train_pipeline`.
        share: `draws_of` of `train_pipeline`.

    Raises:
        MisuseError: an attribute is out of range, or the batch is larger than the source.
    """

    source: Any
    rows: WorkerRows
    epochs: int
    seed: int
    first_epoch: int
    first_step: int
    color_jitter: float
    pca_noise: float
    share: int = 0

    def __post_init__(self):
        if not self.steps:
            raise MisuseError(
                f"Expected a batch no larger than the data set: {self.source.name} has {self.source.size} images, "
                f"received batch_size {self.rows.batch_size}. Use a smaller batch."
            )
        first, step = self.first_epoch, self.first_step
        if not 0 <= first <= self.epochs:
            raise MisuseError(f"Expected 0 <= first_epoch <= epochs, received {first} and {self.epochs}.")
        if not 0 <= step < self.steps or (step and first == self.epochs):
            raise MisuseError(f"Expected 0 <= first_step < {self.steps}, the steps of an epoch, received {step}.")
        if not 0 <= self.color_jitter <= 1 or not 0 <= self.pca_noise < math.inf:
            raise MisuseError(
                "Expected 0 <= color_jitter <= 1 and a finite pca_noise >= 0, received "
                f"{self.color_jitter} and {self.pca_noise}. 0 is off."
            )
        if not isinstance(self.share, int | np.integer) or self.share < 0:
            raise MisuseError(f"Expected draws_of as a whole number >= 0, received {self.share!r}.")

    @property
    def steps(self) -> int:
        """Number of batches per epoch."""
        return self.source.size // self.rows.batch_size

    def keys(self, shuffle_buffer: int) -> tf.data.Dataset:
        """Returns (position counted over all epochs, components of the key) of each record of these rows."""
        size, steps = self.rows.batch_size, self.steps

        def positions(epoch: tf.Tensor) -> tf.data.Dataset:
            first = tf.where(epoch == self.first_epoch, tf.constant(self.first_step * size, tf.int64), 0)
            order = seed_at(self.seed, _ORDER, epoch, self.share)
            return self.source.keys(order, shuffle_buffer, first).take(steps * size - first)

        keys = tf.data.Dataset.range(self.first_epoch, self.epochs).flat_map(positions)
        return self.rows.keys(keys.enumerate((self.first_epoch * steps + self.first_step) * size))

    def batches(
        self,
        make: Callable[[dict, tf.Tensor], tuple],
        finish: Callable,
        *,
        blank: tuple,
        check: Check | None = None,
        corrupt: CorruptLog | None = None,
        shuffle_buffer: int = 1,
        ram_budget: int = RAM_BUDGET,
        guarded: Callable = guarded_batches,
    ) -> tf.data.Dataset:
        """Builds the batches from the first step on; another record of the same batch replaces a corrupt one.

        Args:
            make: (record, seed int64 (2,)) -> parts of an example.
            finish: (parts (b, ...) of these rows, their `color.draw_maps`, batch number int64) -> an element.
            blank: the value of each part if no record of a batch can be decoded.
            check: (source, and the keys, places and parts from `guarded_batches`) -> parts; may raise in the graph.
            corrupt: counts the records that cannot be decoded; None allows none.
            shuffle_buffer: see `Source.keys`.
            ram_budget: upper limit in MiB for the buffers that tf.data autotunes.
            guarded: `guarded_batches`, or an equivalent function.
        """
        rows, log = self.rows, corrupt or CorruptLog(0)

        def example(position: tf.Tensor, key: tuple) -> tuple:
            return make(self.source.read(*key), seed_at(self.seed, _EXAMPLE, position, self.share))

        def whole(keys: tuple, places: tf.Tensor, made: tuple) -> tuple:
            parts = _checked(self.source, log, check, keys, places, made)
            parts = full_batch(parts, places, len(rows), blank, in_turn=True)
            number = keys[0][0] // rows.batch_size
            seeds = tf.stack([seed_at(self.seed, stream, number, self.share) for stream in (_JITTER, _PCA)])
            maps = color.draw_maps(rows.batch_size, self.color_jitter, self.pca_noise, seeds)
            return finish(parts, rows.draws(maps), number)

        batches = guarded(self.keys(shuffle_buffer), example, len(rows), drop_remainder=True)
        left = (self.epochs - self.first_epoch) * self.steps - self.first_step
        return _finished(batches, whole, left, ram_budget)


def evaluation_batches(
    source: Any,
    rows: WorkerRows,
    make: Callable[[dict], tuple],
    finish: Callable,
    *,
    blank: tuple,
    check: Check | None = None,
    corrupt: CorruptLog | None = None,
    ram_budget: int = RAM_BUDGET,
    guarded: Callable = guarded_batches,
    pad: bool = True,
) -> tf.data.Dataset:
    """Builds the batches of one pass in natural order, padded or without the undecodable records.

    Args:
        source, rows, check, corrupt, ram_budget, guarded: as in `TrainingStream`.
        make: record -> parts of an example.
        finish: (parts (b, ...), weights float32 (b,)) -> an element. The weight is 0 for the padding of the last batch
            and for a record that cannot be decoded, else 1.
        blank: the value of each part where the weight is 0.
        pad: whether to make every batch full. Without it, batches contain only the decoded records, all of weight 1.
    """
    log = corrupt or CorruptLog(0)

    def whole(keys: tuple, places: tf.Tensor, made: tuple) -> tuple:
        parts = (*_checked(source, log, check, keys, places, made), tf.ones_like(places, tf.float32))
        *parts, weights = full_batch(parts, places, len(rows), (*blank, 0)) if pad else parts
        return finish(tuple(parts), weights)

    keys = rows.keys(source.keys(None, 1).enumerate())
    batches = guarded(keys, lambda position, key: make(source.read(*key)), len(rows))
    return _finished(rows.with_last(batches, source.size), whole, -(-source.size // rows.batch_size), ram_budget)


def _checked(source, log: CorruptLog, check: Check | None, keys: tuple, places: tf.Tensor, made: tuple) -> tuple:
    """Returns the decoded parts, checked, after reporting the failed records."""
    with tf.control_dependencies([log.report_missing(source, keys, places)]):
        made = tuple(map(tf.identity, made))
    return check(source, keys, places, made) if check else made


def _finished(batches: tf.data.Dataset, finish: Callable, count: int, ram_budget: int) -> tf.data.Dataset:
    """Returns `count` finished batches; `ram_budget` limits all autotuned tf.data buffers together.

    Each operation uses one thread: images and batches keep the cores busy, and splitting single images costs 4 %.
    """
    options = tf.data.Options()
    options.autotune.ram_budget = ram_budget * 2**20
    options.threading.max_intra_op_parallelism = 1
    batches = batches.map(finish, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    batches = batches.apply(tf.data.experimental.assert_cardinality(count))
    return batches.prefetch(tf.data.AUTOTUNE).with_options(options)
