"""Mixup (section 5.4).

What: train on convex combinations of two examples, both images and labels, instead of on single examples.
Equation: x = lambda * x_i + (1 - lambda) * x_j,  y = lambda * y_i + (1 - lambda) * y_j,  lambda ~ Beta(alpha,
    alpha). One lambda per batch; each image is mixed with the one at its place in the reversed batch, j = B - 1 - i.
Shapes and dtypes: images (B, …) keep their float dtype (integers become the compute dtype), labels (B, K)
    become float32; both are mixed in at least float32. Sample weights (B,) are optional.
The paper's value: alpha = 0.2, and 200 epochs instead of 120, because mixup needs longer training.
Interactions: labels must be one-hot or soft, not class indices. Smoothing before or after gives the same labels. With
    distillation the teacher also receives the mixed images. To train the last epochs without mixup, use `MixUpOff`, or
    pass `enabled=is_mixed_epoch(…)` to `mix_batch`.
Reference: Zhang et al., "mixup", ICLR 2018, arXiv 1710.09412; He et al., CVPR 2019, equations 7 and 8.
"""

import math
from typing import Any

import keras
from keras import ops

from keras_bot.tensors import Tensor
from keras_bot.tricks.labels import as_probabilities, is_integer

_KEYS = ("images", "labels", "sample_weight")


def mixup(x: Tensor, partner: Tensor, weight: float | Tensor) -> Tensor:
    """Returns `weight * x + (1 - weight) * partner`, using only operators, for arrays and tensors of any framework."""
    return weight * x + (1 - weight) * partner


def mix_batch(
    images: Tensor,
    labels: Tensor,
    uniforms: Tensor,
    alpha: float,
    *,
    sample_weight: Tensor | None = None,
    enabled: bool | Tensor = True,
    ops: Any = keras.ops,
) -> tuple[Tensor, ...]:
    """Mixes a batch with its reversal. The layer calls it; it can also be called directly in `tf.data`.

    Args:
        images: (B, …). The dtype is kept.
        labels: (B, K), one-hot or soft floats. They are not checked.
        uniforms: two random numbers, see `symmetric_beta`.
        alpha: parameter of Beta(alpha, alpha), above 0.
        sample_weight: None, or float weights (B,), see `MixUp`.
        enabled: scalar boolean; if false, lambda is 1.
        ops: namespace with `cast`, `flip`, `where` and the functions of `symmetric_beta`. In tf.data pass TensorFlow's,
            because Keras may run on another backend.

    Returns:
        The mixed (images, labels) or (images, labels, sample_weight).

    Raises:
        ValueError: for integers of rank 1 or 2: class indices, or one-hot labels that would be truncated.
    """
    weight = ops.where(enabled, symmetric_beta(uniforms, alpha, ops), 1.0)
    images = mix_with_reversal(images, weight, ops)
    mixed_labels = mix_with_reversal(labels, weight, ops)
    if sample_weight is None:
        return images, mixed_labels
    mixed_weights = mix_with_reversal(sample_weight, weight, ops)
    weighted = mix_with_reversal(sample_weight[:, None] * labels, weight, ops)
    divisor = ops.where(mixed_weights > 0, mixed_weights, 1.0)[:, None]
    return images, ops.where(mixed_weights[:, None] > 0, weighted / divisor, mixed_labels), mixed_weights


def is_mixed_epoch(epoch: int | Tensor, epochs: int, last_epochs: int) -> bool | Tensor:
    """Returns whether mixup is on in `epoch`, counted from 0: the last `last_epochs` of `epochs` train without it."""
    return epoch < epochs - last_epochs


def mix_with_reversal(x: Tensor, weight: float | Tensor, ops: Any = keras.ops) -> Tensor:
    """Mixes a batch (B, …) with its reversal, computed in at least float32; the dtype is kept.

    Args:
        x: tensor of `ops`' framework.
        weight: scalar lambda.
        ops: see `mix_batch`.

    Raises:
        ValueError: for integers of rank 1 or 2: class indices, or one-hot labels that would be truncated.
    """
    if is_integer(x) and len(x.shape) <= 2:
        raise ValueError(
            f"labels must be floats, received integers of shape {tuple(x.shape)}. Apply keras.ops.one_hot to class "
            "indices, and cast one-hot or binary labels to float32."
        )
    wide = ops.cast(x, keras.backend.result_type(x.dtype, "float32"))
    mixed = mixup(wide, ops.flip(wide, axis=0), ops.cast(weight, wide.dtype))
    return ops.cast(mixed, x.dtype)


def symmetric_beta(uniforms: Tensor, alpha: float, ops: Any = keras.ops) -> Tensor:
    """Transforms two uniform samples to a sample of Beta(alpha, alpha), a float32 scalar in 0 … 1.

    Uses Bailey's polar method: Student's t with 2 * alpha degrees of freedom, mapped to the symmetric beta. It is valid
    for every alpha above 0 and compiles with XLA. `keras.random.beta` doesn't, because TensorFlow's gamma has no XLA
    kernel. (Devroye, "Random variate generation in one line of code", WSC 1996.)

    Args:
        uniforms: float32 (2,), in [0, 1).
        alpha: above 0. Small values give weights near 0 or 1; 1 is uniform.
        ops: namespace with `cos`, `expm1`, `log` and `sqrt`, see `mix_batch`.
    """
    cosine = ops.cos(2 * math.pi * uniforms[0])
    radius = ops.expm1(-ops.log(uniforms[1]) / alpha)
    return 0.5 * (1.0 + cosine / ops.sqrt(cosine * cosine + 1.0 / radius))


