"""Detection losses and their reduction over the global batch.

Loss terms are elementwise or weighted sums; the caller divides the sum by a count. Under a `tf.distribute` strategy the
count is that of the global batch, so that the replicas' gradients sum to those of the whole batch on one device.
"""

import keras
import tensorflow as tf

from keras_bot.errors import MisuseError

PARTS = ("images", "boxes", "classes")


def unpack_batch(
    x: tf.Tensor | dict[str, tf.Tensor] | None,
    y: dict[str, tf.Tensor] | None = None,
    sample_weight: tf.Tensor | None = None,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
    """Unpacks a batch given as one dictionary or as (images, {"boxes", "classes"}).

    Args:
        x: images (B, H, W, 3), or a dictionary of images, boxes (B, M, 4), classes (B, M) and optional weights (B,).
        y: a dictionary of boxes, classes and optional weights, or None.
        sample_weight: float (B,) or None. Images of weight 0 are padding and are ignored.

    Returns:
        images unchanged, boxes float32 (B, M, 4), classes int32 (B, M), weights float32 (B,); M is at least 1.

    Raises:
        MisuseError: images, boxes or classes are missing.
    """
    batch = {**(x if isinstance(x, dict) else {"images": x}), **(y if isinstance(y, dict) else {})}
    missing = [part for part in PARTS if part not in batch]
    if missing:
        raise MisuseError(
            f"The batch has no {' and no '.join(missing)}: it contains {', '.join(sorted(batch))}. Detectors train on "
            "batches of images, boxes and classes, such as those of detection_train_pipeline."
        )
    images = batch["images"]
    weights = batch.get("weights") if sample_weight is None else sample_weight
    weights = tf.ones([tf.shape(images)[0]]) if weights is None else tf.cast(weights, tf.float32)
    boxes, classes = tf.cast(batch["boxes"], tf.float32), tf.cast(batch["classes"], tf.int32)
    if not boxes.shape[1]:  # argmax does not accept an empty axis of boxes
        boxes = tf.pad(boxes, [[0, 0], [0, 1], [0, 0]], constant_values=-1.0)
        classes = tf.pad(classes, [[0, 0], [0, 1]], constant_values=-1)
    return images, boxes, classes, weights


def focal(logits: tf.Tensor, targets: tf.Tensor, alpha: float = 0.25, gamma: float = 2.0) -> tf.Tensor:
    """Computes the focal loss -alpha_t (1 - p_t) ** gamma log(p_t) per logit, float32 (Lin et al. 2017, equation 5).

    Args:
        logits: any shape; p = sigmoid(logit).
        targets: 0 or 1, same shape. p_t is p where the target is 1, else 1 - p; alpha_t likewise.
        alpha, gamma: 0.25 and 2 in RetinaNet.
    """
    logits, targets = tf.cast(logits, tf.float32), tf.cast(targets, tf.float32)
    cross_entropy = tf.nn.sigmoid_cross_entropy_with_logits(labels=targets, logits=logits)
    miss = tf.sigmoid((1.0 - 2.0 * targets) * logits)  # 1 - p_t
    return (alpha * targets + (1.0 - alpha) * (1.0 - targets)) * miss**gamma * cross_entropy


def smooth_l1(error: tf.Tensor, beta: float = 1.0) -> tf.Tensor:
    """Computes 0.5 e**2 / beta for |e| < beta, else |e| - beta / 2, elementwise (Girshick 2015)."""
    size = tf.abs(error)
    return tf.where(size < beta, 0.5 * size**2 / beta, size - 0.5 * beta)


def box_loss(deltas: tf.Tensor, targets: tf.Tensor, weights: tf.Tensor, beta: float = 1.0) -> tf.Tensor:
    """Returns the weighted sum of `smooth_l1`: deltas and targets (…, 4), weights (…), 0 for boxes without target."""
    error = tf.where(weights[..., None] > 0, tf.cast(deltas, tf.float32) - targets, 0.0)
    return tf.reduce_sum(tf.reduce_sum(smooth_l1(error, beta), axis=-1) * weights)


def over_replicas(value: tf.Tensor) -> tf.Tensor:
    """All-reduces a scalar by sum over the replicas of the current strategy."""
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return value
    return context.all_reduce(tf.distribute.ReduceOp.SUM, value)


def at_least_one(count: tf.Tensor) -> tf.Tensor:
    """Returns the loss normaliser: the count summed over all replicas, at least 1."""
    return tf.maximum(over_replicas(count), 1.0)


def total_loss(model: keras.Model, parts: dict[str, tf.Tensor], trackers: dict[str, keras.metrics.Metric]) -> tf.Tensor:
    """Sums the loss parts and the layers' own losses, and updates each part's tracker.

    Args:
        model: model whose regularisation losses are added, divided by the number of replicas.
        parts: loss scalars, each this replica's share of the global batch's loss.
        trackers: one mean metric per part.
    """
    replicas = tf.distribute.get_strategy().num_replicas_in_sync
    for name, value in parts.items():
        trackers[name].update_state(value * replicas)
    extra = [tf.cast(loss, tf.float32) / replicas for loss in model.losses]
    return tf.add_n([*parts.values(), *extra])
