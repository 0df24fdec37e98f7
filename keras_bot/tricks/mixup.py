"""Mixup (section 5.4).

What: train on blends of two examples, images and labels alike, instead of on the examples themselves.
Equation: x = lambda * x_i + (1 - lambda) * x_j,  y = lambda * y_i + (1 - lambda) * y_j,  lambda ~ Beta(alpha,
    alpha). One lambda a batch; the partner of an image is its mirror in the batch's order, j = B - 1 - i.
Shapes and dtypes: images (B, …) keep their float dtype (integers become the compute dtype), labels (B, K)
    become float32; both are mixed in float32 at least.
The paper's value: alpha = 0.2, and 200 epochs instead of 120, since mixed examples ask for longer training.
Interactions: labels must be one-hot or soft. Smoothing before or after gives the same labels. With
    distillation the teacher sees the mixed images too. Some train the last epochs unmixed: `MixUpOff`.
Reference: Zhang et al., "mixup", ICLR 2018, arXiv 1710.09412; He et al., CVPR 2019, equations 7 and 8.
"""

import math

import keras
from keras import ops


def mixup(x, partner, weight):
    """`weight * x + (1 - weight) * partner`, by operators only: for arrays and tensors of every framework."""
    return weight * x + (1 - weight) * partner


def mix_with_reversal(x, weight, ops=keras.ops):
    """`mixup` of a batch (B, …) with its own reversal, computed in float32 at least; the dtype stays.

    Args:
        x: a tensor of `ops`' framework.
        weight: a scalar.
        ops: has `cast` and `flip`; inside tf.data TensorFlow's, where Keras runs on another backend.
    """
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

    Call it with `(images, labels)` or `{"images": …, "labels": …}`: eagerly, in a model, under XLA, or in
    `tf.data`'s `map` (TensorFlow backend) after `batch`. It mixes unless it is called with `training=False`.
    In a parallel `map` the order of the draws isn't reproducible; leave out `num_parallel_calls` for exact
    repetition.

    Args:
        alpha: of Beta(alpha, alpha), above 0.
        seed: of the draws; None draws one.
        name, dtype: as in every Keras layer.

    Attributes:
        enabled: non-trainable float32 variable; set it to 0 and the layer hands on what it gets, also in a
            running `tf.data` pipeline. Saved with the layer's weights.

    Raises:
        ValueError: for alpha out of range, labels that aren't (B, K), or keys other than images and labels.
    """

    def __init__(self, alpha: float = 0.2, seed: int | None = None, name: str | None = None, dtype=None):
        super().__init__(name=name, dtype=dtype, trainable=False, autocast=False)
        if not alpha > 0:
            raise ValueError(f"Expected alpha above 0, received {alpha!r}. To train without mixup leave the layer out.")
        self.alpha = alpha
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)
        self.enabled = self.add_weight(name="enabled", shape=(), initializer="ones", trainable=False, dtype="float32")

    def call(self, inputs, training=True):
        """The mixed batch, in the structure of `inputs`."""
        images, labels = self._unpack(inputs)
        if training:
            weight = draw_weight(self.alpha, self.seed_generator)
            weight = 1.0 - self.enabled * (1.0 - weight)
            images, labels = mix_with_reversal(images, weight), mix_with_reversal(labels, weight)
        return {"images": images, "labels": labels} if isinstance(inputs, dict) else (images, labels)

    def _unpack(self, inputs):
        if isinstance(inputs, dict):
            if set(inputs) != {"images", "labels"}:
                raise ValueError(f"Expected the keys images and labels, received {sorted(inputs)}.")
            inputs = inputs["images"], inputs["labels"]
        images, labels = inputs
        if len(labels.shape) != 2:
            raise ValueError(
                "Expected one-hot or soft labels (batch, classes), "
                f"received the shape {tuple(labels.shape)}. Apply keras.ops.one_hot first."
            )
        if not keras.backend.is_float_dtype(images.dtype):
            images = ops.cast(images, self.compute_dtype)
        return images, ops.cast(labels, "float32")

    def get_config(self):
        """All arguments."""
        config = super().get_config()
        return {"name": config["name"], "dtype": config["dtype"], "alpha": self.alpha, "seed": self.seed}
