"""Batch streams of the input pipelines of all tasks: order, random draws, corrupt records and sharding over workers.

A task's pipeline makes two graph functions. One makes an example from a record, the other finishes a batch:

    stream = TrainingStream(source, config)
    examples = stream.examples(make_example)    # shuffled keys -> this worker's -> read, decode, augment in parallel
    batches = stream.batches(examples, finish)  # report and replace corrupt records, targets, colours -> prefetch

The source has `name`, `size`, `keys`, `read` and `record_name` like `sources.base.Source`.

One training stream covers all epochs; no batch spans two. Order and draws depend only on (seed, epoch, position):
each use has its own stream number, and the position counted over all epochs is the second half of a stateless seed.
A run resumed at any step therefore sees exactly the data of an uninterrupted run from there on, with any number of
cores, and decodes none of the preceding images. Keeping that order costs no speed.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from keras_bot.data.augment import color
from keras_bot.data.config import StreamConfig, TrainingStreamConfig
from keras_bot.data.corrupt import CorruptLog, fill_missing, guarded_batches
from keras_bot.errors import MisuseError

_ORDER, _EXAMPLE, _JITTER, _PCA, _BATCH = range(5)


def seed_at(seed: int, stream: int, place: tf.Tensor, share: int = 0) -> tf.Tensor:
    """Returns the stateless seed, int64 (2,), of one place in one stream of draws; both halves fit int32.

    Each share of a data set has its own streams.
    """
    words = (seed % 2**64, stream, share) if share else (seed % 2**64, stream)
    word = np.random.SeedSequence(words).generate_state(1)[0] >> 1
    return tf.stack([tf.constant(word, tf.int64), tf.cast(place, tf.int64)])


class Stream:
    """Base of the training and the evaluation stream.

    Methods with these arguments run in the graph, on one batch:
        keys: (positions (B,), components of the keys, each (B,)) of the whole batch.
        places: places of the decoded records in the batch, int32 (b,).
        parts: tensors of their examples, each (b, ...).

    Args:
        source: the source of the records.
        config: the pipeline's options.
    """

    def __init__(self, source: Any, config: StreamConfig) -> None:
        self.source, self.config = source, config
        self.rows = config.worker_rows()
        self._log = config.corrupt or CorruptLog(0)

    def report_corrupt(self, keys: tuple, places: tf.Tensor, parts: tuple) -> tuple:
        """Returns the parts after reporting the records of the batch that could not be decoded."""
        with tf.control_dependencies([self._log.report_missing(self.source, keys, places)]):
            return tuple(map(tf.identity, parts))

    def _map_batches(self, examples: tf.data.Dataset, finish: Callable, count: int) -> tf.data.Dataset:
        """Returns `count` finished batches; `ram_budget` limits all autotuned tf.data buffers together.

        Each operation uses one thread: images and batches keep the cores busy, and splitting single images costs 4 %.
        """
        options = tf.data.Options()
        options.autotune.ram_budget = self.config.ram_budget * 2**20
        options.threading.max_intra_op_parallelism = 1
        batches = examples.map(finish, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
        batches = batches.apply(tf.data.experimental.assert_cardinality(count))
        return batches.prefetch(tf.data.AUTOTUNE).with_options(options)


class TrainingStream(Stream):
    """The records of a training run, their order and their random draws.

    Args:
        source: the source of the records.
        config: the pipeline's options.

    Raises:
        MisuseError: the batch is larger than the source, or `first_step` is not a step of an epoch.
    """

    config: TrainingStreamConfig

    def __init__(self, source: Any, config: TrainingStreamConfig) -> None:
        super().__init__(source, config)
        self.steps = source.size // config.batch_size  # per epoch
        if not self.steps:
            raise MisuseError(
                f"batch_size={config.batch_size} is larger than the data set: {source.name} has {source.size} images. "
                "Use a smaller batch."
            )
        step, is_at_end = config.first_step, config.first_epoch == config.epochs
        if not 0 <= step < self.steps or (step and is_at_end):
            raise MisuseError(
                f"first_step must be at least 0 and less than the {self.steps} steps of an epoch, received {step}."
            )

    def examples(
        self, make_example: Callable[[dict, tf.Tensor], tuple], guarded: Callable = guarded_batches
    ) -> tf.data.Dataset:
        """Shuffles and reads the records and makes examples in parallel, in batches from the first step on.

        Args:
            make_example: (record, seed int64 (2,)) -> parts of an example.
            guarded: `guarded_batches`, or an equivalent function.

        Returns:
            Data set of (keys, places, parts), without the records that could not be decoded.
        """

        def example(position: tf.Tensor, key: tuple) -> tuple:
            return make_example(self.source.read(*key), self._seed(_EXAMPLE, position))

        return guarded(self._keys(), example, len(self.rows), drop_remainder=True)

    def fill_missing(self, parts: tuple, places: tf.Tensor, blank: tuple) -> tuple:
        """Replaces the missing rows by the others in turn, or each part by its `blank` value if there are none."""
        return fill_missing(parts, places, len(self.rows), blank, repeat_rows=True)

    def batch_number(self, keys: tuple) -> tf.Tensor:
        """Returns the number of the batch, counted over all epochs, int64."""
        return keys[0][0] // self.config.batch_size

    def batch_seed(self, number: tf.Tensor) -> tf.Tensor:
        """Returns the seed of a batch, int32 (2,), the same for all workers and shares."""
        return tf.cast(seed_at(self.config.seed, _BATCH, number), tf.int32)

    def color_maps(self, number: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Samples `color.draw_maps` for the rows of a batch."""
        seeds = tf.stack([self._seed(stream, number) for stream in (_JITTER, _PCA)])
        config = self.config
        return self.rows.draws(color.draw_maps(config.batch_size, config.color_jitter, config.pca_noise, seeds))

    def batches(self, examples: tf.data.Dataset, finish: Callable) -> tf.data.Dataset:
        """Builds the elements: `finish(keys, places, parts)` of each batch of examples, prefetched."""
        epochs = self.config.epochs - self.config.first_epoch
        return self._map_batches(examples, finish, epochs * self.steps - self.config.first_step)

    def _seed(self, stream: int, place: tf.Tensor) -> tf.Tensor:
        return seed_at(self.config.seed, stream, place, self.config.draws_of)

    def _keys(self) -> tf.data.Dataset:
        """Returns (position counted over all epochs, components of the key) of each record of these rows."""
        config, steps, size = self.config, self.steps, self.config.batch_size

        def positions(epoch: tf.Tensor) -> tf.data.Dataset:
            first = tf.where(epoch == config.first_epoch, tf.constant(config.first_step * size, tf.int64), 0)
            order = self._seed(_ORDER, epoch)
            return self.source.keys(order, config.shuffle_buffer, first).take(steps * size - first)

        keys = tf.data.Dataset.range(config.first_epoch, config.epochs).flat_map(positions)
        return self.rows.keys(keys.enumerate((config.first_epoch * steps + config.first_step) * size))


