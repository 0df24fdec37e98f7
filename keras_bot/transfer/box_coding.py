"""What detectors do with boxes: overlap, matching, deltas, and keeping the best of those that overlap.

Boxes are float32 y0, x0, y1, x1 in pixels, (B, n, 4) or, for anchors, (n, 4). Absent boxes have class -1. Everything
is batched, of fixed size and free of Python loops over images, so that it runs anywhere, XLA included.
"""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from keras_bot.transfer.boxes import iou_matrix

NEGATIVE, IGNORED = -1, -2
VARIANCE = (0.1, 0.1, 0.2, 0.2)
MAX_LOG_SCALE = float(np.log(1000 / 16))  # decoded boxes stay finite whatever an untrained network says


def _centre_form(boxes):
    size = boxes[..., 2:] - boxes[..., :2]
    return boxes[..., :2] + size / 2, size


def encode(boxes: tf.Tensor, anchors: tf.Tensor, variance: Sequence[float] = VARIANCE) -> tf.Tensor:
    """Deltas (…, 4) from anchors to boxes: ((y - y_a) / h_a, (x - x_a) / w_a, log(h / h_a), log(w / w_a)) / variance.

    Sizes below a hundredth of a pixel count as that, so that the deltas are finite.
    """
    centre, size = _centre_form(boxes)
    anchor_centre, anchor_size = _centre_form(anchors)
    anchor_size = tf.maximum(anchor_size, 0.01)
    shift = (centre - anchor_centre) / anchor_size
    scale = tf.math.log(tf.maximum(size, 0.01) / anchor_size)
    return tf.concat([shift, scale], axis=-1) / tf.constant(variance, tf.float32)


def decode(deltas: tf.Tensor, anchors: tf.Tensor, variance: Sequence[float] = VARIANCE) -> tf.Tensor:
    """The inverse of `encode`: boxes (…, 4). A size grows at most by 1000 / 16."""
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
    """Which true box each candidate stands for.

    A candidate with an overlap of at least `positive` takes the box that it overlaps most; below `negative` it is
    background; between, it counts for nothing. With `force`, each true box also gets the candidates that no other
    overlaps more, however little, so that small objects are learnt from.

    Args:
        candidates: anchors (n, 4) or proposals (B, n, 4).
        boxes, classes: the truth, (B, M, 4) and (B, M), class -1 where there is none.
        positive, negative, force: see above.

    Returns:
        int32 (B, n): the place of the box among M, or NEGATIVE or IGNORED.
    """
    present = (classes >= 0)[:, None, :]
    overlap = tf.where(present, iou_matrix(candidates, boxes), -1.0)
    best, place = tf.reduce_max(overlap, axis=-1), tf.argmax(overlap, axis=-1, output_type=tf.int32)
    matched = tf.where(best >= positive, place, tf.where(best < negative, NEGATIVE, IGNORED))
    if not force:
        return matched
    most = tf.reduce_max(overlap, axis=1, keepdims=True)
    forced = tf.where((overlap >= most) & (most > 0), overlap, -1.0)
    forced_place = tf.argmax(forced, axis=-1, output_type=tf.int32)
    return tf.where(tf.reduce_max(forced, axis=-1) > 0, forced_place, matched)


def keep_best(boxes: tf.Tensor, scores: tf.Tensor, groups: tf.Tensor, iou: float) -> tf.Tensor:
    """Greedy non-maximum suppression: which boxes stay, bool (B, n).

    A box goes when one that stays, with a higher score and in its group, overlaps it by more than `iou`. The greedy
    answer is the only fixed point of "i stays if no earlier j that stays suppresses it"; it is reached by iterating
    from "all stay", in as many rounds as the longest chain of boxes that suppress each other.

    Args:
        boxes: (B, n, 4), sorted by falling score.
        scores: (B, n); boxes of score -inf are absent and never stay.
        groups: (B, n) whatever can be compared: classes, or levels of a pyramid.
        iou: the threshold.
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
    """The final detections after suppression within each class.

    Args:
        boxes, scores, classes: (B, n, 4), (B, n) sorted falling with -inf where absent, int32 (B, n).
        iou: two boxes of a class that overlap more are one.
        limit: K, the number of detections an image has at most.

    Returns:
        boxes float32 (B, K, 4), scores float32 (B, K), classes int32 (B, K), count int32 (B,), by falling score. Behind
        `count` boxes and classes are -1 and scores 0.
    """
    limit_now = tf.minimum(limit, tf.shape(scores)[1])
    kept = tf.where(keep_best(boxes, scores, classes, iou), scores, -np.inf)
    scores, at = tf.math.top_k(kept, limit_now)
    present = scores > -np.inf
    rest = [[0, 0], [0, limit - limit_now]]
    boxes = tf.where(present[..., None], tf.gather(boxes, at, batch_dims=1), -1.0)
    classes = tf.where(present, tf.gather(classes, at, batch_dims=1), -1)
    classes = tf.cast(classes, tf.int32)
    found = {
        "boxes": tf.pad(boxes, [*rest, [0, 0]], constant_values=-1.0),
        "scores": tf.pad(tf.where(present, scores, 0.0), rest),
        "classes": tf.pad(classes, rest, constant_values=-1),
        "count": tf.reduce_sum(tf.cast(present, tf.int32), axis=1),
    }
    for key in ("boxes", "scores", "classes"):
        found[key] = tf.ensure_shape(found[key], [None, limit, 4][: found[key].shape.rank])
    return found


def best_candidates(probabilities: tf.Tensor, count: int, threshold: float) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """The best pairs of a box and a class, before suppression.

    Args:
        probabilities: float32 (B, n, K).
        count: how many pairs at most.
        threshold: pairs below it are absent.

    Returns:
        scores (B, c) sorted falling, -inf where absent; the box's place int32 (B, c); the class int32 (B, c).
    """
    num_classes = probabilities.shape[-1]
    flat = tf.reshape(probabilities, [tf.shape(probabilities)[0], -1])
    scores, at = tf.math.top_k(flat, tf.minimum(count, tf.shape(flat)[1]))
    return tf.where(scores >= threshold, scores, -np.inf), at // num_classes, at % num_classes
