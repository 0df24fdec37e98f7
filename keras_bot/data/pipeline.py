"""The input pipeline in one call, for use with any `model.fit`."""

import os
from collections.abc import Callable

import tensorflow as tf

from keras_bot.data.eval_pipeline import eval_pipeline
from keras_bot.data.sources.base import Source
from keras_bot.data.sources.lookup import open_source
from keras_bot.data.train_pipeline import train_pipeline
from keras_bot.errors import MisuseError


def pipeline(
    dataset: str | os.PathLike | Source,
    split: str = "train",
    *,
    batch_size: int,
    image_size: int = 224,
    epochs: int | None = None,
    data_dir: str | None = None,
    num_classes: int = 0,
    tfds_split: str = "",
    first_label: int = 0,
    read_config=None,
    **options,
) -> tf.data.Dataset:
    """Builds the paper's input pipeline (2.1) as a `tf.data.Dataset`, to use as it is or with further `map`s.

        train = keras_bot.data.pipeline("photos", batch_size=64, epochs=20)
        held_out = keras_bot.data.pipeline("photos", "eval", batch_size=64)
        model.fit(train, epochs=20, steps_per_epoch=len(train) // 20, validation_data=held_out)

    One training stream covers all epochs, since each has its own order and augmentations. Pass the number of steps per
    epoch to `fit`.

    Args:
        dataset: the `dataset` argument of `open_source` (a folder, a TFDS name, TFRecord shards, an .npz file,
            "synthetic"), or a `Source`.
        split: "train" or "eval".
        batch_size: images per batch.
        image_size: height and width of the images.
        epochs: number of epochs in the stream; required for "train", not allowed for "eval", which is one pass.
        data_dir, num_classes, tfds_split, first_label, read_config: see `open_source`; not allowed with a `Source`.
        **options: other arguments of `train_pipeline` or `eval_pipeline`: transform, seed, color_jitter, first_epoch,
            first_step, cache, dtype, corrupt, pad, …

    Returns:
        "train": (images (B, S, S, 3) normalised, one-hot labels float32 (B, K)); "eval": the same and weights float32
        (B,). By default the last batch of "eval" is smaller, all weights are 1, and Keras' `evaluate` returns the exact
        mean of any loss and metric. With several replicas or workers, batches are padded (`pad`), and the weights, >= 1
        for images and 0 for padding, make the loss of `evaluate` exact. This holds for Keras' default reduction
        ("sum_over_batch_size") if every image can be decoded, as a corrupt one counts with a loss of 0. For anything
        else use `weighted_metrics`, which are exact.

    Raises:
        MisuseError: there is no such data set, or an argument is out of range.
        TypeError: the pipeline has no such option.
    """
    if split not in ("train", "eval"):
        raise MisuseError(f"Expected split 'train' or 'eval', received {split!r}.")
    if (epochs is None) == (split == "train"):
        raise MisuseError(f"Expected epochs for the split 'train' and for no other, received {epochs} for {split!r}.")
    where = {"data_dir": data_dir, "num_classes": num_classes, "tfds_split": tfds_split}
    where |= {"first_label": first_label, "read_config": read_config}
    if isinstance(dataset, Source):
        given = [name for name, value in where.items() if value]
        if given:
            raise MisuseError(f"Expected no {', '.join(given)} with an opened Source. Give it to open_source.")
        source = dataset
    else:
        source = open_source(dataset, split, image_size=image_size, **where)
    if split == "train":
        return train_pipeline(source, batch_size=batch_size, image_size=image_size, epochs=epochs, **options)
    pad = options.pop("pad", tf.distribute.get_strategy().num_replicas_in_sync > 1 or options.get("workers", 1) > 1)
    batches = eval_pipeline(source, batch_size=batch_size, image_size=image_size, pad=pad, **options)
    return batches.map(_spread_over(source.size, batch_size)) if pad else batches


def _spread_over(size: int, batch_size: int) -> Callable:
    """Returns a map that scales the weights for Keras' mean over all rows, padding included, not weighted metrics."""
    share = -(-size // batch_size) * batch_size / size
    return lambda images, labels, weights: (images, labels, weights * share)
