"""Mixup (section 5.4).

What: train on blends of two examples, images and labels alike, instead of on the examples themselves.
Equation: x = lambda * x_i + (1 - lambda) * x_j,  y = lambda * y_i + (1 - lambda) * y_j,  lambda ~ Beta(alpha,
    alpha). One lambda a batch; the partner of an image is its mirror in the batch's order, j = B - 1 - i.
Shapes and dtypes: images (B, …) keep their float dtype (integers become the compute dtype), labels (B, K)
    become float32; both are mixed in float32 at least. Sample weights (B,) are optional.
The paper's value: alpha = 0.2, and 200 epochs instead of 120, since mixed examples ask for longer training.
Interactions: labels must be one-hot or soft, not class indices. Smoothing before or after gives the same labels. With
    distillation the teacher sees the mixed images too. Some train the last epochs unmixed: `MixUpOff`.
Reference: Zhang et al., "mixup", ICLR 2018, arXiv 1710.09412; He et al., CVPR 2019, equations 7 and 8.
"""

import math

import keras
from keras import ops

from keras_bot.tricks.labels import as_probabilities, is_integer

_KEYS = ("images", "labels", "sample_weight")


def mixup(x, partner, weight):
    """`weight * x + (1 - weight) * partner`, by operators only: for arrays and tensors of every framework."""
    return weight * x + (1 - weight) * partner


def mix_with_reversal(x, weight, ops=keras.ops):
    """`mixup` of a batch (B, …) with its own reversal, computed in float32 at least; the dtype stays.

    Args:
        x: a tensor of `ops`' framework.
        weight: a scalar.
        ops: has `cast` and `flip`; inside tf.data TensorFlow's, where Keras runs on another backend.

    Raises:
        ValueError: for integers of rank 1 or 2, which are class indices or one-hot labels that would be truncated.
    """
    if is_integer(x) and len(x.shape) <= 2:
        raise ValueError(
            f"Expected labels as floats, received integers of shape {tuple(x.shape)}. Apply keras.ops.one_hot to class "
            "indices, and cast one-hot or binary labels to float32."
        )
    wide = ops.cast(x, keras.backend.result_type(x.dtype, "float32"))
    mixed = mixup(wide, ops.flip(wide, axis=0), ops.cast(weight, wide.dtype))
    return ops.cast(mixed, x.dtype)


def symmetric_beta(uniforms, alpha: float, ops=keras.ops):
    """Beta(alpha, alpha) from two uniforms: a float32 scalar in 0 … 1.

    Bailey's polar method: Student's t with 2 * alpha degrees of freedom, mapped to the symmetric beta. It holds for
    every alpha above 0 and compiles with XLA; `keras.random.beta` doesn't, as TensorFlow's gamma has no XLA
    kernel. (Devroye, "Random variate generation in one line of code", WSC 1996.)

    Args:
        uniforms: float32 (2,), in [0, 1).
        alpha: above 0. Small values give weights near 0 or 1; 1 is uniform.
        ops: has `cos`, `expm1`, `log` and `sqrt`, as in `mix_with_reversal`.
    """
    cosine = ops.cos(2 * math.pi * uniforms[0])
    radius = ops.expm1(-ops.log(uniforms[1]) / alpha)
    return 0.5 * (1.0 + cosine / ops.sqrt(cosine * cosine + 1.0 / radius))


def draw_weight(alpha: float, seed):
    """One draw of lambda ~ Beta(alpha, alpha), float32, from a `keras.random.SeedGenerator`; see `symmetric_beta`."""
    return symmetric_beta(keras.random.uniform((2,), seed=seed, dtype="float32"), alpha)


