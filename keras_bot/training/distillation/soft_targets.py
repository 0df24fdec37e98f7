"""Soft targets: the teacher's logits, computed in the step or read from its cache.

The cache stores all logits r of an image or, with `teacher_top_k` k, the k greatest of q = softmax(r / T) and their
classes, with the recipe's temperature T. The other classes share the remaining probability equally, so the soft loss is

    -T^2 * (sum of q_i * log p_i over the top k + u * sum of log p_j over the others),  u = (1 - sum of q_i) / (K - k)

with p = softmax(z / T). It is the exact loss for the stored distribution, and for k = K the loss over all logits.
q depends on T, so a cache for one T cannot be used with another. At T = 20, q is flat and the other classes share much
of it: with 1,000 classes and logits within 10 of each other, no q is more than 1.65 times any other.
"""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_bot import tricks
from keras_bot.recipe import Recipe


def build_distillation_model(recipe: Recipe, model: keras.Model, teacher: keras.Model) -> tricks.DistillationModel:
    """Builds the model that distils the teacher into the student.

    With a `teacher_cache`, it expects labels (labels, targets) and does not run the teacher.

    Args:
        recipe: recipe of the run.
        model: the student.
        teacher: result of `load_teacher`.
    """
    return tricks.DistillationModel(
        model,
        None if recipe.teacher_cache else teacher,
        temperature=recipe.distill_temperature,
        hard_weight=recipe.distill_hard_weight,
        soft_loss=TopKCrossentropy(recipe.distill_temperature) if recipe.teacher_top_k else None,
    )


def keep_teacher_targets(transform: Callable) -> Callable:
    """Wraps a batch transform for labels (labels, targets); the teacher's targets pass through unchanged."""

    def transform_labels(images, labels_and_targets, seed, epoch):
        labels, targets = labels_and_targets
        images, labels = transform(images, labels, seed, epoch)
        return images, (labels, targets)

    return transform_labels


def top_k_targets(logits: np.ndarray, k: int, temperature: float) -> np.ndarray:
    """Returns the classes of the k greatest logits, greatest first, then their q: (B, K) -> float32 (B, 2k)."""
    logits = logits.astype("float64")
    exponentials = np.exp((logits - logits.max(axis=-1, keepdims=True)) / temperature)
    q = exponentials / exponentials.sum(axis=-1, keepdims=True)
    classes = np.argsort(-logits, axis=-1, kind="stable")[:, :k]
    return np.concatenate([classes, np.take_along_axis(q, classes, axis=-1)], axis=-1).astype("float32")


@keras.saving.register_keras_serializable(package="keras_bot")
class TopKCrossentropy(tricks.SoftCrossentropy):
    """Loss that computes the module docstring's soft loss from the output of `top_k_targets`.

    The arguments are those of `SoftCrossentropy`.
    """

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Computes the loss per image: output of `top_k_targets` (B, 2k) and logits (B, K) -> (B,)."""
        k, num_classes = y_true.shape[-1] // 2, y_pred.shape[-1]
        classes, q = ops.cast(y_true[:, :k], "int32"), y_true[:, k:]
        log_p = ops.log_softmax(ops.cast(y_pred, "float32") / self.temperature)
        log_p_top = ops.take_along_axis(log_p, classes, axis=-1)
        u = (1 - ops.sum(q, axis=-1)) / max(num_classes - k, 1)
        sum_top = ops.sum(q * log_p_top, axis=-1)
        sum_others = u * (ops.sum(log_p, axis=-1) - ops.sum(log_p_top, axis=-1))
        return -(self.temperature**2) * (sum_top + sum_others)
