"""TFRecord files as one stream of serialised records, in an order that depends only on the seed.

A shuffled pass reads the files in random order, one group at a time, interleaves the files of a group, splits the
stream into blocks and shuffles each block. Nothing depends on timing or on earlier passes, and the record counts of
the files are known. A pass can therefore start anywhere, and a file with too few records is detected.
"""

import dataclasses
import os
import re
import struct
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from keras_bot.data.python_ops import numpy_function
from keras_bot.data.sources.base import Share, cpu_constant
from keras_bot.errors import MisuseError, RunError

_HEADER = struct.Struct("<Q4x")  # a record's length and the checksum of the length
_FOOTER = 4  # the record's checksum, after the data
_READERS = 8
_TABLE = (("path", tf.string), ("skip", tf.int64), ("take", tf.int64))


@dataclasses.dataclass(frozen=True)
class Records:
    """A range of one file's records: `take` records after the first `skip`."""

    path: str
    skip: int
    take: int


@dataclasses.dataclass(frozen=True)
class Reading:
    """Interleaving of a shuffled pass: `cycle_length` files at a time, `block_length` records from each in turn."""

    cycle_length: int = 16
    block_length: int = 16


def reading_of(read_config: Any) -> Reading:
    """Returns the interleaving set by a `tfds.ReadConfig`, or None; unset fields get the defaults."""
    options = {}
    for name in ("cycle_length", "block_length"):
        value = getattr(read_config, f"interleave_{name}", None)
        if not isinstance(value, int):  # None, or the TFDS placeholder for an unset field
            continue
        if value < 1:
            raise MisuseError(f"interleave_{name} in read_config must be at least 1, received {value}.")
        options[name] = value
    return Reading(**options)


def take_share(files: Sequence[Records], share: Share) -> list[Records]:
    """Returns one worker's contiguous share of the records, so that it only reads the files it needs."""
    begin, end = share.start, share.start + share.size
    taken = []
    for file in files:
        first, last = max(begin, 0), min(end, file.take)
        if first < last:
            taken.append(Records(file.path, file.skip + first, last - first))
        begin, end = begin - file.take, end - file.take
    return taken


