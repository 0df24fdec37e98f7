"""RetinaNet on a keras_bot backbone: a feature pyramid P3 … P7, two convolutional heads, focal loss.

keras-cv's RetinaNet is not used: its pyramid and heads are fixed at 256 channels, it replaces `train_step`, decoding
needs images of one static size, and an object that no anchor overlaps by half contributes nothing to its training. The
tests check that anchors, deltas and focal loss equal keras-cv's.

Source: Lin et al. 2017, Focal Loss for Dense Object Detection.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf
from keras import layers

from keras_bot.errors import MisuseError
from keras_bot.tasks.detection import box_coding, losses
from keras_bot.tasks.detection.anchors import RATIOS, anchor_shapes, octave_sizes, pyramid_anchors
from keras_bot.tasks.detection.detector import Detector, DetectorSettings
from keras_bot.tasks.detection.fpn import check_backbone, pyramid

LEVELS = (3, 4, 5, 6, 7)
STRIDES = tuple(2**level for level in LEVELS)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RetinaNetSettings(DetectorSettings):
    """Keyword arguments of `RetinaNet`, where they are described."""

    channels: int = 256
    head_convs: int = 4
    anchor_scale: float = 4.0
    octaves: int = 3
    ratios: Sequence[float] = RATIOS
    box_weight: float = 1.0

    def __post_init__(self):
        """Raises MisuseError if a number is out of range."""
        if self.channels < 1 or self.head_convs < 0:
            raise MisuseError(
                "channels must be at least 1 and head_convs at least 0, "
                f"received {self.channels} and {self.head_convs}."
            )


@keras.saving.register_keras_serializable("keras_bot")
class RetinaNet(Detector):
    """Detector mapping normalised images (B, H, W, 3) to outputs for A anchors.

    The outputs are {"logits": float32 (B, A, K), "deltas": float32 (B, A, 4)}.

    The model trains with plain `compile(optimizer)` and `fit`. A batch is {"images", "boxes" (B, M, 4), "classes"
    (B, M)} or (images, {"boxes", "classes"}), optionally with "weights" (B,) or sample weights. Absent boxes have class
    -1. Boxes are y0, x0, y1, x1 in pixels. `predict_boxes` returns detections.

    Args:
        backbone: a Keras model of normalised images with the outputs "C3", "C4", "C5" (strides 8, 16, 32). Set
            trainability and batch norm behaviour on the backbone itself.
        num_classes: K >= 1; there is no background class.
        channels: width of the pyramid and the heads.
        head_convs: number of 3x3 convolutions in each head before the last one.
        anchor_scale: smallest anchor size of a level divided by its stride. Objects much smaller than 8 * anchor_scale
            pixels are hardly learnt; halve it for small images with small objects.
        octaves: anchor sizes per level.
        ratios: height / width of the anchors.
        box_weight: factor of the box loss.
        score_threshold, iou_threshold, max_detections: defaults of `predict_boxes`.
        candidates: maximum number of (anchor, class) pairs before non-maximum suppression.

    Raises:
        MisuseError: If an argument is out of range or the backbone lacks a level.
    """

    settings_class = RetinaNetSettings
    options: RetinaNetSettings

    def __init__(self, backbone: keras.Model, num_classes: int, **options: Any) -> None:
        super().__init__(backbone, num_classes, **options)
        check_backbone(backbone, ("C3", "C4", "C5"))
        self._sizes = octave_sizes(STRIDES, self.options.anchor_scale, self.options.octaves)
        shapes = len(anchor_shapes(self._sizes[0], self.options.ratios))
        self.network = _network(backbone, num_classes, shapes, self.options)
        self.class_loss = keras.metrics.Mean(name="class_loss")
        self.box_loss = keras.metrics.Mean(name="box_loss")
        self.built = True

    def anchors(self, height: tf.Tensor | int, width: tf.Tensor | int) -> tf.Tensor:
        """Returns all anchors of an image of that size, float32 (A, 4)."""
        levels = pyramid_anchors(height, width, STRIDES, self._sizes, self.options.ratios)
        return tf.concat(levels, axis=0)

    def compute_loss(
        self,
        x: tf.Tensor | dict[str, tf.Tensor] | None = None,
        y: dict[str, tf.Tensor] | None = None,
        y_pred: Any = None,
        sample_weight: tf.Tensor | None = None,
        training: bool = True,
    ) -> tf.Tensor:
        """Computes focal loss plus smooth L1, each summed and divided by the global batch's positive anchors."""
        images, boxes, classes, weights = losses.unpack_batch(x, y, sample_weight)
        anchors = self.anchors(tf.shape(images)[1], tf.shape(images)[2])
        matched = tf.stop_gradient(box_coding.match(anchors, boxes, classes, positive=0.5, negative=0.4, force=True))
        positive = tf.where(matched >= 0, weights[:, None], 0.0)
        counted = tf.where(matched != box_coding.IGNORED, weights[:, None], 0.0)
        index = tf.maximum(matched, 0)
        labels = tf.where(matched >= 0, tf.gather(classes, index, batch_dims=1), -1)
        terms = losses.focal(y_pred["logits"], tf.one_hot(labels, self.num_classes))
        targets = box_coding.encode(tf.gather(boxes, index, batch_dims=1), anchors)
        count = losses.at_least_one(tf.reduce_sum(positive))
        parts = {
            "class_loss": tf.reduce_sum(tf.reduce_sum(terms, axis=-1) * counted) / count,
            "box_loss": losses.box_loss(y_pred["deltas"], targets, positive) / count * self.options.box_weight,
        }
        return losses.total_loss(self, parts, {"class_loss": self.class_loss, "box_loss": self.box_loss})

    def candidates(
        self, outputs: dict[str, tf.Tensor], height: tf.Tensor, width: tf.Tensor, threshold: float
    ) -> tuple[tf.Tensor, ...]:
        """Returns likely boxes, scores and classes; see `Detector.candidates`."""
        likely = box_coding.best_candidates(tf.sigmoid(outputs["logits"]), self.options.candidates, threshold)
        scores, index, classes = likely
        anchors = tf.gather(self.anchors(height, width), index)
        return box_coding.decode(tf.gather(outputs["deltas"], index, batch_dims=1), anchors), scores, classes


