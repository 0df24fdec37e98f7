"""Dilated networks: the last stages keep their resolution by dilation instead of strides, with the same weights.

For segmentation the paper's FCN uses features of stride 8: stages 3 and 4 of the networks then have dilation 2
and 4. A convolution that loses its stride gets the dilation of the previous stage, so subsampling the features by the
removed stride reproduces the original ones. With D's shortcuts this is only approximate, since their pooling is removed
with the stride, as in GluonCV. In MobileNet the depthwise convolutions are dilated. Inception-V3 is not supported: max
pools halve its height and width in parallel to convolutions, and Keras' max pools have no dilation.
"""

import re

import keras

OUTPUT_STRIDES = (8, 16, 32)


def dilate(model: keras.Model, output_stride: int) -> keras.Model:
    """Copies an ImageNet network of `create_model`, including its weights, so that its features have `output_stride`.

    Args:
        model: functional, from `create_model` or loaded, with the original layer names. It is not modified.
        output_stride: 8, 16 or 32; 32 leaves the architecture unchanged.

    Raises:
        ValueError: if the stride is another one, the layers don't have `create_model`'s names, or, below stride 32, the
            stages contain max pools.
    """
    if output_stride not in OUTPUT_STRIDES:
        raise ValueError(f"output_stride must be 8, 16 or 32, received {output_stride!r}.")
    present = {layer.name for layer in model.layers}
    if not {"C2", "C5"} <= present:
        raise ValueError(f"{model.name!r} has no layers C2 … C5. Pass one of keras_bot's ImageNet networks.")
    pools = any(isinstance(layer, keras.layers.MaxPooling2D) and _stage(layer) for layer in model.layers)
    if pools and output_stride < 32:
        raise ValueError(
            f"output_stride={output_stride} needs dilation, but the stages of {model.name!r} contain max pools, which "
            "cannot be dilated. Use output_stride=32, or a ResNet or MobileNet."
        )
    dilations = {stage: max(1, 2 ** (stage + 1) // output_stride) for stage in (1, 2, 3, 4)}

    def rebuild(layer):
        config = layer.get_config()
        _change(config, layer, dilations)
        return type(layer).from_config(config)

    copy = keras.models.clone_model(model, clone_function=rebuild)
    copy.set_weights(model.get_weights())
    return copy


def _stage(layer) -> int:
    """Returns the number of the layer's stage, 0 if it is in none."""
    place = re.match(r"stage(\d)_", layer.name)
    return int(place[1]) if place else 0


def _change(config, layer, dilations):
    stage = _stage(layer)
    if not stage or dilations[stage] == 1:
        return
    before, dilation = dilations[stage - 1], dilations[stage]
    if isinstance(layer, keras.layers.AveragePooling2D):
        config.update(pool_size=(1, 1), strides=(1, 1))
    elif isinstance(layer, keras.layers.ZeroPadding2D):
        config["padding"] = before
    elif isinstance(layer, keras.layers.Conv2D | keras.layers.DepthwiseConv2D):
        strided = layer.strides != (1, 1)
        config["strides"] = (1, 1)
        if layer.kernel_size == (3, 3):
            config["dilation_rate"] = (before, before) if strided else (dilation, dilation)