class EvaluationStream(Stream):
    """The records of one pass in natural order.

    Args:
        source: the source of the records.
        config: the pipeline's options.
    """

    def examples(self, make_example: Callable[[dict], tuple], guarded: Callable = guarded_batches) -> tf.data.Dataset:
        """Reads the records and makes examples in parallel, in batches.

        Args:
            make_example: record -> parts of an example.
            guarded: `guarded_batches`, or an equivalent function.

        Returns:
            Data set of (keys, places, parts), without the records that could not be decoded.
        """
        keys = self.rows.keys(self.source.keys(None, 1).enumerate())
        batches = guarded(keys, lambda position, key: make_example(self.source.read(*key)), len(self.rows))
        return self.rows.with_last(batches, self.source.size)

    def fill_missing(self, parts: tuple, places: tf.Tensor, blank: tuple) -> tuple:
        """Fills the batch with each part's `blank` value and appends the weights, float32: 0 there and 1 elsewhere."""
        return fill_missing((*parts, tf.ones_like(places, tf.float32)), places, len(self.rows), (*blank, 0))

    def batches(self, examples: tf.data.Dataset, finish: Callable) -> tf.data.Dataset:
        """Builds the elements: `finish(keys, places, parts)` of each batch of examples, prefetched."""
        return self._map_batches(examples, finish, -(-self.source.size // self.config.batch_size))
