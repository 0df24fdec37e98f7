"""Faster R-CNN on a keras_bot backbone, the paper's detector (section 6.1), on C4 or on a feature pyramid.

    "c4"    regions are proposed and pooled on C4 (stride 16); the head is the backbone's last stage and average pooling
    "fpn"   regions are proposed on P2 … P6 and pooled from P2 … P5; the head is two dense layers

keras-cv's Faster R-CNN is not used: it isn't in the public API, has one width, and replaces `train_step`. Sources: Ren
et al. 2015; Lin et al. 2017 (FPN). Where the paper gives no value, the settings are GluonCV's for VOC (RoIAlign 14x14
on C4, 128 regions per image, class-wise deltas with standard deviations 0.1, 0.1, 0.2, 0.2).
"""

import dataclasses
import numbers
from collections.abc import Iterable, Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_bot.errors import MisuseError, unknown
from keras_bot.tasks.detection import box_coding, losses, roi
from keras_bot.tasks.detection.anchors import RATIOS, anchor_shapes, octave_sizes, pyramid_anchors
from keras_bot.tasks.detection.detector import Detector, DetectorSettings
from keras_bot.tasks.detection.fpn import check_backbone
from keras_bot.tasks.detection.stages import c4_stages, fpn_stages

NECKS = ("c4", "fpn")
C4_SIZES = ((32.0, 64.0, 128.0, 256.0, 512.0),)
PARTS = ("rpn_class_loss", "rpn_box_loss", "class_loss", "box_loss")
RPN_STREAM, ROI_STREAM = range(2)


@dataclasses.dataclass(frozen=True, kw_only=True)
class FasterRCNNSettings(DetectorSettings):
    """Keyword arguments of `FasterRCNN`, where they are described."""

    neck: str = "fpn"
    channels: int = 256
    head_units: int = 1024
    anchor_sizes: Sequence | None = None
    ratios: Sequence[float] = RATIOS
    rpn_samples: int = 256
    roi_samples: int = 128
    proposals: int = 300
    seed: int = 0

    def __post_init__(self):
        """Raises MisuseError if the neck is unknown or a number is out of range."""
        if self.neck not in NECKS:
            raise unknown("neck", self.neck, NECKS)
        counts = ("channels", "head_units", "rpn_samples", "roi_samples", "proposals", "candidates", "max_detections")
        for name in counts:
            if getattr(self, name) < 1:
                raise MisuseError(f"{name} must be at least 1, received {getattr(self, name)}.")

    @property
    def strides(self) -> tuple[int, ...]:
        """Strides of the levels that have anchors."""
        return (16,) if self.neck == "c4" else (4, 8, 16, 32, 64)

    def sizes(self) -> tuple[tuple[float, ...], ...]:
        """Returns the anchor sizes of each level. Raises MisuseError if `anchor_sizes` does not fit the levels."""
        if self.anchor_sizes is None:
            return C4_SIZES if self.neck == "c4" else octave_sizes(self.strides, 8.0)
        levels = [self.anchor_sizes] if self.neck == "c4" else self.anchor_sizes
        if not all(isinstance(level, Iterable) and all(map(_is_number, level)) for level in levels):
            form = "a sequence of numbers" if self.neck == "c4" else "one sequence of numbers per level"
            raise MisuseError(f"anchor_sizes must be {form} for neck={self.neck!r}, received {self.anchor_sizes}.")
        sizes = tuple(tuple(level) for level in levels)
        if len(sizes) != len(self.strides) or len({len(level) for level in sizes}) != 1:
            raise MisuseError(
                f"anchor_sizes must contain one sequence for each of {len(self.strides)} levels, all of the same "
                f"length, received {sizes}."
            )
        return sizes


def _is_number(value):
    return isinstance(value, numbers.Real)


