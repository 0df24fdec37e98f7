"""Input pipelines for detection: batches of images with boxes.

    shuffle (file names) -> batch of (read, decode, crop and resize, flip, with their boxes) in uint8
    -> replace broken images -> colour augmentation and normalisation in one map -> prefetch

The geometric augmentation is a single window: a rectangle in the image plane that one resize maps to the network's
square input. A window smaller than the image crops it (zoom in), and a larger one pads it (zoom out), as in SSD's
random crop and expansion. Padding is 0 after normalisation, which is the mean colour.

`resize` selects the window of the whole image. "letterbox" is a square as wide as the longer edge. It keeps the aspect
ratio, so anchors and pretrained filters see undistorted shapes; the paper's detectors keep it by resizing the shorter
edge. "stretch" is the image itself, as in SSD. It wastes no pixels of the square but distorts shapes, so it suits
images with a common aspect ratio near 1.

Order and random draws depend only on (seed, epoch, position), as in `keras_bot.data.stream`.
"""

import math

import tensorflow as tf

from keras_bot.data.augment import color
from keras_bot.data.batches import RAM_BUDGET, check_form
from keras_bot.data.corrupt import CorruptLog
from keras_bot.data.sharding import eval_rows
from keras_bot.data.stream import TrainingStream, evaluation_batches
from keras_bot.errors import MisuseError
from keras_bot.tasks.detection.boxes import PADDING
from keras_bot.tasks.detection.data.source import DetectionSource
from keras_bot.tasks.detection.data.view import check_resize, eval_example, fused_window_map, shown, train_example


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
    """Returns training batches (images (B, S, S, 3), {"boxes": float32 (B, M, 4), "classes": int32 (B, M)}).

    Images are normalised. Boxes are y0, x0, y1, x1 in pixels of the batch's images, padded with rows of -1.

    Args:
        source: image source.
        batch_size: B; an epoch has `source.size // B` steps, and the images left out differ between epochs.
        image_size: S.
        epochs: the stream ends after epoch `epochs - 1`.
        resize: "letterbox" or "stretch", see above.
        flip: flips left-right with probability 1/2.
        min_zoom, max_zoom: range of the log-uniform scale factor relative to the size from `resize`; 1, 1 disables
            zooming. An image smaller than the square is placed at random. In a larger image, the window contains the
            centre of one random box, so that it shows an object.
        min_visible: a box is kept, clipped, if the window contains its centre or this fraction of its area.
        color_jitter, pca_noise: see `keras_bot.data.augment.color`; 0 disables them.
        max_boxes: M; 0 uses the source's maximum. Further boxes of an image are dropped from the end.
        seed: any integer.
        first_epoch, first_step: start position, counted from 0; the step is within that epoch.
        corrupt, shuffle_buffer, dtype, ram_budget: as in `keras_bot.data.train_pipeline`.
        worker, workers: returns only this worker's rows, B // workers of each batch.

    Raises:
        MisuseError: an argument is out of range, or the batch is larger than the source.
    """
    check_resize(resize)
    at_least_one = {"batch_size": batch_size, "image_size": image_size, "shuffle_buffer": shuffle_buffer}
    check_form(dtype, **at_least_one, ram_budget=ram_budget)
    if not 0 < min_zoom <= max_zoom < math.inf or not 0 <= min_visible <= 1 or max_boxes < 0:
        raise MisuseError(
            "Expected 0 < min_zoom <= max_zoom, 0 <= min_visible <= 1 and max_boxes >= 0, received "
            f"{min_zoom}, {max_zoom}, {min_visible} and {max_boxes}. Mend them."
        )
    rows = eval_rows(batch_size, worker, workers)
    stream = TrainingStream(source, rows, epochs, seed, first_epoch, first_step, color_jitter, pca_noise)
    most = max_boxes or max(source.max_boxes, 1)

    def make(record: dict, at: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        uniform = tf.random.stateless_uniform([5], at)
        options = {"resize": resize, "flip": flip, "zooms": (min_zoom, max_zoom), "min_visible": min_visible}
        return train_example(shown(source, record), image_size, most, uniform, **options)

    def finish(parts: tuple, maps: tuple, _: tf.Tensor) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        images, windows, targets = parts
        images = fused_window_map(images, windows, *maps, dtype)
        return images, {"boxes": targets[..., :4], "classes": tf.cast(targets[..., 4], tf.int32)}

    options = {"blank": (0, 0, PADDING), "shuffle_buffer": shuffle_buffer}
    return stream.batches(make, finish, **options, corrupt=corrupt, ram_budget=ram_budget)


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
    """Returns evaluation batches (images, targets, weights float32 (B,)), with each image once and in order.

    Images are only resized and normalised; a letterbox pads at the bottom or right. Predicted boxes divided by "scale"
    (`boxes.scale` by 1 / scale) are in pixels of the original image. Compare them with the ground truth
    `source.annotations.of(index)`. Images of weight 0 replace broken images and fill the last batch.

    Args:
        source, batch_size, image_size, resize, corrupt, dtype, ram_budget: as in `detection_train_pipeline`.
        worker, workers: as in `keras_bot.data.eval_pipeline`.

    Returns:
        images: (B, S, S, 3) normalised.
        targets: a dict of "boxes" float32 (B, M, 4) in pixels of the batch's images and "classes" int32 (B, M), both
            padded with -1, where M is the source's maximum; "difficult" bool (B, M); "index" int64 (B,), the image's
            index in the source, -1 for padding; "shape" int32 (B, 2), the original height and width; "scale"
            float32 (B, 2), the vertical and horizontal scale factors.

    Raises:
        MisuseError: an argument is out of range, or B is not divisible by `workers`.
    """
    check_resize(resize)
    check_form(dtype, batch_size=batch_size, image_size=image_size, ram_budget=ram_budget)
    rows = eval_rows(batch_size, worker, workers)
    most = max(source.max_boxes, 1)
    names = ("boxes", "classes", "difficult", "index", "shape", "scale")
    blank = (0, 0, PADDING, PADDING, False, -1, 0, 1)

    def make(record: dict) -> tuple:
        return eval_example(record, image_size, most, resize)

    def finish(parts: tuple, weights: tf.Tensor) -> tuple:
        images, windows, *targets = parts
        images = fused_window_map(images, windows, *color.draw_maps(1, 0.0, 0.0, None), dtype)
        return images, dict(zip(names, targets, strict=True)), weights

    return evaluation_batches(source, rows, make, finish, blank=blank, corrupt=corrupt, ram_budget=ram_budget)
