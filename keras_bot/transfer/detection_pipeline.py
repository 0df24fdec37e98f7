"""From images with boxes to batches for a detection network.

    shuffle (file names) -> batch of (read, decode, cut and resize, flip, with their boxes) in uint8
    -> fill broken images' places -> colour and normalise in one map -> prefetch

Geometry is one window: a rectangle of the plane that the image lies in, which becomes the square of the network in a
single resize. A window smaller than the image is a crop (zoom in), one larger than it has padding (zoom out), as in
SSD's random crop and expansion. What the image doesn't cover is 0 after normalisation, that is the mean colour.

`resize` says which window shows the whole image. "letterbox": a square one as wide as the longer edge, so that the
aspect ratio is kept, as the paper's detectors keep it by resizing the shorter edge: anchors and pretrained filters
see shapes as they are. "stretch": the image itself, so that no pixel of the square is wasted but shapes change,
as in SSD; it suits images of one aspect ratio near 1.

Order and draws are functions of (seed, epoch, position) alone, as in `keras_bot.data.training`.
"""

import math

import tensorflow as tf

from keras_bot.data import color
from keras_bot.data.batches import RAM_BUDGET, check_form, seed_at, with_options
from keras_bot.data.corrupt import CorruptLog, fill_missing, guarded_batches, pad_missing
from keras_bot.data.worker_rows import eval_rows
from keras_bot.errors import MisuseError
from keras_bot.transfer import boxes as box_maths
from keras_bot.transfer.detection_source import DetectionSource
from keras_bot.transfer.detection_view import check_resize, eval_example, fused_window_map, shown, train_example

_ORDER, _GEOMETRY, _JITTER, _PCA = range(4)


