"""A network whose late stages keep their resolution: dilated convolutions in place of strides, the weights as they are.

For segmentation the paper's FCN takes features of stride 8: stages 3 and 4 of `create`'s networks then have dilation 2
and 4. A convolution that had the stride keeps the dilation of the stage before, so that every second place of every
second row is what the network gave without; with D's shortcuts, whose pooling goes with the stride as in GluonCV,
nearly. Of MobileNet the convolutions meant are the depthwise ones. Inception-V3 can't be dilated: max pools halve its
height and width beside the convolutions, and Keras' have no dilation.
"""

import re

import keras

OUTPUT_STRIDES = (8, 16, 32)


def dilate(model: keras.Model, output_stride: int) -> keras.Model:
    """A copy of an ImageNet network of `create`, weights included, whose features end at a stride of `output_stride`.

    Args:
        model: from `create` or loaded; functional, with its layers' names. It isn't touched.
        output_stride: 8, 16 or 32; 32 is the network as it is.

    Raises:
        ValueError: for another stride, a model whose layers aren't named as `create` does, or one that pools in its
            stages.
    """
    if output_stride not in OUTPUT_STRIDES:
        raise ValueError(f"Expected output_stride as 8, 16 or 32, received {output_stride!r}.")
    present = {layer.name for layer in model.layers}
    if not {"C2", "C5"} <= present:
        raise ValueError(f"Expected an ImageNet network of keras_bot with layers C2 … C5, received {model.name!r}.")
    pools = any(isinstance(layer, keras.layers.MaxPooling2D) and _stage(layer) for layer in model.layers)
    if pools and output_stride < 32:
        raise ValueError(
            f"Expected a ResNet or MobileNet for an output_stride of {output_stride}, received {model.name!r}, whose "
            "stages have max pools, which can't be dilated. Take output_stride=32 or another network."
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
    """The number of the stage that a layer is in, 0 outside."""
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
