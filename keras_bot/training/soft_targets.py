"""Targets from the teacher: the logits that it gives in the step, or what its cache keeps of them.

The cache keeps all logits of an image; or with k, at the temperature T of the recipe, the k greatest of
q = softmax(r / T) and their classes. The others share what is missing to 1 equally, so that the soft loss is

    -T^2 * (sum of q_i * log p_i over the kept + u * sum of log p_j over the others),  u = (1 - sum of q_i) / (K - k)

with p = softmax(z / T). It is the exact loss for the distribution that is kept, and for k = K the one of all logits.
The q depend on T: what was kept for one T serves no other. At T = 20 they are flat, and the others share much: with
1,000 classes of logits within 10 of each other, no q is more than 1.6 times any other.
"""

from collections.abc import Callable

import keras
import numpy as np
from keras import ops

from keras_bot import tricks
from keras_bot.recipe import Recipe


def build_distiller(recipe: Recipe, model: keras.Model, teacher: keras.Model) -> tricks.Distiller:
    """Trains a network by the recipe's distillation. With a `teacher_cache` it expects labels (labels, targets).

    Args:
        recipe: of the run.
        model: the student.
        teacher: of `load_teacher`.
    """
    return tricks.Distiller(
        model,
        None if recipe.teacher_cache else teacher,
        temperature=recipe.distill_temperature,
        hard_weight=recipe.distill_hard_weight,
        soft_loss=TopCrossentropy(recipe.distill_temperature) if recipe.teacher_top_k else None,
    )


def beside_targets(transform: Callable) -> Callable:
    """A batch transform for labels (labels, targets), which leaves the teacher's targets alone."""

    def transform_all(images, labels, seed, epoch):
        images, own = transform(images, labels[0], seed, epoch)
        return images, (own, labels[1])

    return transform_all


def keep_top(logits: np.ndarray, k: int, temperature: float) -> np.ndarray:
    """The classes of the k greatest logits, the greatest first, and their q; both as float32: (B, K) -> (B, 2k)."""
    logits = logits.astype("float64")
    exponentials = np.exp((logits - logits.max(axis=-1, keepdims=True)) / temperature)
    softened = exponentials / exponentials.sum(axis=-1, keepdims=True)
    classes = np.argsort(-logits, axis=-1, kind="stable")[:, :k]
    return np.concatenate([classes, np.take_along_axis(softened, classes, axis=-1)], axis=-1).astype("float32")


class TopCrossentropy(keras.losses.Loss):
    """The soft loss of the module's docstring, from what `keep_top` gave.

    Args:
        temperature: T.
    """

    def __init__(self, temperature: float):
        super().__init__(name="soft_crossentropy", reduction="sum_over_batch_size", dtype="float32")
        self.temperature = temperature

    def call(self, y_true, y_pred):
        """(B, 2k) of `keep_top` and logits (B, K) -> (B,)."""
        k, others = y_true.shape[-1] // 2, y_pred.shape[-1] - y_true.shape[-1] // 2
        classes, kept = ops.cast(y_true[:, :k], "int32"), y_true[:, k:]
        log_p = ops.log_softmax(ops.cast(y_pred, "float32") / self.temperature)
        log_kept = ops.take_along_axis(log_p, classes, axis=-1)
        share = (1 - ops.sum(kept, axis=-1)) / max(others, 1)
        cross = ops.sum(kept * log_kept, axis=-1) + share * (ops.sum(log_p, axis=-1) - ops.sum(log_kept, axis=-1))
        return -(self.temperature**2) * cross
