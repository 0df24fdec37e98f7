"""Mean IoU and pixel accuracy of semantic segmentation, exact over the whole set.

Both count pixels over all batches and divide once at the end, instead of averaging per-batch values. Counts are
float64, exact up to 2^53; float32 is exact only up to 2^24 (97 images of 480x360).

    IoU of class k = n_kk / (sum_j n_kj + sum_j n_jk - n_kk)      n_ij: pixels of class i predicted as j

The mean is over the classes that occur in the ground truth or in the predictions. Pixels labelled 255 are ignored.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_bot.errors import MisuseError, RunError
from keras_bot.tasks.segmentation.labels import IGNORE


@keras.saving.register_keras_serializable("keras_bot")
class MeanIoU(keras.metrics.Metric):
    """Mean IoU over classes, for `compile(weighted_metrics=[...])`, which passes the sample weights.

    Each replica counts its own part; the counts are summed when the result is read.

    Args:
        classes: number of classes K; ids are 0 … K - 1.
        ignore: label of pixels that are excluded.
        name: name in the logs.

    Call arguments:
        y_true: integer (B, H, W) or (B, H, W, 1).
        y_pred: logits or probabilities, float (B, H, W, K), or class ids, integer (B, H, W).
        sample_weight: (B,), (B, 1, 1) or (B, H, W), or None for 1 everywhere; 0 excludes pixels.

    The result is NaN until a pixel is counted, and once a counted pixel has a label that is neither a class nor
    `ignore`; `confusion` then raises.
    """

    def __init__(self, classes: int, *, ignore: int = IGNORE, name: str = "mean_iou") -> None:
        super().__init__(name=name, dtype="float64")
        _check(classes, ignore)
        self.classes = classes
        self.ignore = ignore
        self._counts = self.add_variable((classes**2 + 1,), "zeros", dtype="float64", name="counts")

    def update_state(  # noqa: D102
        self, y_true: tf.Tensor, y_pred: tf.Tensor, sample_weight: tf.Tensor | None = None
    ) -> None:
        self._counts.assign_add(_count_pairs(y_true, y_pred, sample_weight, self.classes, self.ignore))

    def result(self) -> tf.Tensor:  # noqa: D102
        counts = tf.convert_to_tensor(self._counts)
        matrix = tf.reshape(counts[:-1], [self.classes, self.classes])
        right = tf.linalg.diag_part(matrix)
        union = tf.reduce_sum(matrix, 0) + tf.reduce_sum(matrix, 1) - right
        occurs = union > 0
        mean = tf.reduce_sum(tf.math.divide_no_nan(right, union)) / tf.reduce_sum(tf.cast(occurs, tf.float64))
        return tf.where(counts[-1] > 0, _nan(), mean)

    def confusion(self) -> np.ndarray:
        """Returns pixel counts by true class (rows) and predicted class (columns): float64 (K, K).

        Raises:
            RunError: If a pixel had a label that is neither a class nor `ignore`.
        """
        counts = np.asarray(tf.convert_to_tensor(self._counts))
        if counts[-1]:
            raise RunError(
                f"{counts[-1]:.0f} pixels have labels other than 0 to {self.classes - 1} and {self.ignore}. Check the "
                "masks and the number of classes."
            )
        return counts[:-1].reshape(self.classes, self.classes)

    def get_config(self) -> dict[str, Any]:  # noqa: D102
        return {"classes": self.classes, "ignore": self.ignore, "name": self.name}


@keras.saving.register_keras_serializable("keras_bot")
class PixelAccuracy(MeanIoU):
    """Fraction of correctly classified pixels; arguments as in `MeanIoU`."""

    def __init__(self, classes: int, *, ignore: int = IGNORE, name: str = "pixel_accuracy") -> None:
        super().__init__(classes, ignore=ignore, name=name)

    def result(self) -> tf.Tensor:  # noqa: D102
        counts = tf.convert_to_tensor(self._counts)
        right = tf.reduce_sum(counts[: self.classes**2 : self.classes + 1])
        return tf.where(counts[-1] > 0, _nan(), right / tf.reduce_sum(counts[:-1]))


def figures(confusion: np.ndarray, class_names: Sequence[str]) -> dict[str, Any]:
    """Computes all metrics of a confusion matrix, in NumPy.

    Args:
        confusion: (K, K), true classes in rows, from `MeanIoU.confusion`.
        class_names: K names; a repeated name is numbered, as in "screen (2)".

    Returns:
        `mean_iou`, `pixel_accuracy`, `per_class` {name: IoU, NaN for a class that does not occur},
        `pixels` {name: number of pixels of that true class}.

    Raises:
        MisuseError: If the matrix has another shape or no pixels.
    """
    confusion = np.asarray(confusion, np.float64)
    if confusion.shape != (len(class_names),) * 2:
        raise MisuseError(
            f"The confusion matrix has shape {confusion.shape}, but there are {len(class_names)} class names. Pass one "
            "name per class."
        )
    if not confusion.sum():
        raise MisuseError("There are no labelled pixels to evaluate on. Check the masks and the list of images.")
    right, true = np.diag(confusion), confusion.sum(axis=1)
    union = true + confusion.sum(axis=0) - right
    ious = np.divide(right, union, out=np.full(len(right), np.nan), where=union > 0)
    names = [_numbered(name, list(class_names[:index]).count(name)) for index, name in enumerate(class_names)]
    return {
        "mean_iou": float(np.nanmean(ious)),
        "pixel_accuracy": float(right.sum() / confusion.sum()),
        "per_class": dict(zip(names, ious.tolist(), strict=True)),
        "pixels": dict(zip(names, true.tolist(), strict=True)),
    }


def _numbered(name, before):
    return f"{name} ({before + 1})" if before else name


def table(result: Mapping) -> str:
    """Formats `figures` as text: one line per class with IoU and share of the true pixels, then mIoU and accuracy."""
    total = sum(result["pixels"].values())
    width = max(map(len, [*result["per_class"], "pixel accuracy"]))
    lines = [f"{'class':<{width}}  {'IoU':>6}  {'pixels':>7}"]
    for name, iou in result["per_class"].items():
        share = f"{result['pixels'][name] / total:7.2%}"
        lines.append(f"{name:<{width}}  {'-' if np.isnan(iou) else f'{iou:.4f}':>6}  {share}")
    lines.append(f"{'mean IoU':<{width}}  {result['mean_iou']:.4f}")
    lines.append(f"{'pixel accuracy':<{width}}  {result['pixel_accuracy']:.4f}")
    return "\n".join(lines)


def _nan():
    return tf.constant(np.nan, tf.float64)


def _check(classes, ignore):
    if classes < 1:
        raise MisuseError(f"classes must be at least 1, received {classes}.")
    if 0 <= ignore < classes:
        raise MisuseError(f"ignore={ignore} is one of the {classes} classes. Use another label.")


def _count_pairs(truth, predictions, weights, classes, ignore):
    """Returns the weight of each (true, predicted) pair, then of pixels with unknown ids: float64 (classes^2 + 1,)."""
    truth, predictions = tf.convert_to_tensor(truth), tf.convert_to_tensor(predictions)
    if truth.shape.rank == 4:
        truth = tf.squeeze(truth, -1)
    if predictions.shape.rank == 4:
        if predictions.shape[-1] != classes:
            raise MisuseError(f"Predictions must have {classes} classes, received shape {predictions.shape}.")
        predictions = tf.argmax(predictions, -1, output_type=tf.int32)
    if not truth.shape.is_compatible_with(predictions.shape):
        raise MisuseError(f"Masks {truth.shape} and predictions {predictions.shape} have different shapes.")
    truth, predictions = tf.cast(truth, tf.int32), tf.cast(predictions, tf.int32)
    known = (truth >= 0) & (truth < classes) & (predictions >= 0) & (predictions < classes)
    pairs = tf.where(known, truth * classes + predictions, classes**2)
    counted = tf.cast(truth != ignore, tf.float64)
    if weights is not None:
        weights = tf.convert_to_tensor(weights)
        weights = tf.reshape(weights, tf.concat([tf.shape(weights), tf.ones([3 - weights.shape.rank], tf.int32)], 0))
        counted *= tf.cast(weights, tf.float64)
    pairs, counted = tf.reshape(pairs, [-1]), tf.reshape(counted, [-1])
    return tf.math.bincount(pairs, counted, minlength=classes**2 + 1, maxlength=classes**2 + 1, dtype=tf.float64)
