"""Knowledge distillation (section 5.3).

What: a small student learns from the labels and from the class distribution predicted by a larger, trained
    teacher.
Equation: l(p, softmax(z)) + T^2 * l(softmax(r / T), softmax(z / T)), l the cross-entropy, z the student's
    logits, r the teacher's. T softens both distributions; T^2 preserves the gradient scale. GluonCV weights the
    two terms: w * hard + (1 - w) * soft.
Shapes and dtypes: logits (batch, K) of any float dtype; losses are computed in float32. Both models output
    logits.
The paper's value: T = 20, with a ResNet-152-D teacher trained with cosine decay and label smoothing.
Interactions: the teacher receives the same images as the student, including mixed ones. The hard loss may use
    label smoothing: `SmoothedCrossentropy(from_logits=True)`, or smooth the labels. A ResNet teacher reduced the
    accuracy of Inception-V3 and MobileNet.
Reference: Hinton et al., arXiv 1503.02531; He et al., CVPR 2019, equation 6; GluonCV,
    DistillationSoftmaxCrossEntropyLoss.
"""

import os
from collections.abc import Callable
from typing import Any, Self

import keras
from keras import ops

from keras_bot.deprecation import renamed_names
from keras_bot.surgery import recast
from keras_bot.tensors import Tensor
from keras_bot.tricks.labels import as_probabilities
from keras_bot.tricks.logits import check_logits, check_loss
from keras_bot.tricks.precision import policy_of

_Path = str | os.PathLike
_SERIALIZED = ("student", "teacher", "teacher_inputs", "soft_loss")  # keys of a DistillationModel's config


def distillation_loss(
    labels: Tensor, logits: Tensor, teacher_logits: Tensor, temperature: float = 20.0, hard_weight: float | None = None
) -> Tensor:
    """Returns the per-example distillation loss, (batch,) float32.

    Args:
        labels: (batch, K) one-hot or soft.
        logits: student logits (batch, K).
        teacher_logits: (batch, K); gradients are stopped.
        temperature: T, above 0.
        hard_weight: None for the paper's hard + T^2 * soft; w in 0 … 1 for w * hard + (1 - w) * T^2 * soft.

    Raises:
        ValueError: if a value is out of range or the labels are class indices.
    """
    _check(temperature, hard_weight)
    labels, logits = as_probabilities(labels), ops.cast(logits, "float32")
    hard = keras.losses.categorical_crossentropy(labels, logits, from_logits=True)
    soft = _soft_crossentropy(teacher_logits, logits, float(temperature))
    hard_weight = None if hard_weight is None else float(hard_weight)
    return hard + soft if hard_weight is None else hard_weight * hard + (1 - hard_weight) * soft


def _soft_crossentropy(teacher_logits, logits, temperature):
    teacher_logits = ops.stop_gradient(ops.cast(teacher_logits, "float32"))
    targets = ops.softmax(teacher_logits / temperature)
    logits = ops.cast(logits, "float32") / temperature
    return temperature**2 * keras.losses.categorical_crossentropy(targets, logits, from_logits=True)


