"""Evaluation input pipeline: each image once, in full batches, with sample weights that mask the padding."""

import tensorflow as tf

from keras_bot.data import decode
from keras_bot.data.augment import color
from keras_bot.data.augment import geometry as image
from keras_bot.data.batches import RAM_BUDGET, check_form, one_hot
from keras_bot.data.corrupt import CorruptLog
from keras_bot.data.sharding import eval_rows
from keras_bot.data.sources.base import Source
from keras_bot.data.stream import evaluation_batches
from keras_bot.errors import MisuseError


def eval_pipeline(
    source: Source,
    *,
    batch_size: int,
    image_size: int,
    transform: str = "imagenet",
    eval_crop: float = 0.875,
    corrupt: CorruptLog | None = None,
    cache: bool = False,
    scaled_decoding: bool = False,
    dtype: str = "float32",
    ram_budget: int = RAM_BUDGET,
    worker: int = 0,
    workers: int = 1,
    pad: bool = True,
) -> tf.data.Dataset:
    """Builds evaluation batches: (images (B, S, S, 3) normalised, labels float32 (B, K), weights float32 (B,)).

    With `pad` every batch is full, so that replicas share each equally. The weight is 1 for an image of the data set,
    and 0 for the padding of the last batch and for an image that cannot be decoded. Weighted means, such as Keras'
    `weighted_metrics`, therefore count every image exactly once on any number of replicas. Keras divides the loss by
    all rows of a batch instead. Without `pad` the last batch is smaller, images that cannot be decoded are left out
    and all weights are 1, so every loss and metric is exact.

    Args:
        source, batch_size, image_size, cache, dtype, ram_budget: as in `train_pipeline`.
        transform, eval_crop: see `image.eval_image`.
        corrupt: as in `train_pipeline`.
        scaled_decoding: whether to decode JPEGs at 1/2, 1/4 or 1/8 scale where they are that much larger than
            needed. This is faster for large photos but not exact.
        worker, workers: index of this worker and number of workers. The pipeline returns only this worker's
            B // workers consecutive rows of each batch. All workers have the same number of batches; a worker's last
            batch may contain only padding.
        pad: whether to fill every batch to B rows. Without it the number of batches is unknown if `corrupt` allows
            images to fail.

    Raises:
        MisuseError: an argument is out of range, B is not divisible by `workers`, or several workers without `pad`.
    """
    _check(eval_crop, dtype, transform, batch_size=batch_size, image_size=image_size, ram_budget=ram_budget)
    rows = eval_rows(batch_size, worker, workers)
    if workers > 1 and not pad:
        raise MisuseError(f"pad=False gives {workers} workers different numbers of batches. Use pad=True.")
    source = source.cached() if cache else source
    edge = image.eval_edge(image_size, eval_crop) if transform == "imagenet" else image_size

    def make(record: dict) -> tuple[tf.Tensor, tf.Tensor]:
        encoded = record["image"]
        picture = decode.decode_scaled(encoded, edge) if scaled_decoding else decode.decode(encoded)
        return image.eval_one(picture, image_size, transform, eval_crop), record["label"]

    def finish(parts: tuple, weights: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        images, targets = parts
        return color.fused_normalise(images, weights, dtype), targets, weights

    options = {"blank": (0, 0), "check": one_hot, "guarded": source.batches, "pad": pad}
    batches = evaluation_batches(source, rows, make, finish, **options, corrupt=corrupt, ram_budget=ram_budget)
    if pad or corrupt is None or source.in_memory:
        return batches
    return batches.filter(lambda images, labels, weights: tf.size(weights) > 0)  # batches without any decodable image


def preprocess_eval(images: tf.Tensor, image_size: int, transform: str, eval_crop: float = 0.875) -> tf.Tensor:
    """Applies the preprocessing of `eval_pipeline` to decoded images, for export with a model.

    Args:
        images: uint8 or float (B, H, W, 3), 0..255, of any size.
        image_size: S.
        transform, eval_crop: see `image.eval_image`.

    Returns:
        float32 (B, S, S, 3), normalised.
    """
    _check(eval_crop, "float32", transform, image_size=image_size)
    return color.normalise(image.eval_image(images, image_size, transform, eval_crop))


def _check(eval_crop: float, *form, **at_least_one: int) -> None:
    check_form(*form, **at_least_one)
    if not 0 < eval_crop <= 1:
        raise MisuseError(f"Expected 0 < eval_crop <= 1, received {eval_crop}.")
