"""Label smoothing (section 5.2).

What: one-hot targets drive the logits apart without bound. Take epsilon from the true class and distribute it
    evenly over the others.
Equation: q_i = 1 - epsilon for the true class, epsilon / (K - 1) for the others; for any distribution y:
    q = y * (1 - epsilon) + (1 - y) * epsilon / (K - 1).
    Keras, GluonCV and timm spread epsilon over all K classes. Their epsilon is equivalent to epsilon * (K - 1) / K
    here.
Shapes and dtypes: labels (…, K) float; the loss also takes integer labels (batch,) or (batch, 1), and
    computes in float32.
The paper's value: epsilon = 0.1.
Interactions: smoothing is affine, so smoothing mixed labels equals mixing smoothed ones. A Keras loss can't
    distinguish evaluation from training, so with `SmoothedCrossentropy` `evaluate` reports the smoothed loss. For
    the plain loss, apply `smooth` to the training targets and compile with a plain cross-entropy. Doing both would
    smooth twice. The paper also trains the teacher with label smoothing.
Reference: Szegedy et al., "Rethinking the Inception Architecture", CVPR 2016; He et al., CVPR 2019, equation
    4.
"""

from typing import Any

import keras

from keras_bot.tensors import Tensor
from keras_bot.tricks.labels import as_float_probabilities, as_probabilities, check_indices, one_hot


def smooth(labels: Tensor, epsilon: float) -> Tensor:
    """Smooths labels using only operators, so it accepts NumPy arrays and tensors of any framework, also in tf.data.

    Args:
        labels: (…, K) float, one-hot or any distribution over K >= 2 classes. Not class indices.
        epsilon: at least 0 and below 1.

    Returns:
        Labels (…, K) of the same type, float32 for integers. Rows that sum to 1 still do.

    Raises:
        ValueError: if epsilon is out of range, there are fewer than 2 classes, or the labels are class indices.
    """
    _check_epsilon(epsilon)
    return spread_epsilon(as_float_probabilities(labels), epsilon)


def spread_epsilon(labels: Tensor, epsilon: float) -> Tensor:
    """Computes `smooth` without checking values, for labels that are known to be distributions.

    Raises:
        ValueError: if there are fewer than 2 classes.
    """
    classes = labels.shape[-1]
    if classes is None or classes < 2:
        raise ValueError(f"labels must be (…, K) with a known K of at least 2, received the shape {labels.shape}.")
    return labels * (1.0 - epsilon) + (1.0 - labels) * (epsilon / (classes - 1))


@keras.saving.register_keras_serializable(package="keras_bot")
class SmoothedCrossentropy(keras.losses.Loss):
    """Cross-entropy with smoothed labels.

    Labels are one-hot or soft (batch, K), or integer class indices (batch,) or (batch, 1). Predictions (batch, K) are
    logits or probabilities. The loss is computed in float32.

    Args:
        epsilon: at least 0 and below 1.
        from_logits: whether the predictions are logits.
        reduction, name: as in every Keras loss.

    Raises:
        ValueError: if epsilon is out of range; when called, if class indices aren't whole numbers from 0 to K - 1,
            labels are outside 0 … 1, or the shape is invalid. Inside a graph, class indices need an integer dtype,
            and an invalid value makes the loss NaN or, with TensorFlow without XLA, raises an error.
    """

    def __init__(
        self,
        epsilon: float = 0.1,
        from_logits: bool = False,
        reduction: str | None = "sum_over_batch_size",
        name: str = "smoothed_crossentropy",
    ) -> None:
        super().__init__(name=name, reduction=reduction, dtype="float32")
        _check_epsilon(epsilon)
        self.epsilon = float(epsilon)
        self.from_logits = from_logits

    def __call__(self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor | None = None) -> Tensor:
        """Returns the reduced loss. Validates labels here, because Keras passes them to `call` as floats."""
        classes = y_pred.shape[-1]
        if _are_indices(y_true, classes):
            check_indices(y_true, classes)
        else:
            y_true = as_probabilities(y_true)  # before Keras casts integers to floats
        return super().__call__(y_true, y_pred, sample_weight)

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """Returns the per-example loss, (batch,)."""
        classes = y_pred.shape[-1]
        labels = one_hot(y_true, classes) if _are_indices(y_true, classes) else y_true
        labels = spread_epsilon(labels, self.epsilon)
        return keras.losses.categorical_crossentropy(labels, y_pred, from_logits=self.from_logits)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor arguments."""
        return {**super().get_config(), "epsilon": self.epsilon, "from_logits": self.from_logits}


def _are_indices(labels, classes):
    """Returns whether labels are class indices rather than (batch, K). Raises ValueError for any other shape."""
    shape = tuple(labels.shape)
    if len(shape) == 2 and shape[-1] == classes:
        return False
    if len(shape) == 1 or (len(shape) == 2 and shape[-1] == 1):
        return True
    raise ValueError(
        f"labels must be (batch, {classes}) like the predictions, or class indices (batch,) or (batch, 1), "
        f"received the shape {shape}."
    )


def _check_epsilon(epsilon):
    if not 0 <= epsilon < 1:
        raise ValueError(f"epsilon must be at least 0 and below 1, received {epsilon!r}.")
