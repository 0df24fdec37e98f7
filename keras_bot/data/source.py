"""`Source`: where records come from, in two halves: a cheap order of keys, and a costly read of each."""

import dataclasses
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from keras_bot.data.corrupt import guarded_batches
from keras_bot.errors import MisuseError

_READ_AHEAD = 64


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

    def records(self) -> tf.data.Dataset:
        """All records in their natural order, read in parallel; raises where one can't be read."""
        return self.keys(None, 1).map(self.read, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)

    def batches(
        self, keys: tf.data.Dataset, make: Callable, batch_size: int, drop_remainder: bool = False
    ) -> tf.data.Dataset:
        """`guarded_batches`; for arrays, of which none can fail, the same elements in the plain, faster way."""
        if not self.in_memory:
            return guarded_batches(keys, make, batch_size, drop_remainder)
        made = keys.map(lambda *key: (key, make(*key)), num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
        made = made.batch(batch_size, drop_remainder=drop_remainder)
        return made.map(lambda key, parts: (key, tf.range(tf.shape(key[0])[0]), parts))

    def cached(self) -> "Source":
        """The same source with all its records in memory, still encoded; arrays in memory stay as they are.

        Reads everything once, now. A record that can't be read becomes one of zero bytes, which can't
        be decoded either.
        """
        if self.in_memory:
            return self

        def read(*key) -> tuple[tf.Tensor, tf.Tensor]:
            record = self.read(*key)
            return record["image"], record["label"]

        images = [b""] * self.size
        labels = np.zeros(self.size, np.int64)
        names = []
        batches = guarded_batches(self.keys(None, 1), read, _READ_AHEAD)
        for keys, places, (read_images, read_labels) in batches:
            start = len(names)
            names += self.record_name(*keys).numpy().tolist()
            labels[start + places.numpy()] = read_labels.numpy()
            for place, image in zip(places.numpy(), read_images.numpy(), strict=True):
                images[start + place] = image
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


def indices(size: int) -> Callable[..., tf.data.Dataset]:
    """The `keys` of a source that can be read in any order: 0..size-1, shuffled as a whole without memory."""

    def keys(seed: tf.Tensor | None, buffer: int, first: int | tf.Tensor = 0) -> tf.data.Dataset:
        del buffer  # a permutation of everything needs none
        ordered = tf.data.Dataset.range(tf.cast(first, tf.int64), size)
        if seed is None:
            return ordered.map(lambda i: (i,))
        shuffle = tf.random.experimental.index_shuffle
        return ordered.map(lambda i: (shuffle(i, seed, tf.constant(size - 1, tf.int64)),))

    return keys


def cpu_constant(values, dtype: tf.DType | None = None) -> tf.Tensor:
    """A tensor in the host's memory, also where there is a GPU; data sets then share it and copy nothing."""
    with tf.device("CPU:0"):
        return tf.constant(values, dtype)


def check_num_classes(source: str, num_classes: int, found: int) -> None:
    """MisuseError unless `num_classes` is 0 (take what the data has) or equals `found`."""
    if num_classes not in (0, found):
        raise MisuseError(
            f"Expected {num_classes} classes (num_classes), but {source} has {found}. "
            "Set num_classes to that, or to 0 to take it from the data."
        )
