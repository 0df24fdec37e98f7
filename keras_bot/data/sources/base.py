"""`Source`: access to a data set's records, split into a cheap ordering of keys and an expensive read per key."""

import dataclasses
import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from keras_bot.data.corrupt import guarded_batches
from keras_bot.errors import MisuseError, RunError, first_few

# Names of the split to evaluate on: the first that exists is used. Each format's usual name comes first.
EVAL_SPLITS = ("val", "validation", "test")  # folders of images or masks
SHARD_EVAL_SPLITS = ("validation", "val", "test")  # as in ImageNet's TFRecord shards
TFDS_EVAL_SPLITS = ("validation", "test", "val")  # only a few TFDS sets have a split named val
BOX_EVAL_SPLITS = ("val", "validation", "valid", "test")  # Roboflow exports COCO files to valid

_READ_AHEAD = 64
_AT_ONCE = 1024


@dataclasses.dataclass(frozen=True)
class Source:
    """One split of a data set.

    Attributes:
        name: the name given by the user, with the split.
        num_classes: labels are 0..num_classes-1.
        class_names: one per class.
        size: number of records.
        keys: `keys(seed, buffer, first=0)` -> data set of `size - first` keys, tuples of scalars, cheap to make: one
            pass starting at position `first`, skipping earlier records cheaply. A seed, integer tensor (2,), shuffles
            the keys; None keeps their natural order. `buffer` is only used by sources that must be read sequentially.
        read: components of a key -> record {"image": string scalar or uint8 (H, W, C), "label": int64, "name":
            string}. Runs in parallel, in a graph.
        record_name: components of a key, or of a batch of keys -> name, even if the record cannot be read.
        in_memory: whether the records are arrays, so that reading and decoding cannot fail.
    """

    name: str
    num_classes: int
    class_names: tuple[str, ...]
    size: int
    keys: Callable[..., tf.data.Dataset]
    read: Callable[..., dict[str, tf.Tensor]]
    record_name: Callable[..., tf.Tensor]
    in_memory: bool = False

    def __post_init__(self):
        check_distinct(self.name, self.class_names)

    def records(self) -> tf.data.Dataset:
        """Returns all records in natural order, read in parallel; iteration raises if one cannot be read."""
        return self.keys(None, 1).map(self.read, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)

    def fingerprint(self, samples: int = 16) -> str:
        """Returns a checksum, 16 hex digits, of the labels and stored images of `samples` evenly spaced records.

        A record that cannot be read is hashed as a fixed placeholder.
        """
        digest = hashlib.sha256()
        for record in sample(self, samples):
            if record:
                image = np.asarray(record["image"].numpy()).tobytes()
                digest.update(b"%d %b" % (record["label"].numpy(), image))
            else:
                digest.update(b"unreadable")
        return digest.hexdigest()[:16]

    def batches(
        self, keys: tf.data.Dataset, make: Callable, batch_size: int, drop_remainder: bool = False
    ) -> tf.data.Dataset:
        """Calls `guarded_batches`, or for arrays, which cannot fail, builds the same elements by a faster plain map."""
        if not self.in_memory:
            return guarded_batches(keys, make, batch_size, drop_remainder)
        made = keys.map(lambda *key: (key, make(*key)), num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
        made = made.batch(batch_size, drop_remainder=drop_remainder)
        return made.map(lambda key, parts: (key, tf.range(tf.shape(key[0])[0]), parts))

    def shared(self, share: "Share") -> "Source":
        """Returns one worker's share of a source with `indices` keys.

        The share is every `workers`th record, so it covers all classes even if the records are sorted by class.
        """
        if share.workers == 1:
            return self
        own = indices(share.size)

        def keys(*args, **options) -> tf.data.Dataset:
            return own(*args, **options).map(lambda i: (i * share.workers + share.worker,))

        return dataclasses.replace(self, size=share.size, keys=keys)

    def cached(self) -> "Source":
        """Reads all records into memory, still encoded, and returns the cached source; no-op for in-memory arrays.

        A record that cannot be read becomes zero bytes, which cannot be decoded either.

        Raises:
            RunError: a record file is truncated, damaged or missing.
        """
        if self.in_memory:
            return self

        def read(*key) -> tuple[tf.Tensor, tf.Tensor]:
            record = self.read(*key)
            return record["image"], record["label"]

        images = [b""] * self.size
        labels = np.zeros(self.size, np.int64)
        names: list[bytes] = []
        try:
            for keys, places, (read_images, read_labels) in guarded_batches(self.keys(None, 1), read, _READ_AHEAD):
                start = len(names)
                names += self.record_name(*keys).numpy().tolist()
                labels[start + places.numpy()] = read_labels.numpy()
                for place, image in zip(places.numpy(), read_images.numpy(), strict=True):
                    images[start + place] = image
        except tf.errors.OpError as error:
            raise run_error(error) or error from None
        pictures, classes, texts = cpu_constant(images), cpu_constant(labels), cpu_constant(names)
        return dataclasses.replace(
            self,
            keys=indices(self.size),
            read=lambda i: {
                "image": tf.gather(pictures, i),
                "label": tf.gather(classes, i),
                "name": tf.gather(texts, i),
            },
            record_name=lambda i: tf.gather(texts, i),
        )


@dataclasses.dataclass(frozen=True)
class Share:
    """One worker's shard of `size` records.

    Attributes:
        worker, workers: index of the worker, from 0, and number of workers.
        size: number of records in the shard.
        start: index of the first record, if shards are contiguous.
    """

    worker: int
    workers: int
    size: int
    start: int


def share_of(read_config: Any, size: int, split: str) -> Share:
    """Returns the share of a `tfds.ReadConfig`'s worker; the whole set if it, or its `input_context`, is None.

    Training shares have the same size, so that all workers take the same number of steps; the remainder is dropped.
    In evaluation the remainder is distributed over the first shares, one record each.

    Raises:
        MisuseError: there are more workers than records, or the worker's index is out of range.
    """
    context = getattr(read_config, "input_context", None)
    if context is None:
        return Share(0, 1, size, 0)
    worker, workers = context.input_pipeline_id, context.num_input_pipelines
    if not 0 <= worker < workers:
        raise MisuseError(f"input_pipeline_id of the input_context must be from 0 to {workers - 1}, received {worker}.")
    if workers > size:
        raise MisuseError(f"Each worker needs at least one record, but there are {size} records for {workers} workers.")
    share, left = divmod(size, workers)
    if split == "train":
        return Share(worker, workers, share, worker * share)
    return Share(worker, workers, share + (worker < left), worker * share + min(worker, left))


def indices(size: int) -> Callable[..., tf.data.Dataset]:
    """Returns the `keys` of a random-access source: 0..size-1, shuffled globally without a buffer."""

    def keys(seed: tf.Tensor | None, buffer: int, first: int | tf.Tensor = 0) -> tf.data.Dataset:
        del buffer  # a global permutation needs none
        ordered = tf.data.Dataset.range(tf.cast(first, tf.int64), size)
        if seed is None:
            return ordered.map(lambda i: (i,))
        shuffle = tf.random.experimental.index_shuffle
        # In batches: a call per key would cost 0.025 ms per image, as much as sampling its crop window.
        shuffled = ordered.batch(_AT_ONCE).map(lambda i: (shuffle(i, seed, tf.constant(size - 1, tf.int64)),))
        return shuffled.unbatch()

    return keys


def sample(source: Any, count: int) -> Iterator[dict[str, tf.Tensor] | None]:
    """Yields records evenly spaced over a source's natural order; None for a record that cannot be read.

    Args:
        source: has `size`, `keys` and `read` like `Source`.
        count: maximum number of records; none is repeated.
    """
    places = np.unique(np.linspace(0, source.size - 1, count, dtype=np.int64))
    chosen = tf.data.Dataset.from_tensor_slices(places).flat_map(lambda place: source.keys(None, 1, place).take(1))
    records = iter(chosen.map(source.read))
    for _ in places:
        try:
            record = next(records)
        except tf.errors.OpError:
            record = None
        yield record


def run_error(error: tf.errors.OpError) -> RunError | None:
    """Returns the RunError that was raised inside a data set and wrapped in a TensorFlow error, or None."""
    own = re.search(r"RunError: (.*)", error.message)
    return RunError(own[1]) if own else None


def cpu_constant(values: Any, dtype: tf.DType | None = None) -> tf.Tensor:
    """Returns a tensor in host memory, even if there is a GPU; data sets share it without a copy."""
    with tf.device("CPU:0"):
        return tf.constant(values, dtype)


def check_distinct(source: str, class_names: Sequence[str]) -> None:
    """Raises MisuseError if two classes share a name: heads, teachers and exports identify classes by name."""
    if len(set(class_names)) == len(class_names):
        return
    shared = {
        name: [str(i) for i, other in enumerate(class_names) if other == name]
        for name, count in Counter(class_names).items()
        if count > 1
    }
    equal = [f"{name!r} (classes {', '.join(places)})" for name, places in shared.items()]
    raise MisuseError(f"{source} has classes of the same name: {first_few(equal)}. Give each class a unique name.")


def check_num_classes(source: str, num_classes: int, found: int) -> None:
    """Raises MisuseError unless `num_classes` is 0 (use the data's) or equals `found`."""
    if num_classes not in (0, found):
        raise MisuseError(
            f"num_classes={num_classes}, but {source} has {found} classes. "
            f"Set num_classes to {found}, or to 0 to take it from the data."
        )
