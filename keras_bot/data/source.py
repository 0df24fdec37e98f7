"""`Source`: where records come from, in two halves: a cheap order of keys, and a costly read of each."""

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

_READ_AHEAD = 64
_AT_ONCE = 1024


@dataclasses.dataclass(frozen=True)
class Source:
    """A data set's split.

    Attributes:
        name: what the user called it, with the split.
        num_classes: labels are 0..num_classes-1.
        class_names: one for each class.
        size: number of records.
        keys: `keys(seed, buffer, first=0)` -> data set of `size - first` keys, tuples of scalars, cheap to make: a
            pass from position `first` on, without reading what comes before. With a seed, integer tensor (2,),
            shuffled by it; with None in their natural order. `buffer` matters only to sources that can be read
            no other way than in sequence.
        read: the parts of a key -> record {"image": string scalar or uint8 (H, W, C), "label": int64, "name":
            string}. Runs in parallel, in a graph.
        record_name: the parts of a key, or of a batch of keys -> name, also of a record that can't be read.
        in_memory: the records are arrays: reading and decoding can't fail.
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
        """All records in their natural order, read in parallel; raises where one can't be read."""
        return self.keys(None, 1).map(self.read, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)

    def fingerprint(self, samples: int = 16) -> str:
        """A checksum of so many records, evenly spread over the natural order: labels and images as they are stored.

        One that can't be read counts as empty. 16 hexadecimal digits.
        """
        digest = hashlib.sha256()
        for record in sample(self, samples):
            image = record and np.asarray(record["image"].numpy()).tobytes()
            digest.update(b"%d %b" % (record["label"].numpy(), image) if record else b"unreadable")
        return digest.hexdigest()[:16]

    def batches(
        self, keys: tf.data.Dataset, make: Callable, batch_size: int, drop_remainder: bool = False
    ) -> tf.data.Dataset:
        """`guarded_batches`; for arrays, of which none can fail, the same elements in the plain, faster way."""
        if not self.in_memory:
            return guarded_batches(keys, make, batch_size, drop_remainder)
        made = keys.map(lambda *key: (key, make(*key)), num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
        made = made.batch(batch_size, drop_remainder=drop_remainder)
        return made.map(lambda key, parts: (key, tf.range(tf.shape(key[0])[0]), parts))

    def shared(self, share: "Share") -> "Source":
        """One worker's part of a source whose keys are `indices`: each `workers`th record, so all classes."""
        if share.workers == 1:
            return self
        own = indices(share.size)

        def keys(*args, **options) -> tf.data.Dataset:
            return own(*args, **options).map(lambda i: (i * share.workers + share.worker,))

        return dataclasses.replace(self, size=share.size, keys=keys)

    def cached(self) -> "Source":
        """The same source with all its records in memory, still encoded; arrays in memory stay as they are.

        Reads everything once, now. A record that can't be read becomes one of zero bytes, which can't
        be decoded either.

        Raises:
            RunError: a record file is cut, damaged or gone.
        """
        if self.in_memory:
            return self

        def read(*key) -> tuple[tf.Tensor, tf.Tensor]:
            record = self.read(*key)
            return record["image"], record["label"]

        images = [b""] * self.size
        labels = np.zeros(self.size, np.int64)
        names = []
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
    """One worker's part of a set: `size` records; which, is `start` or `worker` to say.

    Attributes:
        worker, workers: its number, from 0, and how many there are.
        size: the number of its records.
        start: where they begin if each worker's records follow each other.
    """

    worker: int
    workers: int
    size: int
    start: int


def share_of(read_config: Any, size: int, split: str) -> Share:
    """The share of the worker that a `tfds.ReadConfig` names; all of the set if it, or its `input_context`, is None.

    Training shares are of one size, so that workers take as many steps, and leave out the remainder. In evaluation
    the first shares hold one record more.

    Raises:
        MisuseError: there are more workers than records, or the worker is none of them.
    """
    context = getattr(read_config, "input_context", None)
    if context is None:
        return Share(0, 1, size, 0)
    worker, workers = context.input_pipeline_id, context.num_input_pipelines
    if not 0 <= worker < workers:
        raise MisuseError(f"Expected an input_context with 0 <= input_pipeline_id < {workers}, received {worker}.")
    if workers > size:
        raise MisuseError(f"Expected at least one record a worker, received {size} records for {workers} workers.")
    share, left = divmod(size, workers)
    if split == "train":
        return Share(worker, workers, share, worker * share)
    return Share(worker, workers, share + (worker < left), worker * share + min(worker, left))


def indices(size: int) -> Callable[..., tf.data.Dataset]:
    """The `keys` of a source that can be read in any order: 0..size-1, shuffled as a whole without memory."""

    def keys(seed: tf.Tensor | None, buffer: int, first: int | tf.Tensor = 0) -> tf.data.Dataset:
        del buffer  # a permutation of everything needs none
        ordered = tf.data.Dataset.range(tf.cast(first, tf.int64), size)
        if seed is None:
            return ordered.map(lambda i: (i,))
        shuffle = tf.random.experimental.index_shuffle
        # Many at a time: a call for each would cost 0.025 ms an image, as much as the sampling of its window.
        shuffled = ordered.batch(_AT_ONCE).map(lambda i: (shuffle(i, seed, tf.constant(size - 1, tf.int64)),))
        return shuffled.unbatch()

    return keys


def sample(source: Any, count: int) -> Iterator[dict[str, tf.Tensor] | None]:
    """So many records of a source, evenly spread over its natural order; None in the place of one that can't be read.

    Args:
        source: has `size`, `keys` and `read` as `Source` has them.
        count: how many at most; no record comes twice.
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
    """The RunError, if it was one, that was raised inside a data set and became an error of TensorFlow's."""
    own = re.search(r"RunError: (.*)", error.message)
    return RunError(own[1]) if own else None


def cpu_constant(values, dtype: tf.DType | None = None) -> tf.Tensor:
    """A tensor in the host's memory, also where there is a GPU; data sets then share it and copy nothing."""
    with tf.device("CPU:0"):
        return tf.constant(values, dtype)


def check_distinct(source: str, class_names: Sequence[str]) -> None:
    """MisuseError if two classes share a name: heads, teachers and exports tell classes apart by it."""
    if len(set(class_names)) == len(class_names):
        return
    shared = {
        name: [str(i) for i, other in enumerate(class_names) if other == name]
        for name, count in Counter(class_names).items()
        if count > 1
    }
    told = [f"{name!r} (classes {', '.join(places)})" for name, places in shared.items()]
    raise MisuseError(f"{source} has classes of the same name: {first_few(told)}. Give each class a name of its own.")


def check_num_classes(source: str, num_classes: int, found: int) -> None:
    """MisuseError unless `num_classes` is 0 (take what the data has) or equals `found`."""
    if num_classes not in (0, found):
        raise MisuseError(
            f"Expected {num_classes} classes (num_classes), but {source} has {found}. "
            "Set num_classes to that, or to 0 to take it from the data."
        )
