"""Helpers shared by the input pipelines: argument validation, seeds and labels."""

import numpy as np
import tensorflow as tf

from keras_bot.data.augment import geometry as image
from keras_bot.data.corrupt import tell
from keras_bot.data.sources.base import Source
from keras_bot.errors import MisuseError, RunError, unknown

RAM_BUDGET = 1024


def seed_at(seed: int, stream: int, place: tf.Tensor, share: int = 0) -> tf.Tensor:
    """Returns the stateless seed, int64 (2,), of one place in one stream of draws; both halves fit int32.

    Each share of a data set has its own streams.
    """
    words = (seed % 2**64, stream, share) if share else (seed % 2**64, stream)
    word = np.random.SeedSequence(words).generate_state(1)[0] >> 1
    return tf.stack([tf.constant(word, tf.int64), tf.cast(place, tf.int64)])


def one_hot(source: Source, keys: tuple, places: tf.Tensor, parts: tuple) -> tuple[tf.Tensor, tf.Tensor]:
    """Converts (images, labels (b,)) to (images, one-hot labels float32 (b, K)); a `Check` of `data.stream`.

    Labels outside 0..K-1, such as the -1 of a split without labels, raise in the graph; the message contains the name
    of the first such record.
    """

    def complain(names: np.ndarray, wrong: np.ndarray) -> None:
        raise RunError(
            f"{source.name}, {names[0].decode(errors='replace')}: expected a label of 0 to {source.num_classes - 1}, "
            f"received {wrong[0]}. Mend the labels, or set num_classes right."
        )

    images, labels = parts
    wrong = (labels < 0) | (labels >= source.num_classes)
    told = tell(complain, source, keys, tf.boolean_mask(places, wrong), tf.boolean_mask(labels, wrong))
    with tf.control_dependencies([told]):
        return images, tf.one_hot(labels, source.num_classes)


def check_form(dtype: str, transform: str = "plain", **at_least_one: int) -> None:
    """Raises MisuseError if one of these pipeline arguments is invalid."""
    if transform not in image.TRANSFORMS:
        raise unknown("transform", transform, image.TRANSFORMS)
    if dtype not in ("float32", "float16", "bfloat16"):
        raise unknown("dtype", dtype, ("float32", "float16", "bfloat16"))
    for name, value in at_least_one.items():
        if not isinstance(value, int | np.integer):
            raise MisuseError(f"Expected {name} as a whole number, received {value!r}.")
        if value < 1:
            raise MisuseError(f"Expected {name} >= 1, received {value}.")
