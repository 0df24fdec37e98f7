"""The paper's FCN (Table 9), and the resizing, loss and auxiliary loss shared by all segmentation networks.

    C5 -> 3x3 to C / 4, batch norm, ReLU -> dropout 0.1 -> 1x1 to K -> bilinear to the image size         "logits"
    C4 -> the same                                                                                       "aux"

This is GluonCV's FCN, whose backbone has output stride 8. GluonCV's training script weights the auxiliary loss by 0.5
and gives the heads ten times the backbone's learning rate. GluonCV resizes with aligned corners, Keras with half-pixel
centres. The two differ by at most half a stride, which training compensates for.

Sources: Long et al., CVPR 2015; He et al., CVPR 2019, section 6.2; GluonCV, `fcn.py` and the segmentation script.
"""

from typing import Any, Self

import keras
from keras import layers, ops

from keras_bot.errors import MisuseError
from keras_bot.models.layers import KERNEL_INITIALIZER, conv_bn
from keras_bot.tasks.segmentation.labels import IGNORE


def fcn(
    backbone: keras.Model,
    num_classes: int,
    *,
    aux: bool = True,
    channels: int | None = None,
    dropout: float = 0.1,
    name: str = "fcn",
) -> keras.Model:
    """Builds an FCN: normalised images (B, H, W, 3) -> {"logits": float32 (B, H, W, K), "aux": the same}.

    The network shares the backbone's weights. Any image size and output stride works; the paper's stride is 8.

    Args:
        backbone: images -> a dict with C5, and C4 for the auxiliary head.
        num_classes: K.
        aux: whether to add an auxiliary head.
        channels: filters of the 3x3 convolution; None means a quarter of its input channels.
        dropout: rate before the last convolution.
        name: name of the model.

    Raises:
        MisuseError: If the backbone lacks a level or an argument is out of range.
    """
    levels = check_head(backbone, num_classes, ("C5", "C4") if aux else ("C5",), dropout)
    if channels is not None and channels < 1:
        raise MisuseError(
            f"channels must be at least 1, or None for a quarter of the input's channels, received {channels}."
        )
    image = backbone.input
    outputs = {}
    for output, level in zip(("logits", "aux"), levels, strict=False):
        x = _fcn_head(levels[level], num_classes, channels, dropout, name=f"{output}_head")
        outputs[output] = ResizeLike(name=output)([x, image])
    return keras.Model(image, outputs, name=name)