def record_keys(files: Sequence[Records], reading: Reading) -> Callable[..., tf.data.Dataset]:
    """Returns the `keys` of a source in record files: (serialised record, path of the file, index in the file).

    With a seed, blocks of a third of `buffer` are shuffled: one is being read, one waits and one is in use. Without a
    seed, the files are read one after the other. A pass that starts at `first` begins at that position's block and
    discards the records before it.

    Args:
        files: the files in natural order, none of them empty.
        reading: interleaving of a shuffled pass.

    Returns:
        The `keys`. A file that is truncated, damaged or missing raises in the data set. `run_error` recovers the
        message, which contains the file and, where known, the byte offset of the fault.
    """
    table = tuple(cpu_constant([getattr(file, part) for file in files], dtype) for part, dtype in _TABLE)

    def keys(seed: tf.Tensor | None, buffer: int, first: int | tf.Tensor = 0) -> tf.data.Dataset:
        first = tf.cast(first, tf.int64)
        if seed is None:
            return _stream(table, first, Reading(1, reading.block_length))
        order = tf.random.experimental.index_shuffle(tf.range(len(files)), seed, len(files) - 1)
        block = max(buffer // 3, 1)
        number = first // block
        records = _stream([tf.gather(column, order) for column in table], number * block, reading)
        blocks = records.window(block).enumerate(number).prefetch(1)
        return blocks.flat_map(lambda i, window: _shuffled(window, block, seed, i)).skip(first - number * block)

    return keys


def record_name(file: tf.Tensor, index: tf.Tensor) -> tf.Tensor:
    """Returns the file's name with the record's index in brackets."""
    return tf.strings.join([tf.strings.regex_replace(file, ".*/", ""), "[", tf.strings.as_string(index), "]"])


def _stream(table: Sequence[tf.Tensor], first: tf.Tensor, reading: Reading) -> tf.data.Dataset:
    """Returns the keys starting at `first`: the files of `table` in groups, interleaved within each group."""
    takes, cycle = table[2], reading.cycle_length
    groups = -(-takes.shape[0] // cycle)
    sizes = tf.math.segment_sum(takes, tf.range(takes.shape[0]) // cycle)
    ends = tf.cumsum(sizes)
    begin = tf.searchsorted(ends, first[None], side="right", out_type=tf.int64)[0]
    skipped = first - tf.reduce_sum(sizes[:begin])

    def read_group(group: tf.Tensor) -> tf.data.Dataset:
        paths, skips, takes = (column[group * cycle : (group + 1) * cycle] for column in table)
        return _read_group(paths, skips, takes, tf.where(group == begin, skipped, 0), reading)

    return tf.data.Dataset.range(begin, groups).flat_map(read_group)


def _read_group(
    paths: tf.Tensor, skips: tf.Tensor, takes: tf.Tensor, first: tf.Tensor, reading: Reading
) -> tf.data.Dataset:
    """Returns the keys of one group, starting at its record `first`."""
    length = reading.block_length
    # Records read after each number of whole turns, to find the last turn that starts at or before `first`.
    most = tf.reduce_max(tf.minimum(takes, first)) // length + 1
    turns = tf.range(most + 1)
    passed = tf.reduce_sum(tf.minimum(takes[:, None], turns[None] * length), 0)
    turn = tf.searchsorted(passed, first[None], side="right", out_type=tf.int64)[0] - 1
    done = tf.minimum(takes, turn * length)
    files = tf.data.Dataset.from_tensor_slices((paths, skips + done, takes - done))
    records = files.interleave(
        _read_file,
        cycle_length=reading.cycle_length,
        block_length=length,
        num_parallel_calls=min(reading.cycle_length, _READERS),
        deterministic=True,
    )
    return records.skip(first - tf.reduce_sum(done))


def _read_file(path: tf.Tensor, skip: tf.Tensor, take: tf.Tensor) -> tf.data.Dataset:
    """Reads a range of a file's records. TensorFlow's errors lack the file name and miss a cut between records."""

    def raise_fault(index: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        record = numpy_function(_raise_fault, [path, index], tf.string)
        return index, tf.ensure_shape(record, [])

    # A file that cannot be opened would fail endlessly; zipping with the numbers limits it to `take` failures.
    numbers = tf.data.Dataset.range(skip, skip + take)
    records = tf.data.Dataset.zip((numbers, tf.data.TFRecordDataset(path).skip(skip))).ignore_errors()
    records = records.concatenate(tf.data.Dataset.from_tensors(skip + take).map(raise_fault)).take(take)
    return records.map(lambda index, serialized: (serialized, path, index))


def _shuffled(window: tuple, size: int, seed: tf.Tensor, number: tf.Tensor) -> tf.data.Dataset:
    """Shuffles one block with its own seed, without copying the records."""
    # Otherwise the graph seed, set by tf.random.set_seed, would change the order.
    tf.compat.v1.get_default_graph().seed = None
    own = tf.random.experimental.stateless_fold_in(tf.cast(seed, tf.int64), number)
    mixed = tf.random.stateless_uniform([], own, 1, 2**62, tf.int64)
    return tf.data.Dataset.zip(window).shuffle(size, seed=mixed, reshuffle_each_iteration=False)


def _raise_fault(path: bytes, expected: np.int64) -> None:
    raise RunError(fault(os.fsdecode(path), int(expected)))


def measure(path: str) -> tuple[int, int, int]:
    """Counts a TFRecord file's records by reading only their headers.

    Returns:
        Number of whole records, the byte at which the last of them ends, and the file's size. The latter two
        differ if the file is truncated or not a TFRecord file.

    Raises:
        OSError: the file cannot be read.
    """
    with open(path, "rb", buffering=0) as file:
        size, end, count = os.fstat(file.fileno()).st_size, 0, 0
        while len(header := os.pread(file.fileno(), _HEADER.size, end)) == _HEADER.size:
            next_end = end + _HEADER.size + _HEADER.unpack(header)[0] + _FOOTER
            if next_end > size:
                break
            end, count = next_end, count + 1
        return count, end, size


def fault(path: str, expected: int) -> str:
    """Returns the error message for a TFRecord file with fewer than `expected` readable records; reads all of it."""
    try:
        count, end, size = measure(path)
    except OSError as error:
        return f"{path} can't be read: {error.strerror}."
    if end < size:
        return truncation(path, end, size)
    try:
        for _ in tf.data.TFRecordDataset(path):
            pass
    except tf.errors.OpError as error:
        place = re.search(r"record at (\d+)", error.message)
        where = f"a checksum is wrong at byte {place[1]} of {size}" if place else error.message.splitlines()[0]
        return f"{path} is damaged: {where}. Copy it again."
    if count < expected:
        return f"{path} is truncated: it ends at byte {end} after record {count} of {expected}. Copy it again."
    return f"{path} could not be read to its end at first, but now it can: the disk or network failed. Run again."


def truncation(path: str, end: int, size: int) -> str:
    """Returns the message for a file of actual or expected `size` whose last whole record ends at byte `end`."""
    return (
        f"{path} is truncated or damaged, or not a plain TFRecord file: its last whole record ends at byte {end} of "
        f"{size}. Copy it again."
    )
