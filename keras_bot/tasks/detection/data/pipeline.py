"""Input pipelines for detection: batches of images with boxes. A training batch is made in this order:

    shuffled source -> read, decode, crop and resize, flip, with the boxes (uint8) -> replace corrupt images
    -> colour and normalise -> prefetch

The geometric augmentation is a single window: a rectangle in the image plane that one resize maps to the network's
square input. A window smaller than the image crops it (zoom in), and a larger one pads it (zoom out), as in SSD's
random crop and expansion. Padding is 0 after normalisation, which is the mean colour.

`resize` selects the window of the whole image. "letterbox" is a square as wide as the longer edge. It keeps the aspect
ratio, so anchors and pretrained filters see undistorted shapes; the paper's detectors keep it by resizing the shorter
edge. "stretch" is the image itself, as in SSD. It wastes no pixels of the square but distorts shapes, so it suits
images with a common aspect ratio near 1.

Order and random draws depend only on (seed, epoch, position), as in `keras_bot.data.stream`.
"""

import dataclasses
import math

import tensorflow as tf

from keras_bot.data.augment import color
from keras_bot.data.config import StreamConfig, TrainingStreamConfig, accept_keywords, check_whole
from keras_bot.data.stream import EvaluationStream, TrainingStream
from keras_bot.errors import MisuseError
from keras_bot.tasks.detection.box_ops import PADDING
from keras_bot.tasks.detection.data.source import DetectionSource
from keras_bot.tasks.detection.data.view import (
    check_resize,
    drop_difficult,
    eval_example,
    fused_window_map,
    train_example,
)

_EVAL_TARGETS = ("boxes", "classes", "difficult", "index", "shape", "scale")


@dataclasses.dataclass(frozen=True, kw_only=True)
class DetectionTrainConfig(TrainingStreamConfig):
    """Options of `detection_train_pipeline`.

    Attributes:
        image_size: S, height and width of the images.
        resize: "letterbox" or "stretch", see above.
        min_zoom, max_zoom: range of the log-uniform scale factor relative to the size from `resize`; 1, 1 disables
            zooming. An image smaller than the square is placed at random. In a larger image, the window contains the
            centre of one random box, so that it shows an object.
        min_visible: a box is kept, clipped, if the window contains its centre or this fraction of its area.
        max_boxes: M; 0 uses the source's maximum. Further boxes of an image are dropped from the end.
    """

    image_size: int
    resize: str = "letterbox"
    min_zoom: float = 0.5
    max_zoom: float = 2.0
    min_visible: float = 0.3
    color_jitter: float = 0.2
    max_boxes: int = 0
    shuffle_buffer: int = 1024

    def __post_init__(self):
        super().__post_init__()
        check_resize(self.resize)
        check_whole(image_size=self.image_size)
        if not 0 < self.min_zoom <= self.max_zoom < math.inf:
            raise MisuseError(
                f"min_zoom must be above 0 and at most max_zoom, received {self.min_zoom} and {self.max_zoom}."
            )
        if not 0 <= self.min_visible <= 1:
            raise MisuseError(f"min_visible must be from 0 to 1, received {self.min_visible}.")
        if self.max_boxes < 0:
            raise MisuseError(f"max_boxes must be at least 0, received {self.max_boxes}. 0 uses the source's maximum.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class DetectionEvalConfig(StreamConfig):
    """Options of `detection_eval_pipeline`.

    Attributes:
        image_size, resize: as in `DetectionTrainConfig`.
    """

    image_size: int
    resize: str = "letterbox"

    def __post_init__(self):
        super().__post_init__()
        check_resize(self.resize)
        check_whole(image_size=self.image_size)


@accept_keywords(DetectionTrainConfig)
def detection_train_pipeline(source: DetectionSource, config: DetectionTrainConfig) -> tf.data.Dataset:
    """Returns training batches (images (B, S, S, 3), {"boxes": float32 (B, M, 4), "classes": int32 (B, M)}).

    Images are normalised. Boxes are y0, x0, y1, x1 in pixels of the batch's images, padded with rows of -1.

    Raises:
        MisuseError: the batch is larger than the source, or `first_step` is not a step of an epoch.
    """
    stream = TrainingStream(source, config)
    max_boxes = config.max_boxes or max(source.max_boxes, 1)

    def decode_and_augment(record: dict, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        return train_example(
            drop_difficult(source, record),
            config.image_size,
            max_boxes,
            tf.random.stateless_uniform([5], seed),
            zooms=(config.min_zoom, config.max_zoom),
            resize=config.resize,
            flip=config.flip,
            min_visible=config.min_visible,
        )

    examples = stream.examples(decode_and_augment)

    def finish(keys: tuple, places: tf.Tensor, parts: tuple) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        parts = stream.report_corrupt(keys, places, parts)
        images, windows, targets = stream.fill_missing(parts, places, blank=(0, 0, PADDING))
        maps = stream.color_maps(stream.batch_number(keys))
        images = fused_window_map(images, windows, *maps, config.dtype)
        return images, {"boxes": targets[..., :4], "classes": tf.cast(targets[..., 4], tf.int32)}

    return stream.batches(examples, finish)


@accept_keywords(DetectionEvalConfig)
def detection_eval_pipeline(source: DetectionSource, config: DetectionEvalConfig) -> tf.data.Dataset:
    """Returns evaluation batches (images, targets, weights float32 (B,)), with each image once and in order.

    Images are only resized and normalised; a letterbox pads at the bottom or right. Predicted boxes divided by "scale"
    (`boxes.scale` by 1 / scale) are in pixels of the original image. Compare them with the ground truth
    `source.annotations.of(index)`. Images of weight 0 replace corrupt images and fill the last batch.

    Returns:
        images: (B, S, S, 3) normalised.
        targets: a dict of "boxes" float32 (B, M, 4) in pixels of the batch's images and "classes" int32 (B, M), both
            padded with -1, where M is the source's maximum; "difficult" bool (B, M); "index" int64 (B,), the image's
            index in the source, -1 for padding; "shape" int32 (B, 2), the original height and width; "scale"
            float32 (B, 2), the vertical and horizontal scale factors.
    """
    stream = EvaluationStream(source, config)
    max_boxes = max(source.max_boxes, 1)
    blank = (0, 0, PADDING, PADDING, False, -1, 0, 1)

    def decode_and_resize(record: dict) -> tuple:
        return eval_example(record, config.image_size, max_boxes, config.resize)

    examples = stream.examples(decode_and_resize)

    def finish(keys: tuple, places: tf.Tensor, parts: tuple) -> tuple:
        parts = stream.report_corrupt(keys, places, parts)
        images, windows, *targets, weights = stream.fill_missing(parts, places, blank)
        images = fused_window_map(images, windows, *color.draw_maps(1, 0.0, 0.0, None), config.dtype)
        return images, dict(zip(_EVAL_TARGETS, targets, strict=True)), weights

    return stream.batches(examples, finish)