def _fcn_head(x, num_classes, channels, dropout, name):
    x = conv_bn(x, channels or max(1, x.shape[-1] // 4), 3, name=name)
    x = layers.Dropout(dropout, name=f"{name}_dropout")(x)
    return pixel_classifier(x, num_classes, name=f"{name}_classes")


def pixel_classifier(x: keras.KerasTensor, num_classes: int, *, name: str) -> keras.KerasTensor:
    """Applies a 1x1 convolution to logits (B, h, w, K), in float32 under every dtype policy."""
    return layers.Conv2D(num_classes, 1, kernel_initializer=KERNEL_INITIALIZER, dtype="float32", name=name)(x)


def check_head(backbone: keras.Model, num_classes: int, needed: tuple[str, ...], dropout: float) -> dict[str, Any]:
    """Returns the backbone outputs in `needed`, in that order. Raises MisuseError as in `fcn`."""
    outputs = getattr(backbone, "output", None)
    if not isinstance(outputs, dict) or not set(needed) <= set(outputs):
        names = ", ".join(sorted(outputs)) if isinstance(outputs, dict) else type(outputs).__name__
        raise MisuseError(
            f"The backbone must return a dict with {', '.join(sorted(needed))}, but it returns {names}. Use "
            "keras_bot.models.features or load_backbone."
        )
    if num_classes < 2:
        raise MisuseError(f"num_classes must be at least 2, received {num_classes}.")
    if not 0 <= dropout < 1:
        raise MisuseError(f"dropout must be at least 0 and less than 1, received {dropout}.")
    return {level: outputs[level] for level in needed}


@keras.saving.register_keras_serializable(package="keras_bot")
class ResizeLike(layers.Layer):
    """Bilinear resizing of x (B, h, w, C) to the size of a second input (B, H, W, …), with half-pixel centres.

    All sizes may be unknown. The layer computes in float32 unless `dtype` is set.
    """

    def __init__(self, dtype: str | keras.DTypePolicy = "float32", **options: Any) -> None:
        super().__init__(dtype=dtype, **options)

    def call(self, inputs: list[Any]) -> Any:
        """Returns x resized to (B, H, W, C); `inputs` is [x, like]."""
        x, like = inputs
        size = ops.shape(like)[1:3]
        if all(isinstance(edge, int) for edge in size):
            return ops.image.resize(x, size, interpolation="bilinear", data_format="channels_last")
        import tensorflow as tf  # Keras' resize needs static sizes; only TensorFlow graphs have unknown ones

        return tf.cast(tf.image.resize(x, size), x.dtype)

    def compute_output_spec(self, inputs: list[Any]) -> keras.KerasTensor:
        """Returns a spec of known rank, with the static sizes of the second input."""
        x, like = inputs
        return keras.KerasTensor((*like.shape[:3], x.shape[-1]), dtype=self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        """Returns the base config. Without this override, Keras rejects a dtype policy, as in recast copies."""
        return super().get_config()


@keras.saving.register_keras_serializable(package="keras_bot")
class PixelCrossentropy(keras.losses.Loss):
    """Cross-entropy of logits (B, H, W, K) with class masks (B, H, W), averaged over the batch's valid pixels.

    The loss of an image is the sum over its valid pixels, times B / (valid pixels in the batch). Keras' mean over the
    batch is then the mean over all valid pixels. The loss is 0 if no pixel is valid. Sample weights (B,) weight images.
    Each replica divides by the valid pixels in its own part of the batch.

    Args:
        ignore: the mask id that is excluded.
        reduction, name: as in every Keras loss.
    """

    def __init__(
        self,
        ignore: int = IGNORE,
        reduction: str | None = "sum_over_batch_size",
        name: str = "pixel_crossentropy",
    ) -> None:
        super().__init__(name=name, reduction=reduction, dtype="float32")
        self.ignore = ignore

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Returns the loss per image, (B,)."""
        masks = ops.cast(y_true, "int32")
        masks = ops.squeeze(masks, -1) if len(masks.shape) == 4 else masks
        valid = masks != self.ignore
        classes = ops.where(valid, masks, 0)
        losses = keras.losses.sparse_categorical_crossentropy(classes, ops.cast(y_pred, "float32"), from_logits=True)
        valid = ops.cast(valid, "float32")
        counts = ops.sum(valid, axis=(1, 2))
        batch = ops.cast(ops.shape(masks)[0], "float32")
        return ops.sum(losses * valid, axis=(1, 2)) * ops.divide_no_nan(batch, ops.sum(counts))

    def get_config(self) -> dict[str, Any]:
        """Returns all arguments."""
        return {**super().get_config(), "ignore": self.ignore}


@keras.saving.register_keras_serializable(package="keras_bot")
class Segmenter(keras.Model):
    """Trainable model around a network from `fcn` or `deeplabv3plus`.

    Train it with `compile(optimizer, PixelCrossentropy(), …)` and `fit`. The training loss includes the auxiliary
    logits; `evaluate`, `predict` and metrics use only "logits".

    Args:
        network: functional, images -> {"logits": …, optionally "aux": …}.
        aux_weight: weight of the auxiliary loss; 0.5 in GluonCV's script, 0.2 in its loss class.
        name: name of the model.

    Raises:
        MisuseError: If the network has other outputs or the weight is below 0.
    """

    def __init__(self, network: keras.Model, aux_weight: float = 0.5, name: str | None = None) -> None:
        outputs = getattr(network, "output", None)
        if not isinstance(outputs, dict) or "logits" not in outputs or not set(outputs) <= {"logits", "aux"}:
            raise MisuseError(
                f"The network must have the outputs logits and optionally aux, received {outputs}. Build it with fcn "
                "or deeplabv3plus."
            )
        if not aux_weight >= 0:
            raise MisuseError(f"aux_weight must be at least 0, received {aux_weight}.")
        super().__init__(name=name, dtype=network.dtype_policy, autocast=False)
        self.network = network
        self.aux_weight = aux_weight
        self.built = True

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Returns the network's dict in training, otherwise the logits, float32 (B, H, W, K)."""
        outputs = self.network(inputs, training=training)
        return outputs if training else outputs["logits"]

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Any:
        """Computes the loss, in training plus `aux_weight` times the auxiliary loss."""
        main, aux = _split(y_pred)
        loss = super().compute_loss(x, y, main, sample_weight, training)
        if aux is None or not training or not self.aux_weight:
            return loss
        return loss + self.aux_weight * keras.losses.get(self.loss)(y, aux, sample_weight)

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> dict[str, Any]:
        """Updates and returns the metrics on the logits."""
        return super().compute_metrics(x, y, _split(y_pred)[0], sample_weight)

    def get_config(self) -> dict[str, Any]:
        """Returns all arguments, with the network serialised."""
        network = keras.saving.serialize_keras_object(self.network)
        return {"name": self.name, "network": network, "aux_weight": self.aux_weight}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """Builds the model that `config` describes, with newly initialised weights."""
        return cls(**{**config, "network": keras.saving.deserialize_keras_object(config["network"])})


def _split(outputs):
    return (outputs["logits"], outputs.get("aux")) if isinstance(outputs, dict) else (outputs, None)
