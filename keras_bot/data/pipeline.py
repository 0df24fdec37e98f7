"""Input pipelines for classification. A training batch is made in this order:

    shuffled source -> read, decode, crop, flip (uint8) -> one-hot -> replace corrupt images -> colour and normalise
    -> smooth and mix (`batch_transform`) -> prefetch

Order and random draws come from `data.stream`, so a run can start at any step. Options are described in `data.config`.
"""

import dataclasses
import os
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from keras_bot.data import decode
from keras_bot.data.augment import color, geometry
from keras_bot.data.config import (
    BatchTransform,
    EvalConfig,
    TrainConfig,
    accept_keywords,
    check_names,
    field_names,
)
from keras_bot.data.corrupt import call_for_rows
from keras_bot.data.sources.base import Source
from keras_bot.data.sources.factory import SourceOptions, open_source
from keras_bot.data.stream import EvaluationStream, TrainingStream
from keras_bot.errors import MisuseError, RunError


@accept_keywords(TrainConfig)
def train_pipeline(source: Source, config: TrainConfig) -> tf.data.Dataset:
    """Builds training batches: (images (B, S, S, 3) normalised, labels float32 (B, K)).

    Raises:
        MisuseError: the batch is larger than the source, or `first_step` is not a step of an epoch.
    """
    if config.transform == "plain":
        config = dataclasses.replace(config, color_jitter=0.0, pca_noise=0.0)
    source = source.cached() if config.cache else source
    stream = TrainingStream(source, config)

    def decode_and_augment(record: dict, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        image = geometry.train_image(
            record["image"],
            config.image_size,
            config.transform,
            seed,
            flip=config.flip,
            min_area=config.min_area,
            crop_padding=config.crop_padding,
        )
        return image, record["label"]

    examples = stream.examples(decode_and_augment, source.batches)

    def finish(keys: tuple, places: tf.Tensor, parts: tuple) -> tuple:
        images, labels = stream.report_corrupt(keys, places, parts)
        labels = one_hot(source, keys, places, labels)
        images, labels = stream.fill_missing((images, labels), places, blank=(0, 0))
        number, rows = stream.batch_number(keys), len(stream.rows)
        seeds, epochs = tf.tile(stream.batch_seed(number)[None], [rows, 1]), tf.fill([rows], number // stream.steps)
        inputs = images, *stream.color_maps(number), seeds, epochs
        if config.augment_on == "device":
            return inputs, labels
        return finish_batch(inputs, labels, config.batch_transform, config.dtype, apply_map=color.fused_map)

    return stream.batches(examples, finish)


def finish_batch(
    inputs: tuple,
    labels: tf.Tensor,
    batch_transform: BatchTransform | None = None,
    dtype: str = "float32",
    apply_map: Callable = color.apply_map,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Applies colour, normalisation and `batch_transform`; called by the training step if `augment_on="device"`.

    Args:
        inputs: images uint8 (B, S, S, 3); the colour map's matrix (B, 3, 3) and shift (B, 3); seed int32 (B, 2)
            and epoch int64 (B,) of the batch, repeated in every row so that the batch can be split over replicas.
        labels: float32 (B, K).
        batch_transform, dtype: as in `TrainConfig`.
        apply_map: function that applies the colour map.

    Returns:
        The elements of `train_pipeline` with `augment_on="host"`. Each replica's batch is transformed separately.
    """
    images, matrix, shift, seed, epoch = inputs
    images = apply_map(images, matrix, shift, dtype)
    if batch_transform is None:
        return images, labels
    return batch_transform(images, labels, seed[0], epoch[0])


@accept_keywords(EvalConfig)
def eval_pipeline(source: Source, config: EvalConfig) -> tf.data.Dataset:
    """Builds evaluation batches: (images (B, S, S, 3) normalised, labels float32 (B, K), weights float32 (B,)).

    With `pad` every batch is full, so that replicas share each equally. The weight is 1 for an image of the data set,
    and 0 for the padding of the last batch and for an image that cannot be decoded. Weighted means, such as Keras'
    `weighted_metrics`, therefore count every image exactly once on any number of replicas. Keras divides the loss by
    all rows of a batch instead. Without `pad` the last batch is smaller, images that cannot be decoded are left out
    and all weights are 1, so every loss and metric is exact.
    """
    size, transform, eval_crop = config.image_size, config.transform, config.eval_crop
    source = source.cached() if config.cache else source
    stream = EvaluationStream(source, config)
    edge = geometry.eval_edge(size, eval_crop) if transform == "imagenet" else size

    def decode_and_crop(record: dict) -> tuple[tf.Tensor, tf.Tensor]:
        encoded = record["image"]
        image = decode.decode_scaled(encoded, edge) if config.scaled_decoding else decode.decode(encoded)
        return geometry.eval_one(image, size, transform, eval_crop), record["label"]

    examples = stream.examples(decode_and_crop, source.batches)

    def finish(keys: tuple, places: tf.Tensor, parts: tuple) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        images, labels = stream.report_corrupt(keys, places, parts)
        labels = one_hot(source, keys, places, labels)
        weights = tf.ones_like(places, tf.float32)
        if config.pad:
            images, labels, weights = stream.fill_missing((images, labels), places, blank=(0, 0))
        return color.fused_normalise(images, weights, config.dtype), labels, weights

    batches = stream.batches(examples, finish)
    if config.pad or config.corrupt is None or source.in_memory:
        return batches
    return batches.filter(lambda images, labels, weights: tf.size(weights) > 0)  # batches without any decodable image


def preprocess_eval(images: tf.Tensor, image_size: int, transform: str, eval_crop: float = 0.875) -> tf.Tensor:
    """Applies the preprocessing of `eval_pipeline` to decoded images, for export with a model.

    Args:
        images: uint8 or float (B, H, W, 3), 0..255, of any size.
        image_size: S.
        transform, eval_crop: see `geometry.eval_image`.

    Returns:
        float32 (B, S, S, 3), normalised.
    """
    EvalConfig(batch_size=1, image_size=image_size, transform=transform, eval_crop=eval_crop)  # validates them
    return color.normalise(geometry.eval_image(images, image_size, transform, eval_crop))


def one_hot(source: Source, keys: tuple, places: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """Converts the labels (b,) of a batch of `data.stream` to one-hot labels float32 (b, K).

    Labels outside 0..K-1, such as the -1 of a split without labels, raise in the graph; the message contains the name
    of the first such record.
    """

    def complain(names: np.ndarray, wrong: np.ndarray) -> None:
        raise RunError(
            f"{source.name}, {names[0].decode(errors='replace')}: the label {wrong[0]} is not in "
            f"0..{source.num_classes - 1}. Fix the labels, or set num_classes to the number of classes."
        )

    is_wrong = (labels < 0) | (labels >= source.num_classes)
    wrong = tf.boolean_mask(labels, is_wrong)
    checked = call_for_rows(complain, source, keys, tf.boolean_mask(places, is_wrong), wrong)
    with tf.control_dependencies([checked]):
        return tf.one_hot(labels, source.num_classes)


def pipeline(
    dataset: str | os.PathLike | Source,
    split: str = "train",
    *,
    batch_size: int,
    image_size: int = 224,
    epochs: int | None = None,
    **options: Any,
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
        **options: other fields of `TrainConfig` or `EvalConfig` (transform, seed, color_jitter, first_epoch,
            first_step, cache, dtype, corrupt, pad, …) and, unless `dataset` is a `Source`, of `SourceOptions`
            (data_dir, num_classes, tfds_split, first_label, read_config, …).

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
        raise MisuseError(f"split must be 'train' or 'eval', received {split!r}.")
    if (epochs is None) == (split == "train"):
        raise MisuseError(f"epochs is required for 'train' and invalid for 'eval', received {epochs} for {split!r}.")
    config_class = TrainConfig if split == "train" else EvalConfig
    check_names("data.pipeline", options, {*field_names(config_class), *field_names(SourceOptions)})
    source_options = {name: options.pop(name) for name in field_names(SourceOptions) if name in options}
    options |= {"batch_size": batch_size, "image_size": image_size}
    source = _source(dataset, split, {**source_options, "image_size": image_size})
    if epochs is not None:
        return train_pipeline(source, TrainConfig(epochs=epochs, **options))
    pad = tf.distribute.get_strategy().num_replicas_in_sync > 1 or options.get("workers", 1) > 1
    config = EvalConfig(**{"pad": pad, **options})
    batches = eval_pipeline(source, config)
    return batches.map(_spread_over(source.size, batch_size)) if config.pad else batches


def _source(dataset: str | os.PathLike | Source, split: str, options: dict) -> Source:
    """Returns the source, opened with the options of `open_source` unless it is one already."""
    if not isinstance(dataset, Source):
        return open_source(dataset, split, **options)
    misplaced = [name for name, value in options.items() if value and name != "image_size"]
    if misplaced:
        raise MisuseError(f"{', '.join(misplaced)} can't be combined with an opened Source. Pass it to open_source.")
    return dataset


def _spread_over(size: int, batch_size: int) -> Callable:
    """Returns a map that scales the weights for Keras' mean over all rows, padding included, not weighted metrics."""
    share = -(-size // batch_size) * batch_size / size
    return lambda images, labels, weights: (images, labels, weights * share)