def draw_weight(alpha: float, seed: keras.random.SeedGenerator) -> Tensor:
    """Samples lambda ~ Beta(alpha, alpha), a float32 scalar, with a `keras.random.SeedGenerator` as `seed`."""
    return symmetric_beta(keras.random.uniform((2,), seed=seed, dtype="float32"), alpha)


@keras.saving.register_keras_serializable(package="keras_bot")
class MixUp(keras.layers.Layer):
    """Mixup with one lambda per batch and the reversed batch as partner; labels and sample weights are mixed too.

    `keras.layers.MixUp` differs: it draws one lambda per image, shuffles the partners, computes in the compute dtype,
    takes dictionaries of images and labels without sample weights, and doesn't check labels.

    Call it with `(images, labels)`, `(images, labels, sample_weight)` or a dictionary with these keys: eagerly, in a
    model, under XLA, or in `tf.data` (TensorFlow backend) after `batch`, as `dataset.map(MixUp())`. It mixes unless
    called with `training=False`. A parallel `map` makes the order of the random draws nondeterministic; omit
    `num_parallel_calls` for reproducible results.

    Sample weights w are mixed too, and labels are averaged by weight: w = lambda * w_i + (1 - lambda) * w_j and
    y = (lambda * w_i * y_i + (1 - lambda) * w_j * y_j) / w. The weighted cross-entropy then equals the same
    mixture of the two examples' weighted cross-entropies, and an example of weight 0 contributes nothing to the labels.

    Args:
        alpha: parameter of Beta(alpha, alpha), above 0.
        seed: random seed; None draws one.
        name, dtype: as in every Keras layer.

    Attributes:
        enabled: non-trainable float32 variable. While it is 0, the layer returns its inputs unmixed, also in a
            running `tf.data` pipeline. Saved with the layer's weights.

    Raises:
        ValueError: if alpha is out of range; when called, if labels aren't (B, K) or are class indices, weights
            aren't (B,), or the structure is not one of the above. Binary labels (B, 1) must be floats.
    """

    def __init__(
        self,
        alpha: float = 0.2,
        seed: int | None = None,
        name: str | None = None,
        dtype: str | keras.DTypePolicy | None = None,
    ) -> None:
        super().__init__(name=name, dtype=dtype, trainable=False, autocast=False)
        if not alpha > 0:
            raise ValueError(f"alpha must be above 0, received {alpha!r}. To train without mixup, remove the layer.")
        self.alpha = float(alpha)
        self.seed = seed = None if seed is None else int(seed)
        self.seed_generator = keras.random.SeedGenerator(seed)
        self.enabled: keras.Variable = self.add_weight(
            name="enabled", shape=(), initializer="ones", trainable=False, dtype="float32"
        )

    def call(
        self,
        inputs: Tensor | tuple[Tensor, ...] | dict[str, Tensor],
        labels: Tensor | None = None,
        sample_weight: Tensor | None = None,
        training: bool = True,
    ) -> tuple[Tensor, ...] | dict[str, Tensor]:
        """Returns the mixed batch, in the structure of the inputs.

        Args:
            inputs: images (B, …), or a tuple or dictionary with the whole batch.
            labels: (B, K), if `inputs` is only the images, as passed by `dataset.map`.
            sample_weight: (B,), if `labels` is passed.
            training: if False, the batch is returned unmixed.
        """
        if isinstance(labels, bool):  # called with (batch, training)
            training, labels = labels, None
        parts = self._unpack(inputs if labels is None else (inputs, labels, sample_weight))
        if training:
            images, labels, weights = parts
            uniforms = keras.random.uniform((2,), seed=self.seed_generator, dtype="float32")
            enabled = self.enabled > 0
            parts = mix_batch(images, labels, uniforms, self.alpha, sample_weight=weights, enabled=enabled)
        elif parts[2] is None:
            parts = parts[:2]
        return dict(zip(_KEYS, parts, strict=False)) if isinstance(inputs, dict) else parts

    def _unpack(self, inputs):
        """Returns float images, float labels, and weights or None."""
        if isinstance(inputs, dict):
            if not {"images", "labels"} <= set(inputs) <= set(_KEYS):
                raise ValueError(
                    f"inputs must have the keys images, labels and optionally sample_weight, received {sorted(inputs)}."
                )
            inputs = [inputs.get(key) for key in _KEYS]
        if not isinstance(inputs, list | tuple) or len(inputs) not in (2, 3):
            raise ValueError(f"MixUp needs (images, labels) or (images, labels, sample_weight), received {inputs!r}.")
        images, labels, weights = (*inputs, None)[:3]
        if len(labels.shape) != 2:
            raise ValueError(
                f"labels must be one-hot or soft (batch, classes), received the shape {tuple(labels.shape)}. "
                "Apply keras.ops.one_hot first."
            )
        if weights is not None and len(weights.shape) != 1:
            raise ValueError(f"sample_weight must be (batch,), received the shape {tuple(weights.shape)}.")
        if not keras.backend.is_float_dtype(images.dtype):
            images = ops.cast(images, self.compute_dtype)
        return images, as_probabilities(labels), None if weights is None else ops.cast(weights, "float32")

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor arguments."""
        config = super().get_config()
        return {"name": config["name"], "dtype": config["dtype"], "alpha": self.alpha, "seed": self.seed}
