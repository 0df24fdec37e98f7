"""What both pipelines share: the ranges of their arguments, seeds, labels, and tf.data's options."""

import numpy as np
import tensorflow as tf

from keras_bot.data import image
from keras_bot.data.source import Source
from keras_bot.errors import MisuseError, unknown

RAM_BUDGET = 1024


def seed_at(seed: int, stream: int, place: tf.Tensor) -> tf.Tensor:
    """The stateless seed, int64 (2,), of one place in one stream of draws; both halves fit int32."""
    word = np.random.SeedSequence((seed % 2**64, stream)).generate_state(1)[0] >> 1
    return tf.stack([tf.constant(word, tf.int64), tf.cast(place, tf.int64)])


def one_hot(labels: tf.Tensor, source: Source) -> tf.Tensor:
    """float32 (B, K). Labels outside 0..K-1, such as the -1 of a split without labels, raise in the graph."""
    right = tf.reduce_all((labels >= 0) & (labels < source.num_classes))
    message = f"Expected labels 0..{source.num_classes - 1} in {source.name}, received"
    with tf.control_dependencies([tf.debugging.Assert(right, [message, labels])]):
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
        if value < 1:
            raise MisuseError(f"Expected {name} >= 1, received {value}.")


def check_eval_crop(eval_crop: float) -> None:
    """MisuseError unless it is a part of the shorter edge."""
    if not 0 < eval_crop <= 1:
        raise MisuseError(f"Expected 0 < eval_crop <= 1, received {eval_crop}.")
