"""Label smoothing (section 5.2).

What: one-hot targets pull the logits apart without end. Take epsilon from the true class and share it among
    the others.
Equation: q_i = 1 - epsilon for the true class, epsilon / (K - 1) for the others; for any distribution y:
    q = y * (1 - epsilon) + (1 - y) * epsilon / (K - 1).
    Keras, GluonCV and timm spread epsilon over all K classes. It is the same family: their epsilon gives what
    ours of epsilon * (K - 1) / K gives.
Shapes and dtypes: labels (…, K) float; the loss takes also integer labels (batch,) or (batch, 1), and
    computes in float32.
The paper's value: epsilon = 0.1.
Interactions: smoothing is affine, so smoothing mixed labels once equals mixing smoothed ones. A Keras loss
    can't tell evaluation from training, so `evaluate` reports the smoothed loss of `SmoothedCrossentropy`;
    for a plain one apply `smooth` to the training targets and compile with a plain cross-entropy. Don't do
    both: that smooths twice. The paper smooths the teacher's training as well.
Reference: Szegedy et al., "Rethinking the Inception Architecture", CVPR 2016; He et al., CVPR 2019, equation
    4.
"""

import keras

from keras_bot.tricks.labels import as_float_probabilities, as_probabilities, check_indices, one_hot


def smooth(labels, epsilon: float):
    """Smoothed labels, by operators only: NumPy arrays and tensors of every framework, in tf.data too.

    Args:
        labels: (…, K) float, one-hot or any distribution over K >= 2 classes. Not class indices.
        epsilon: at least 0 and below 1.

    Returns:
        (…, K) of the same type, float32 for integers; where the rows of `labels` sum to 1, so do these.

    Raises:
        ValueError: for epsilon out of range, fewer than 2 classes, or class indices instead of one-hot rows.
    """
    _check_epsilon(epsilon)
    labels = as_float_probabilities(labels)
    classes = labels.shape[-1]
    if classes is None or classes < 2:
        raise ValueError(f"Expected labels (…, K) of a known K of at least 2, received the shape {labels.shape}.")
    return labels * (1.0 - epsilon) + (1.0 - labels) * (epsilon / (classes - 1))


@keras.saving.register_keras_serializable(package="keras_bot")
class SmoothedCrossentropy(keras.losses.Loss):
    """Cross-entropy with smoothed labels.

    Call it with labels (batch, K), one-hot or soft, or integer class numbers (batch,) or (batch, 1), and
    predictions (batch, K): logits or probabilities. Everything is computed in float32.

    Args:
        epsilon: at least 0 and below 1.
        from_logits: whether the predictions are logits.
        reduction, name: as in every Keras loss.

    Raises:
        ValueError: for epsilon out of range; when it is called, for class indices that aren't whole numbers of
            0 to K - 1, labels outside 0 … 1, or another shape. Inside a graph class indices need an integer dtype,
            and a wrong value makes the loss NaN or, with TensorFlow without XLA, stops the step.
    """

    def __init__(
        self,
        epsilon: float = 0.1,
        from_logits: bool = False,
        reduction: str | None = "sum_over_batch_size",
        name: str = "smoothed_crossentropy",
    ):
        super().__init__(name=name, reduction=reduction, dtype="float32")
        _check_epsilon(epsilon)
        self.epsilon = float(epsilon)
        self.from_logits = from_logits

    def __call__(self, y_true, y_pred, sample_weight=None):
        """The reduced loss. Labels are checked here: Keras hands them to `call` as floats."""
        classes = y_pred.shape[-1]
        if _are_indices(y_true, classes):
            check_indices(y_true, classes)
        else:
            y_true = as_probabilities(y_true)  # before Keras makes floats of integers
        return super().__call__(y_true, y_pred, sample_weight)

    def call(self, y_true, y_pred):
        """The loss of each example, (batch,)."""
        classes = y_pred.shape[-1]
        labels = one_hot(y_true, classes) if _are_indices(y_true, classes) else as_probabilities(y_true)
        return keras.losses.categorical_crossentropy(smooth(labels, self.epsilon), y_pred, from_logits=self.from_logits)

    def get_config(self):
        """All arguments."""
        return {**super().get_config(), "epsilon": self.epsilon, "from_logits": self.from_logits}


def _are_indices(labels, classes):
    """Whether labels are class indices rather than rows (batch, K); ValueError if their shape is neither's."""
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
        raise ValueError(f"Expected epsilon of at least 0 and below 1, received {epsilon!r}.")
