"""Validation of models that must return logits, and of losses that must take them."""

from collections.abc import Callable

import keras

from keras_bot.surgery import output_layers
from keras_bot.tensors import Tensor

_FROM_PROBABILITIES = (  # functions that expect probabilities by default
    "categorical_crossentropy",
    "sparse_categorical_crossentropy",
    "categorical_focal_crossentropy",
    "kl_divergence",
)


def check_logits(model: keras.Model, role: str = "model") -> int:
    """Returns the number of classes. Raises ValueError, naming `role`, unless the model's only output is logits."""
    outputs = getattr(model, "outputs", None) or []
    if len(outputs) != 1:
        raise ValueError(
            f"The {role} must be a functional or built Sequential model with one output, received {model!r}. "
            "Wrap other models: keras.Model(inputs, model(inputs))."
        )
    operation = output_layers(model)[0]
    is_softmax = type(operation).__name__ == "Softmax"
    if is_softmax or getattr(operation, "activation", None) is keras.activations.softmax:
        raise ValueError(
            f"The {role} must return logits, but {model.name!r} ends in softmax ({operation.name!r}). Build it "
            "without the last activation: in keras.applications and keras_bot with classifier_activation=None."
        )
    return outputs[0].shape[-1]


def check_loss(loss: str | Callable[[Tensor, Tensor], Tensor] | None) -> None:
    """Raises ValueError unless a Keras loss, its name or its function takes logits."""
    loss = keras.losses.get(loss) if isinstance(loss, str) else loss
    if loss is None:
        raise ValueError("`compile` needs the hard loss, on logits, as `loss`; received None.")
    config = loss.get_config() if isinstance(loss, keras.losses.Loss) else {}
    class_takes_logits = config.get("from_logits", type(loss) is not keras.losses.KLDivergence)
    if not class_takes_logits or getattr(loss, "__name__", "") in _FROM_PROBABILITIES:
        raise ValueError(
            f"The loss {loss!r} expects probabilities, but the student returns logits. "
            "Use for example keras.losses.CategoricalCrossentropy(from_logits=True)."
        )
