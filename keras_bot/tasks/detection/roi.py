"""Regions of interest of a two-stage detector: proposals, sampling for the losses, and RoIAlign.

Boxes are float32 y0, x0, y1, x1 in image pixels. Sampling is a stateless function of a seed. Sources: Ren et al. 2015
(Faster R-CNN), sections 3.1.2 and 3.3; He et al. 2017 (Mask R-CNN), RoIAlign; Lin et al. 2017 (FPN), equation 1.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf

from keras_bot.tasks.detection import box_coding
from keras_bot.tasks.detection.box_ops import area, clip

RPN_VARIANCE = (1.0, 1.0, 1.0, 1.0)
CANONICAL_SIZE, CANONICAL_LEVEL = 224, 4  # a 224x224 region is pooled from P4
MIN_SIZE = 1.0


def propose(
    objectness: tf.Tensor,
    deltas: tf.Tensor,
    anchors: Sequence[tf.Tensor],
    image_shape: tuple[tf.Tensor, tf.Tensor],
    *,
    candidates: int,
    limit: int,
    iou: float = 0.7,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the best regions after non-maximum suppression within each level.

    Args:
        objectness, deltas: float32 (B, A) logits and (B, A, 4), in the order of the anchors.
        anchors: anchors per level, (A_l, 4), A in total.
        image_shape: height and width. Regions are clipped to it, and dropped if less than 1 pixel remains.
        candidates: maximum number of regions per level before suppression.
        limit: N, the maximum number of regions returned.
        iou: suppression threshold.

    Returns:
        regions (B, N, 4) and scores (B, N), descending and -inf where absent; both without gradient.
    """
    objectness, deltas = tf.stop_gradient(objectness), tf.stop_gradient(deltas)
    levels, begin = [], 0
    for level in anchors:
        end = begin + tf.shape(level)[0]
        scores, index = tf.math.top_k(objectness[:, begin:end], tf.minimum(candidates, end - begin))
        selected = tf.gather(level, index)
        boxes = box_coding.decode(tf.gather(deltas[:, begin:end], index, batch_dims=1), selected, RPN_VARIANCE)
        boxes = clip(boxes, [0, 0, *image_shape])
        large = tf.reduce_all(boxes[..., 2:] - boxes[..., :2] >= MIN_SIZE, axis=-1)
        scores = tf.where(large, scores, -np.inf)
        keep = box_coding.keep_best(boxes, scores, tf.zeros_like(index), iou)
        levels.append((boxes, tf.where(keep, scores, -np.inf)))
        begin = end
    boxes, scores = (tf.concat(parts, axis=1) for parts in zip(*levels, strict=True))
    scores, index = tf.math.top_k(scores, tf.minimum(limit, tf.shape(scores)[1]))
    return tf.gather(boxes, index, batch_dims=1), scores


def _draw(mask: tf.Tensor, noise: tf.Tensor, counts: tf.Tensor, limit: int) -> tf.Tensor:
    """Samples up to `counts[b]` <= `limit` true positions of each row of `mask` (B, n), by highest noise."""
    noise = tf.where(mask, noise, -1.0)
    top, _ = tf.math.top_k(noise, tf.minimum(limit, tf.shape(noise)[1]))
    last = tf.clip_by_value(counts - 1, 0, tf.shape(top)[1] - 1)
    threshold = tf.gather(top, last[:, None], batch_dims=1)
    return mask & (noise >= threshold) & (counts > 0)[:, None]


