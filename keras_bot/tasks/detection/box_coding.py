"""Box operations of detectors: delta encoding, matching and non-maximum suppression.

Boxes are float32 y0, x0, y1, x1 in pixels, (B, n, 4) or, for anchors, (n, 4). Absent boxes have class -1. All functions
are batched with fixed sizes and no Python loops over images, so they also run under XLA.
"""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from keras_bot.tasks.detection.box_ops import iou_matrix

NEGATIVE, IGNORED = -1, -2
VARIANCE = (0.1, 0.1, 0.2, 0.2)
MAX_LOG_SCALE = float(np.log(1000 / 16))  # keeps decoded boxes finite for any output of an untrained network


def _centre_form(boxes):
    size = boxes[..., 2:] - boxes[..., :2]
    return boxes[..., :2] + size / 2, size


def encode(boxes: tf.Tensor, anchors: tf.Tensor, variance: Sequence[float] = VARIANCE) -> tf.Tensor:
    """Encodes boxes as deltas (…, 4): ((y - y_a) / h_a, (x - x_a) / w_a, log(h / h_a), log(w / w_a)) / variance.

    Sizes are at least 0.01 pixels so that the deltas are finite.
    """
    centre, size = _centre_form(boxes)
    anchor_centre, anchor_size = _centre_form(anchors)
    anchor_size = tf.maximum(anchor_size, 0.01)
    shift = (centre - anchor_centre) / anchor_size
    scale = tf.math.log(tf.maximum(size, 0.01) / anchor_size)
    return tf.concat([shift, scale], axis=-1) / tf.constant(variance, tf.float32)


def decode(deltas: tf.Tensor, anchors: tf.Tensor, variance: Sequence[float] = VARIANCE) -> tf.Tensor:
    """Decodes deltas to boxes (…, 4), the inverse of `encode`. Sizes grow by a factor of at most 1000 / 16."""
    deltas = deltas * tf.constant(variance, tf.float32)
    anchor_centre, anchor_size = _centre_form(anchors)
    centre = anchor_centre + deltas[..., :2] * anchor_size
    size = anchor_size * tf.exp(tf.minimum(deltas[..., 2:], MAX_LOG_SCALE))
    return tf.concat([centre - size / 2, centre + size / 2], axis=-1)


def match(
    candidates: tf.Tensor,
    boxes: tf.Tensor,
    classes: tf.Tensor,
    *,
    positive: float,
    negative: float,
    force: bool,
) -> tf.Tensor:
    """Matches each candidate to a ground-truth box by IoU.

    A candidate whose highest IoU is at least `positive` is matched to that box. Below `negative` it is background; in
    between it is ignored. With `force`, each ground-truth box is also matched to the candidates of highest IoU with it,
    if that is above 0, so that small objects contribute to training.

    Args:
        candidates: anchors (n, 4) or proposals (B, n, 4).
        boxes, classes: ground truth, (B, M, 4) and (B, M), with class -1 for absent boxes.
        positive, negative, force: see above.

    Returns:
        int32 (B, n): the index of the matched box in 0..M-1, or NEGATIVE or IGNORED.
    """
    present = (classes >= 0)[:, None, :]
    overlap = tf.where(present, iou_matrix(candidates, boxes), -1.0)
    best, index = tf.reduce_max(overlap, axis=-1), tf.argmax(overlap, axis=-1, output_type=tf.int32)
    matched = tf.where(best >= positive, index, tf.where(best < negative, NEGATIVE, IGNORED))
    if not force:
        return matched
    highest = tf.reduce_max(overlap, axis=1, keepdims=True)
    forced = tf.where((overlap >= highest) & (highest > 0), overlap, -1.0)
    forced_place = tf.argmax(forced, axis=-1, output_type=tf.int32)
    return tf.where(tf.reduce_max(forced, axis=-1) > 0, forced_place, matched)


