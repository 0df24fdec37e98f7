"""What both pipelines share: the ranges of their arguments, seeds, labels, and tf.data's options."""

import numpy as np
import tensorflow as tf

from keras_bot.data import image
from keras_bot.data.source import Source
from keras_bot.errors import MisuseError, RunError, unknown

RAM_BUDGET = 1024


def seed_at(seed: int, stream: int, place: tf.Tensor, share: int = 0) -> tf.Tensor:
    """The stateless seed, int64 (2,), of one place in one stream of draws; both halves fit int32.

    Each share of a set has streams of its own.
    """
    words = (seed % 2**64, stream, share) if share else (seed % 2**64, stream)
    word = np.random.SeedSequence(words).generate_state(1)[0] >> 1
    return tf.stack([tf.constant(word, tf.int64), tf.cast(place, tf.int64)])


def one_hot(labels: tf.Tensor, source: Source, keys: tuple, places: tf.Tensor) -> tf.Tensor:
    """float32 (b, K) of labels (b,).

    Labels outside 0..K-1, such as the -1 of a split without labels, raise in the graph; the message names the first
    record that has one.

    Args:
        labels: of the records that could be made.
        source: of the records.
        keys, places: as `guarded_batches` returns them.
    """

    def complain(names: np.ndarray, wrong: np.ndarray) -> None:
        raise RunError(
            f"{source.name}, {names[0].decode(errors='replace')}: expected a label of 0 to {source.num_classes - 1}, "
            f"received {wrong[0]}. Mend the labels, or set num_classes right."
        )

    right = (labels >= 0) & (labels < source.num_classes)

    def tell() -> tf.Tensor:
        wrong = tf.logical_not(right)
        names = source.record_name(*(tf.boolean_mask(tf.gather(part, places), wrong) for part in keys[1]))
        return tf.ensure_shape(tf.numpy_function(complain, [names, tf.boolean_mask(labels, wrong)], tf.bool), [])

    with tf.control_dependencies([tf.cond(tf.reduce_all(right), lambda: tf.constant(True), tell)]):
        return tf.one_hot(labels, source.num_classes)


def with_options(dataset: tf.data.Dataset, ram_budget: int) -> tf.data.Dataset:
    """The data set with what tf.data tunes by itself bounded: `ram_budget` MiB for all its buffers together.

    One thread an operation: images and batches keep the cores busy, and sharing out an image's pixels costs 4 %.
    """
    options = tf.data.Options()
    options.autotune.ram_budget = ram_budget * 2**20
    options.threading.max_intra_op_parallelism = 1
    return dataset.with_options(options)


def check_form(transform: str, dtype: str, **at_least_one: int) -> None:
    """MisuseError unless these arguments of a pipeline can be."""
    if transform not in image.TRANSFORMS:
        raise unknown("transform", transform, image.TRANSFORMS)
    if dtype not in ("float32", "float16", "bfloat16"):
        raise unknown("dtype", dtype, ("float32", "float16", "bfloat16"))
    for name, value in at_least_one.items():
        if not isinstance(value, int | np.integer):
            raise MisuseError(f"Expected {name} as a whole number, received {value!r}.")
        if value < 1:
            raise MisuseError(f"Expected {name} >= 1, received {value}.")


def check_eval_crop(eval_crop: float) -> None:
    """MisuseError unless it is a part of the shorter edge."""
    if not 0 < eval_crop <= 1:
        raise MisuseError(f"Expected 0 < eval_crop <= 1, received {eval_crop}.")