@keras.saving.register_keras_serializable("keras_bot")
class FasterRCNN(Detector):
    """Detector mapping normalised images (B, H, W, 3) to a dict of first-stage outputs.

    The dict has "objectness" (B, A), "deltas" (B, A, 4) and the feature maps "P2" … "P6" or "C4".

    The model trains with plain `compile(optimizer)` and `fit`. A batch is {"images", "boxes" (B, M, 4), "classes"
    (B, M)} or (images, {"boxes", "classes"}), optionally with "weights" (B,) or sample weights. Absent boxes have class
    -1. Boxes are y0, x0, y1, x1 in pixels. The second stage runs inside `compute_loss` and `predict_boxes`, because its
    inputs are regions. Sampling is a function of the seed and the optimizer step. XLA cannot compile this model.

    Args:
        backbone: a Keras model of normalised images with the outputs "C2" … "C5" (strides 4 … 32). Set trainability and
            batch norm behaviour on the backbone itself. "c4" needs a functional model, which is split at C4.
        num_classes: K >= 1, without the background.
        neck: "fpn" or "c4".
        channels: width of the pyramid ("fpn") and of the RPN.
        head_units: width of the two dense layers ("fpn").
        anchor_sizes: square roots of the anchor areas in pixels; None means 8 times the stride at each level ("fpn")
            or 32 … 512 ("c4"). For "fpn", one sequence per level, P2 … P6.
        ratios: height / width of the anchors.
        rpn_samples, roi_samples: anchors and regions sampled per image for the losses.
        proposals: maximum number of regions per image passed to the second stage.
        candidates: maximum number of regions per level before non-maximum suppression.
        score_threshold, iou_threshold, max_detections: defaults of `predict_boxes`.
        seed: for sampling anchors and regions.

    Raises:
        MisuseError: If an argument is out of range, or the backbone lacks a level or can't be split at C4.
    """

    settings_class = FasterRCNNSettings
    options: FasterRCNNSettings

    def __init__(self, backbone: keras.Model, num_classes: int, **options: Any) -> None:
        super().__init__(backbone, num_classes, **options)
        neck, channels, units = self.options.neck, self.options.channels, self.options.head_units
        check_backbone(backbone, ("C4", "C5") if neck == "c4" else ("C2", "C3", "C4", "C5"))
        self._sizes = self.options.sizes()
        shapes = len(anchor_shapes(self._sizes[0], self.options.ratios))
        if neck == "c4":
            stages = c4_stages(backbone, num_classes, shapes=shapes, channels=channels)
        else:
            stages = fpn_stages(backbone, num_classes, shapes=shapes, channels=channels, units=units)
        self.network, self.roi_head = stages
        self.trackers = {name: keras.metrics.Mean(name=name) for name in PARTS}
        self.supports_jit = False  # regions are grouped by level and cropped by an op that XLA lacks
        self.built = True

    def anchors(self, height: tf.Tensor | int, width: tf.Tensor | int) -> list[tf.Tensor]:
        """Returns the anchors of an image of that size, float32 (A_l, 4) per level."""
        return pyramid_anchors(height, width, self.options.strides, self._sizes, self.options.ratios)

    def compute_loss(
        self,
        x: tf.Tensor | dict[str, tf.Tensor] | None = None,
        y: dict[str, tf.Tensor] | None = None,
        y_pred: Any = None,
        sample_weight: tf.Tensor | None = None,
        training: bool = True,
    ) -> tf.Tensor:
        """Computes the four losses, each averaged over the anchors or regions sampled in the global batch."""
        images, boxes, classes, weights = losses.unpack_batch(x, y, sample_weight)
        height, width = tf.shape(images)[1], tf.shape(images)[2]
        anchors = self.anchors(height, width)
        regions, scores = self._propose(y_pred, anchors, height, width)
        parts = self._rpn_losses(y_pred, tf.concat(anchors, axis=0), boxes, classes, weights)
        parts.update(self._roi_losses(y_pred, regions, scores, boxes, classes, weights, training))
        return losses.total_loss(self, parts, self.trackers)

    def candidates(
        self, outputs: dict[str, tf.Tensor], height: tf.Tensor, width: tf.Tensor, threshold: float
    ) -> tuple[tf.Tensor, ...]:
        """Returns likely boxes, scores and classes; see `Detector.candidates`."""
        regions, present = self._propose(outputs, self.anchors(height, width), height, width)
        logits, deltas = self._second_stage(outputs, regions, training=False)
        probabilities = tf.nn.softmax(logits)[..., : self.num_classes]
        probabilities = tf.where((present > float("-inf"))[..., None], probabilities, -1.0)
        scores, index, classes = box_coding.best_candidates(probabilities, self.options.candidates, threshold)
        deltas = tf.reshape(deltas, [tf.shape(deltas)[0], -1, 4])
        deltas = tf.gather(deltas, index * self.num_classes + classes, batch_dims=1)
        return box_coding.decode(deltas, tf.gather(regions, index, batch_dims=1)), scores, classes

    def _propose(self, outputs, anchors, height, width):
        limits = {"candidates": self.options.candidates, "limit": self.options.proposals}
        return roi.propose(outputs["objectness"], outputs["deltas"], anchors, (height, width), **limits)

    def _second_stage(self, outputs, regions, training):
        """Returns class logits (B, N, K + 1), background last, and deltas (B, N, K, 4) for regions (B, N, 4)."""
        c4 = self.options.neck == "c4"
        maps = {4: outputs["C4"]} if c4 else {level: outputs[f"P{level}"] for level in range(2, 6)}
        head = self.roi_head(roi.align(maps, regions, 14 if c4 else 7), training=training)
        batch, number = tf.shape(regions)[0], tf.shape(regions)[1]
        logits = tf.reshape(head["logits"], [batch, number, self.num_classes + 1])
        return logits, tf.reshape(head["deltas"], [batch, number, self.num_classes, 4])

    def _seed(self, stream):
        optimizer = getattr(self, "optimizer", None)
        step = 0 if optimizer is None else tf.cast(tf.convert_to_tensor(optimizer.iterations), tf.int32)
        return tf.stack([self.options.seed * 2 + stream, step])

    def _rpn_losses(self, outputs, anchors, boxes, classes, weights):
        matched = tf.stop_gradient(box_coding.match(anchors, boxes, classes, positive=0.7, negative=0.3, force=True))
        positive, negative = roi.sample(matched, self.options.rpn_samples, 0.5, self._seed(RPN_STREAM))
        sampled = tf.where(positive | negative, weights[:, None], 0.0)
        terms = tf.nn.sigmoid_cross_entropy_with_logits(tf.cast(positive, tf.float32), outputs["objectness"])
        matched_boxes = tf.gather(boxes, tf.maximum(matched, 0), batch_dims=1)
        targets = box_coding.encode(matched_boxes, anchors, roi.RPN_VARIANCE)
        box_sum = losses.box_loss(outputs["deltas"], targets, tf.where(positive, weights[:, None], 0.0), beta=1 / 9)
        count = losses.at_least_one(tf.reduce_sum(sampled))
        return {"rpn_class_loss": tf.reduce_sum(terms * sampled) / count, "rpn_box_loss": box_sum / count}

    def _roi_losses(self, outputs, regions, scores, boxes, classes, weights, training):
        options = {"count": self.options.roi_samples, "seed": self._seed(ROI_STREAM)}
        regions, matched, sampled = roi.sample_regions(regions, scores, boxes, classes, **options)
        logits, deltas = self._second_stage(outputs, regions, training)
        index = tf.maximum(matched, 0)
        labels = tf.where(matched >= 0, tf.gather(classes, index, batch_dims=1), self.num_classes)
        terms = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
        sampled = tf.where(sampled, weights[:, None], 0.0)
        targets = box_coding.encode(tf.gather(boxes, index, batch_dims=1), regions)
        deltas = tf.gather(deltas, tf.minimum(labels, self.num_classes - 1), batch_dims=2)
        box_sum = losses.box_loss(deltas, targets, tf.where(matched >= 0, sampled, 0.0))
        count = losses.at_least_one(tf.reduce_sum(sampled))
        return {"class_loss": tf.reduce_sum(terms * sampled) / count, "box_loss": box_sum / count}