def keep_best(boxes: tf.Tensor, scores: tf.Tensor, groups: tf.Tensor, iou: float) -> tf.Tensor:
    """Runs greedy non-maximum suppression and returns the mask of kept boxes, bool (B, n).

    A kept box suppresses later boxes of its group whose IoU with it exceeds `iou`. The greedy result is the only fixed
    point of "i is kept if no earlier kept j suppresses it". Iterating from "all kept" reaches it in as many rounds as
    the longest chain of boxes that suppress each other.

    Args:
        boxes: (B, n, 4), sorted by descending score.
        scores: (B, n); boxes with score -inf are absent and never kept.
        groups: (B, n), any comparable values, such as classes or pyramid levels.
        iou: IoU threshold.
    """
    order = tf.range(tf.shape(boxes)[1])
    rivals = (order[:, None] < order[None, :]) & (groups[:, :, None] == groups[:, None, :])
    suppresses = tf.cast(rivals & (iou_matrix(boxes, boxes) > iou), tf.float32)
    present = scores > -np.inf

    def round_of(keep, _):
        beaten = tf.squeeze(tf.cast(keep, tf.float32)[:, None, :] @ suppresses, axis=1) > 0
        now = present & ~beaten
        return now, tf.reduce_any(now != keep)

    keep, _ = tf.while_loop(lambda _, changed: changed, round_of, (present, tf.constant(True)))
    return keep


def best_detections(
    boxes: tf.Tensor, scores: tf.Tensor, classes: tf.Tensor, *, iou: float, limit: int
) -> dict[str, tf.Tensor]:
    """Returns the final detections after non-maximum suppression within each class.

    Args:
        boxes, scores, classes: (B, n, 4), (B, n) in descending order with -inf for absent boxes, int32 (B, n).
        iou: IoU above which a box of the same class is suppressed.
        limit: K, the maximum number of detections per image.

    Returns:
        boxes float32 (B, K, 4), scores float32 (B, K), classes int32 (B, K), count int32 (B,), by descending score.
        Beyond `count`, boxes and classes are -1 and scores 0.
    """
    limit_now = tf.minimum(limit, tf.shape(scores)[1])
    kept_scores = tf.where(keep_best(boxes, scores, classes, iou), scores, -np.inf)
    scores, index = tf.math.top_k(kept_scores, limit_now)
    present = scores > -np.inf
    rest = [[0, 0], [0, limit - limit_now]]
    boxes = tf.where(present[..., None], tf.gather(boxes, index, batch_dims=1), -1.0)
    classes = tf.where(present, tf.gather(classes, index, batch_dims=1), -1)
    classes = tf.cast(classes, tf.int32)
    detections = {
        "boxes": tf.pad(boxes, [*rest, [0, 0]], constant_values=-1.0),
        "scores": tf.pad(tf.where(present, scores, 0.0), rest),
        "classes": tf.pad(classes, rest, constant_values=-1),
        "count": tf.reduce_sum(tf.cast(present, tf.int32), axis=1),
    }
    for key in ("boxes", "scores", "classes"):
        detections[key] = tf.ensure_shape(detections[key], [None, limit, 4][: detections[key].shape.rank])
    return detections


def best_candidates(probabilities: tf.Tensor, count: int, threshold: float) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Returns the highest-scoring (box, class) pairs, before suppression.

    Args:
        probabilities: float32 (B, n, K).
        count: maximum number of pairs.
        threshold: pairs with a lower score are absent.

    Returns:
        scores (B, c) in descending order, -inf for absent pairs; box indices int32 (B, c); classes int32 (B, c).
    """
    num_classes = probabilities.shape[-1]
    flat = tf.reshape(probabilities, [tf.shape(probabilities)[0], -1])
    scores, index = tf.math.top_k(flat, tf.minimum(count, tf.shape(flat)[1]))
    return tf.where(scores >= threshold, scores, -np.inf), index // num_classes, index % num_classes