@keras.saving.register_keras_serializable(package="keras_bot")
class MixUp(keras.layers.Layer):
    """Mixes every batch with its own reversal.

    Call it with `(images, labels)`, `(images, labels, sample_weight)` or a dictionary of these names: eagerly, in a
    model, under XLA, or in `tf.data` (TensorFlow backend) after `batch`, as `dataset.map(MixUp())`. It mixes unless
    it is called with `training=False`. In a parallel `map` the order of the draws isn't reproducible; leave out
    `num_parallel_calls` for exact repetition.

    Sample weights w are mixed like the rest, and each label counts by its weight: w = lambda * w_i + (1 - lambda) * w_j
    and y = (lambda * w_i * y_i + (1 - lambda) * w_j * y_j) / w. The weighted cross-entropy is then the mixture of the
    two examples' own, and an example of weight 0 adds nothing to the labels.

    Args:
        alpha: of Beta(alpha, alpha), above 0.
        seed: of the draws; None draws one.
        name, dtype: as in every Keras layer.

    Attributes:
        enabled: non-trainable float32 variable; set it to 0 and the layer returns its inputs unmixed, also in a
            running `tf.data` pipeline. Saved with the layer's weights.

    Raises:
        ValueError: for alpha out of range; when it is called, for labels that aren't (B, K) or are class indices,
            weights that aren't (B,), or another structure than the ones above. Binary labels (B, 1) must be floats.
    """

    def __init__(self, alpha: float = 0.2, seed: int | None = None, name: str | None = None, dtype=None):
        super().__init__(name=name, dtype=dtype, trainable=False, autocast=False)
        if not alpha > 0:
            raise ValueError(f"Expected alpha above 0, received {alpha!r}. To train without mixup leave the layer out.")
        self.alpha = float(alpha)
        self.seed = seed = None if seed is None else int(seed)
        self.seed_generator = keras.random.SeedGenerator(seed)
        self.enabled = self.add_weight(name="enabled", shape=(), initializer="ones", trainable=False, dtype="float32")

    def call(self, inputs, labels=None, sample_weight=None, training=True):
        """The mixed batch, in the structure of the inputs.

        Args:
            inputs: images (B, …), or everything in one tuple or dictionary.
            labels: (B, K), where `inputs` is the images alone, as `dataset.map` passes them.
            sample_weight: (B,), with such labels.
            training: False returns the batch unmixed.
        """
        if isinstance(labels, bool):  # called with (batch, training)
            labels, training = None, labels
        parts = self._unpack(inputs if labels is None else (inputs, labels, sample_weight))
        if training:
            weight = draw_weight(self.alpha, self.seed_generator)
            weight = 1.0 - self.enabled * (1.0 - weight)
            parts = _mix_batch(*parts, weight)
        parts = parts if parts[2] is not None else parts[:2]
        return dict(zip(_KEYS, parts, strict=False)) if isinstance(inputs, dict) else parts

    def _unpack(self, inputs):
        """Images, float labels and weights or None."""
        if isinstance(inputs, dict):
            if not {"images", "labels"} <= set(inputs) <= set(_KEYS):
                raise ValueError(f"Expected the keys images and labels, or {', '.join(_KEYS)}, got {sorted(inputs)}.")
            inputs = [inputs.get(key) for key in _KEYS]
        if not isinstance(inputs, list | tuple) or len(inputs) not in (2, 3):
            raise ValueError(f"Expected (images, labels) or (images, labels, sample_weight), received {inputs!r}.")
        images, labels, weights = (*inputs, None)[:3]
        if len(labels.shape) != 2:
            raise ValueError(
                "Expected one-hot or soft labels (batch, classes), "
                f"received the shape {tuple(labels.shape)}. Apply keras.ops.one_hot first."
            )
        if weights is not None and len(weights.shape) != 1:
            raise ValueError(f"Expected sample weights (batch,), received the shape {tuple(weights.shape)}.")
        if not keras.backend.is_float_dtype(images.dtype):
            images = ops.cast(images, self.compute_dtype)
        return images, as_probabilities(labels), None if weights is None else ops.cast(weights, "float32")

    def get_config(self):
        """All arguments."""
        config = super().get_config()
        return {"name": config["name"], "dtype": config["dtype"], "alpha": self.alpha, "seed": self.seed}


def _mix_batch(images, labels, weights, weight):
    """The mixed images, labels and sample weights, None if there are none."""
    images = mix_with_reversal(images, weight)
    if weights is None:
        return images, mix_with_reversal(labels, weight), None
    mixed = mix_with_reversal(weights, weight)
    weighted = mix_with_reversal(weights[:, None] * labels, weight)
    safe = ops.where(mixed > 0, mixed, 1.0)[:, None]
    return images, ops.where(mixed[:, None] > 0, weighted / safe, mix_with_reversal(labels, weight)), mixed