@keras.saving.register_keras_serializable(package="keras_bot")
class SoftCrossentropy(keras.losses.Loss):
    """Soft loss T^2 * l(softmax(r / T), softmax(z / T)).

    The labels are the teacher's logits r, the predictions the student's logits z.

    Args:
        temperature: T, above 0.
        reduction, name: as in every Keras loss.

    Raises:
        ValueError: if the temperature is out of range.
    """

    def __init__(
        self,
        temperature: float = 20.0,
        reduction: str | None = "sum_over_batch_size",
        name: str = "soft_crossentropy",
    ) -> None:
        super().__init__(name=name, reduction=reduction, dtype="float32")
        _check(temperature)
        self.temperature = float(temperature)

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """Returns the per-example loss, (batch,)."""
        return _soft_crossentropy(y_true, y_pred, self.temperature)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor arguments."""
        return {**super().get_config(), "temperature": self.temperature}


@keras.saving.register_keras_serializable(package="keras_bot")
class DistillationModel(keras.Model):
    """Model that trains `student` with the help of `teacher` and otherwise behaves like the student.

    `keras.distillation.Distiller` differs: its first argument is the teacher, and by default it weights both losses.

    `compile` takes the student's arguments: the loss is the hard loss, on logits. `fit` adds the soft loss and
    keeps the student's regularization losses. `evaluate` and `predict` run only the student. `save`,
    `save_weights`, `load_weights` and `export` apply to the student and its optimizer, so checkpoints don't
    contain the teacher.

    The teacher is a frozen copy that computes in the student's dtype policy, except for its output layer, which
    stays in float32. The model passed in is not modified. Without a teacher, batches must contain its logits:
    (images, (labels, teacher_logits)).

    Args:
        student: functional or built Sequential model, images -> logits (batch, K).
        teacher: a trained model of the same kind, with as many classes; None if its logits come with the labels.
        temperature: T, above 0.
        hard_weight: None for the paper's hard + T^2 * soft; w in 0 … 1 for w * hard + (1 - w) * T^2 * soft.
        teacher_inputs: function that converts the student's inputs to the teacher's, for another image size or
            normalization.
        soft_loss: Keras loss on the teacher's and the student's logits; None is `SoftCrossentropy`.
        name: name of the model.

    Raises:
        ValueError: if a value is out of range, a model isn't functional or ends in softmax, or the class counts
            differ; in `compile`, if the loss expects probabilities.
    """

    def __init__(
        self,
        student: keras.Model,
        teacher: keras.Model | None = None,
        temperature: float = 20.0,
        hard_weight: float | None = None,
        teacher_inputs: Callable[[Tensor], Tensor] | None = None,
        soft_loss: keras.losses.Loss | None = None,
        name: str | None = None,
    ) -> None:
        classes = check_logits(student, "student")
        if teacher is not None and (teacher_classes := check_logits(teacher, "teacher")) != classes:
            raise ValueError(f"The teacher has {teacher_classes} classes, but the student has {classes}.")
        _check(temperature, hard_weight)
        policy = policy_of(student)
        super().__init__(name=name, dtype=policy, autocast=False)
        self.student = student
        self.teacher = None
        if teacher is not None:
            self.teacher = recast(teacher, policy)
            self.teacher.trainable = False
        self.temperature = temperature = float(temperature)
        self.hard_weight = None if hard_weight is None else float(hard_weight)
        self.teacher_inputs = teacher_inputs
        self.soft_loss = soft_loss or SoftCrossentropy(temperature)
        self.built = True

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        """Returns the student's logits."""
        return self.student(inputs, training=training)

    def compile(
        self, optimizer: str | keras.Optimizer = "rmsprop", loss: str | Callable | None = None, **options: Any
    ) -> None:
        """Compiles this model and the student with the same optimizer, so that the saved student includes its state.

        Args:
            optimizer: as in `keras.Model.compile`.
            loss: the hard loss, on logits.
            **options: the other arguments of `keras.Model.compile`.
        """
        check_loss(loss)
        super().compile(optimizer=optimizer, loss=loss, **options)
        self.student.compile(optimizer=self.optimizer, loss=loss, **options)

    def compute_loss(
        self,
        x: Tensor | None = None,
        y: Tensor | None = None,
        y_pred: Tensor | None = None,
        sample_weight: Tensor | None = None,
        training: bool = True,
    ) -> Tensor:
        """Returns the hard loss plus the student's regularization losses, in training also the soft loss."""
        y, teacher_logits = self._split_labels(y)
        loss = super().compute_loss(x, y, y_pred, sample_weight, training)
        if not training:
            return loss
        # As in the base class: on several replicas a regularization loss is divided by their number.
        penalties = sum(self._aggregate_additional_loss(penalty) for penalty in self.student.losses)
        if self.teacher is not None:
            x = x if self.teacher_inputs is None else self.teacher_inputs(x)
            teacher_logits = self.teacher(x, training=False)
        soft = self.soft_loss(teacher_logits, y_pred, sample_weight)
        if self.hard_weight is None:
            return loss + soft
        # `loss` is hard + penalties; adding (1 - w) * penalties keeps their total weight at 1.
        return self.hard_weight * loss + (1 - self.hard_weight) * (soft + penalties)

    def compute_metrics(self, x: Tensor, y: Tensor, y_pred: Tensor, sample_weight: Tensor | None = None) -> dict:
        """Computes the metrics on the labels."""
        return super().compute_metrics(x, self._split_labels(y)[0], y_pred, sample_weight)

    def _split_labels(self, y):
        """Splits `y` into the labels and the teacher's logits, None if there is a teacher model."""
        return y if self.teacher is None and isinstance(y, tuple | list) else (y, None)

    def save(self, filepath: _Path, overwrite: bool = True, zipped: bool | None = None, **options: Any) -> None:
        """Saves the student."""
        return self.student.save(filepath, overwrite=overwrite, zipped=zipped, **options)

    def save_weights(self, filepath: _Path, overwrite: bool = True, max_shard_size: float | None = None) -> None:
        """Saves the student's weights."""
        return self.student.save_weights(filepath, overwrite=overwrite, max_shard_size=max_shard_size)

    def load_weights(self, filepath: _Path, skip_mismatch: bool = False, **options: Any) -> None:
        """Loads the student's weights."""
        return self.student.load_weights(filepath, skip_mismatch=skip_mismatch, **options)

    def export(
        self,
        filepath: _Path,
        format: str = "tf_saved_model",
        verbose: bool | None = None,
        input_signature: Any = None,
        **options: Any,
    ) -> None:
        """Exports the student."""
        return self.student.export(filepath, format, verbose, input_signature, **options)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor arguments, with the models serialized."""
        parts = {name: keras.saving.serialize_keras_object(getattr(self, name)) for name in _SERIALIZED}
        return {"name": self.name, **parts, "temperature": self.temperature, "hard_weight": self.hard_weight}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """Builds the model from `get_config`'s result, with new weights."""
        parts = {name: keras.saving.deserialize_keras_object(config[name]) for name in _SERIALIZED}
        return cls(**{**config, **parts})


keras.saving.get_custom_objects()["keras_bot>Distiller"] = DistillationModel  # its name in files of version 0.1.0
__getattr__ = renamed_names(__name__, {"Distiller": "keras_bot.tricks.DistillationModel"})


def _check(temperature, hard_weight=None):
    if not temperature > 0:
        raise ValueError(f"temperature must be above 0, received {temperature!r}.")
    if hard_weight is not None and not 0 <= hard_weight <= 1:
        raise ValueError(f"hard_weight must be None or in 0 … 1, received {hard_weight!r}.")