def sample(matched: tf.Tensor, count: int, fraction: float, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Samples positives and negatives of each image uniformly.

    Args:
        matched: int32 (B, n), from `box_coding.match`.
        count: maximum number of samples per image; negatives fill the places that positives leave.
        fraction: maximum fraction of positives.
        seed: integer (2,).

    Returns:
        Masks of the sampled positives and negatives, bool (B, n) each.
    """
    noise = tf.random.stateless_uniform(tf.shape(matched), seed)
    limit = max(1, math.floor(count * fraction))
    positive = _draw(matched >= 0, noise, tf.fill(tf.shape(matched)[:1], limit), limit)
    remaining = count - tf.reduce_sum(tf.cast(positive, tf.int32), axis=1)
    return positive, _draw(matched == box_coding.NEGATIVE, noise, remaining, count)


def sample_regions(
    regions: tf.Tensor,
    scores: tf.Tensor,
    boxes: tf.Tensor,
    classes: tf.Tensor,
    *,
    count: int,
    seed: tf.Tensor,
    fraction: float = 0.25,
    iou: float = 0.5,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Samples the second stage's training regions from proposals and ground-truth boxes.

    Args:
        regions, scores: outputs of `propose`.
        boxes, classes: ground truth, (B, M, 4) and (B, M), class -1 where absent.
        count: S, regions per image.
        seed: integer (2,).
        fraction: maximum fraction of positives.
        iou: minimum overlap of a positive with its box; regions below it are negatives.

    Returns:
        regions (B, S, 4); matched int32 (B, S), the index of the box among M, or negative (see `box_coding`) without
        one; sampled bool (B, S), false where an image has too few. S is less than `count` if there are fewer regions.
    """
    regions = tf.concat([tf.maximum(boxes, 0.0), regions], axis=1)
    present = tf.concat([classes >= 0, scores > -np.inf], axis=1)
    matched = box_coding.match(regions, boxes, classes, positive=iou, negative=iou, force=False)
    matched = tf.where(present, matched, box_coding.IGNORED)
    positive, negative = sample(matched, count, fraction, seed)
    rank = tf.cast(positive, tf.float32) * 2.0 + tf.cast(negative, tf.float32)
    rank, index = tf.math.top_k(rank, tf.minimum(count, tf.shape(rank)[1]))
    return tf.gather(regions, index, batch_dims=1), tf.gather(matched, index, batch_dims=1), rank > 0


def level_of(regions: tf.Tensor, first: int, last: int) -> tf.Tensor:
    """Returns the level of each region (…, 4): int32 (…), floor(4 + log2(sqrt(area) / 224)) clipped to first … last."""
    size = tf.sqrt(tf.maximum(area(regions), 1e-6))
    level = tf.floor(CANONICAL_LEVEL + tf.math.log(size / CANONICAL_SIZE) / math.log(2.0) + 1e-6)
    return tf.cast(tf.clip_by_value(level, float(first), float(last)), tf.int32)


def align(maps: Mapping[int, tf.Tensor], regions: tf.Tensor, size: int, samples: int = 2) -> tf.Tensor:
    """Applies RoIAlign: pools each region to size x size cells, each the mean of samples² bilinear reads.

    The centre of a map's first cell lies at half a stride. Reads outside the map take the values of its edge.

    Args:
        maps: level -> (B, h, w, C), of stride 2**level. Each region is pooled from the level chosen by `level_of`.
        regions: (B, N, 4).
        size: height and width of the result.
        samples: reads per cell along each axis.

    Returns:
        float32 (B * N, size, size, C), without gradient to the regions.
    """
    batch, number = tf.shape(regions)[0], tf.shape(regions)[1]
    regions = tf.reshape(tf.stop_gradient(regions), [-1, 4])
    image = tf.repeat(tf.range(batch), number)
    level = level_of(regions, min(maps), max(maps))
    crops, indices = [], []
    for k, features in maps.items():
        index = tf.where(level == k)[:, 0]
        crops.append(_read(features, tf.gather(regions, index) / 2.0**k, tf.gather(image, index), size * samples))
        indices.append(tf.cast(index, tf.int32))
    reads = tf.gather(tf.concat(crops, axis=0), tf.math.invert_permutation(tf.concat(indices, axis=0)))
    channels = next(iter(maps.values())).shape[-1]
    reads = tf.reshape(reads, [-1, size, samples, size, samples, channels])
    return tf.reduce_mean(reads, axis=(2, 4))


def _read(features: tf.Tensor, regions: tf.Tensor, image: tf.Tensor, points: int) -> tf.Tensor:
    """Reads features bilinearly at the centres of points² equal cells of each region (n, 4), given in map cells."""
    features = tf.pad(tf.cast(features, tf.float32), [[0, 0], [1, 1], [1, 1], [0, 0]], "SYMMETRIC")
    limit = tf.cast(tf.shape(features)[1:3] - 1, tf.float32)
    step = (regions[:, 2:] - regions[:, :2]) / points
    first = regions[:, :2] + 0.5 * step + 0.5  # -0.5 for the cell centre, +1 for the padding
    last = first + (points - 1) * step
    return tf.image.crop_and_resize(features, tf.concat([first / limit, last / limit], axis=1), image, [points, points])