def _network(backbone: keras.Model, num_classes: int, shapes: int, options: RetinaNetSettings) -> keras.Model:
    """Builds backbone, pyramid and heads as a functional model, with `shapes` anchors per position."""
    image = keras.Input((None, None, 3), name="image")
    maps = pyramid(backbone(image), first=LEVELS[0], last=LEVELS[-1], channels=options.channels, coarser="conv")
    prior = keras.initializers.Constant(-math.log((1 - 0.01) / 0.01))  # every anchor starts at p = 0.01
    outputs = {}
    for name, width, bias in (("logits", num_classes, prior), ("deltas", 4, "zeros")):
        head = _head(name, options, shapes * width, bias)
        flat = layers.Reshape((-1, width), dtype="float32", name=f"{name}_flat")
        outputs[name] = layers.Concatenate(axis=1, dtype="float32", name=name)([flat(head(x)) for x in maps.values()])
    return keras.Model(image, outputs, name="retinanet")


def _head(name: str, options: RetinaNetSettings, width: int, bias) -> keras.Model:
    x = inputs = keras.Input((None, None, options.channels))
    style = {"padding": "same", "activation": "relu", "kernel_initializer": "he_normal"}
    for i in range(options.head_convs):
        x = layers.Conv2D(options.channels, 3, **style, name=f"{name}_conv{i}")(x)
    init = keras.initializers.RandomNormal(stddev=0.01)
    last = layers.Conv2D(width, 3, padding="same", kernel_initializer=init, bias_initializer=bias, name=f"{name}_last")
    return keras.Model(inputs, last(x), name=f"{name}_head")