def detection_train_pipeline(
    source: DetectionSource,
    *,
    batch_size: int,
    image_size: int,
    epochs: int,
    resize: str = "letterbox",
    flip: bool = True,
    min_zoom: float = 0.5,
    max_zoom: float = 2.0,
    min_visible: float = 0.3,
    color_jitter: float = 0.2,
    pca_noise: float = 0.1,
    max_boxes: int = 0,
    seed: int = 0,
    first_epoch: int = 0,
    first_step: int = 0,
    corrupt: CorruptLog | None = None,
    shuffle_buffer: int = 1024,
    dtype: str = "float32",
    ram_budget: int = RAM_BUDGET,
    worker: int = 0,
    workers: int = 1,
) -> tf.data.Dataset:
    """Batches for training: (images (B, S, S, 3) normalised, {"boxes": float32 (B, M, 4), "classes": int32 (B, M)}).

    Boxes are y0, x0, y1, x1 in pixels of the batch's images; rows of -1 fill up.

    Args:
        source: where the images come from.
        batch_size: B; an epoch has `source.size // B` steps and leaves out other images each time.
        image_size: S.
        epochs: the stream ends after epoch `epochs - 1`.
        resize: "letterbox" or "stretch", see above.
        flip: mirror left-right with probability 1/2.
        min_zoom, max_zoom: the image is log-uniformly so many times as large as `resize` makes it; 1, 1 is off. It is
            placed at random where it is smaller than the square; where it is larger, the window holds the middle
            of one box drawn at random, so that a zoom is no waste.
        min_visible: a box stays, clipped, if its middle is inside the window, or this part of its area.
        color_jitter, pca_noise: see `keras_bot.data.color`; 0 is off.
        max_boxes: M; 0 is the source's own largest number. Of an image with more boxes the last are left out.
        seed: any integer.
        first_epoch, first_step: where to start, counted from 0; the step is within that epoch.
        corrupt, shuffle_buffer, dtype, ram_budget: as in `keras_bot.data.train_pipeline`.
        worker, workers: give the rows of one of so many workers alone, B // workers of each batch.

    Raises:
        MisuseError: an argument is out of its range, or the batch is larger than the source.
    """
    at_least_one = {"batch_size": batch_size, "image_size": image_size, "shuffle_buffer": shuffle_buffer}
    _check(resize, dtype, **at_least_one, ram_budget=ram_budget)
    _check_training(source, batch_size, first_epoch, first_step, epochs)
    _check_augmentation(min_zoom, max_zoom, min_visible, color_jitter, pca_noise, max_boxes)
    rows, log, steps = eval_rows(batch_size, worker, workers), corrupt or CorruptLog(0), source.size // batch_size
    most = max_boxes or max(source.max_boxes, 1)

    def make(position: tf.Tensor, key: tuple) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        uniform = tf.random.stateless_uniform([5], seed_at(seed, _GEOMETRY, position))
        options = {"resize": resize, "flip": flip, "zooms": (min_zoom, max_zoom), "min_visible": min_visible}
        return train_example(shown(source, source.read(*key)), image_size, most, uniform, **options)

    def finish(keys: tuple, places: tf.Tensor, made: tuple) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        images, windows, targets = made
        batch = keys[0][0] // batch_size
        with tf.control_dependencies([log.report_missing(source, keys, places)]):
            packed = tf.concat([tf.reshape(targets, [-1, most * 5]), windows], axis=1)
            images, packed = fill_missing(images, packed, places, len(rows))
        targets = tf.reshape(packed[:, : most * 5], [-1, most, 5])
        targets = tf.where(tf.size(places) > 0, targets, float(box_maths.PADDING))
        seeds = tf.stack([seed_at(seed, stream, batch) for stream in (_JITTER, _PCA)])
        matrix, shift = rows.draws(color.draw_maps(batch_size, color_jitter, pca_noise, seeds))
        images = fused_window_map(images, packed[:, most * 5 :], matrix, shift, dtype)
        return images, {"boxes": targets[..., :4], "classes": tf.cast(targets[..., 4], tf.int32)}

    def positions(epoch: tf.Tensor) -> tf.data.Dataset:
        first = tf.where(epoch == first_epoch, tf.constant(first_step * batch_size, tf.int64), 0)
        order = seed_at(seed, _ORDER, epoch)
        return source.keys(order, shuffle_buffer, first).take(steps * batch_size - first)

    first_batch = first_epoch * steps + first_step
    keys = tf.data.Dataset.range(first_epoch, epochs).flat_map(positions).enumerate(first_batch * batch_size)
    batches = guarded_batches(rows.keys(keys), make, len(rows), drop_remainder=True)
    batches = batches.map(finish, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    batches = batches.apply(tf.data.experimental.assert_cardinality(epochs * steps - first_batch))
    return with_options(batches.prefetch(tf.data.AUTOTUNE), ram_budget)


def detection_eval_pipeline(
    source: DetectionSource,
    *,
    batch_size: int,
    image_size: int,
    resize: str = "letterbox",
    corrupt: CorruptLog | None = None,
    dtype: str = "float32",
    ram_budget: int = RAM_BUDGET,
    worker: int = 0,
    workers: int = 1,
) -> tf.data.Dataset:
    """Batches for evaluation, each image once and in order: (images, targets, weights float32 (B,)).

    The image is resized and nothing else; a letterbox pads below or to the right. Predicted boxes divided by "scale"
    (`boxes.scale` by 1 / scale) are in pixels of the original image; the truth to compare with is
    `source.annotations.of(index)`. The last batch is filled up with black images of weight 0, as are broken ones.

    Args:
        source, batch_size, image_size, resize, corrupt, dtype, ram_budget: as in `detection_train_pipeline`.
        worker, workers: as in `keras_bot.data.eval_pipeline`.

    Returns:
        images: (B, S, S, 3) normalised.
        targets: a dict of "boxes" float32 (B, M, 4) in pixels of the batch's images and "classes" int32 (B, M), both
            filled with -1, M the source's largest number; "difficult" bool (B, M); "index" int64 (B,), the image's
            place in the source, -1 for padding; "shape" int32 (B, 2), its original height and width; "scale"
            float32 (B, 2), factors down and across.

    Raises:
        MisuseError: an argument is out of its range, or the workers don't divide B.
    """
    _check(resize, dtype, batch_size=batch_size, image_size=image_size, ram_budget=ram_budget)
    rows, log = eval_rows(batch_size, worker, workers), corrupt or CorruptLog(0)
    most = max(source.max_boxes, 1)

    def make(position: tf.Tensor, key: tuple) -> tuple:
        del position
        return eval_example(source.read(*key), image_size, most, resize)

    def finish(keys: tuple, places: tf.Tensor, made: tuple) -> tuple:
        with tf.control_dependencies([log.report_missing(source, keys, places)]):
            parts = pad_missing((*made, tf.ones_like(places, tf.float32)), places, len(rows))
        images, windows, boxes, classes, difficult, index, shape, scale, weights = parts
        there = weights > 0
        targets = {
            "boxes": tf.where(there[:, None, None], boxes, float(box_maths.PADDING)),
            "classes": tf.where(there[:, None], classes, box_maths.PADDING),
            "difficult": difficult > 0,
            "index": tf.where(there, index, -1),
            "shape": shape,
            "scale": tf.where(there[:, None], scale, 1.0),
        }
        matrix, shift = color.draw_maps(len(rows), 0.0, 0.0, tf.zeros([2, 2], tf.int32))
        return fused_window_map(images, windows, matrix, shift, dtype), targets, weights

    keys = rows.keys(source.keys(None, 1).enumerate())
    batches = guarded_batches(keys, make, len(rows))
    batches = batches.map(finish, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    batches = rows.with_last(batches, source.size)
    batches = batches.apply(tf.data.experimental.assert_cardinality(-(-source.size // batch_size)))
    return with_options(batches.prefetch(tf.data.AUTOTUNE), ram_budget)


def _check(resize: str, dtype: str, **at_least_one: int) -> None:
    check_resize(resize)
    check_form("plain", dtype, **at_least_one)


def _check_training(source: DetectionSource, batch_size: int, first_epoch: int, first_step: int, epochs: int) -> None:
    if batch_size > source.size:
        raise MisuseError(
            f"Expected a batch no larger than the data set: {source.name} has {source.size} images, received "
            f"batch_size {batch_size}. Use a smaller batch."
        )
    if not 0 <= first_epoch <= epochs:
        raise MisuseError(f"Expected 0 <= first_epoch <= epochs, received {first_epoch} and {epochs}. Mend them.")
    steps = source.size // batch_size
    if not 0 <= first_step < steps or (first_step and first_epoch == epochs):
        raise MisuseError(f"Expected 0 <= first_step < {steps}, the steps of an epoch, received {first_step}. Mend it.")


def _check_augmentation(
    min_zoom: float, max_zoom: float, min_visible: float, color_jitter: float, pca_noise: float, max_boxes: int
) -> None:
    if not 0 < min_zoom <= max_zoom < math.inf or not 0 <= min_visible <= 1:
        raise MisuseError(
            "Expected 0 < min_zoom <= max_zoom and 0 <= min_visible <= 1, received "
            f"{min_zoom}, {max_zoom} and {min_visible}. Mend them."
        )
    if not 0 <= color_jitter <= 1 or pca_noise < 0 or max_boxes < 0:
        raise MisuseError(
            "Expected 0 <= color_jitter <= 1, pca_noise >= 0 and max_boxes >= 0, received "
            f"{color_jitter}, {pca_noise} and {max_boxes}. Mend them."
        )
