"""How large a network is: its parameters and its multiply-adds, as the paper's Table 5 counts them."""

import math

import keras
from keras import layers


def count_parameters(model: keras.Model) -> int:
    """The trainable parameters. Batch norm's moving statistics are none: ResNet-50-D has 25,576,264."""
    return sum(math.prod(variable.shape) for variable in model.trainable_variables)


def count_flops(model: keras.Model, image_size: int) -> int:
    """Multiply-adds of the convolutions and dense layers for one image of image_size x image_size.

    What the paper's Table 5 calls FLOPs. A kernel is applied once at each output position, so a layer costs
    the kernel's size times the height and width of its output. `model` is functional, has one input and uses
    each layer once.

    Raises:
        ValueError: for an image_size below 1, or another than the model's where that is fixed.
    """
    *sizes, channels = model.input_shape[1:]
    if image_size < 1 or any(size not in (None, image_size) for size in sizes):
        raise ValueError(f"Expected image_size from 1 on that suits input_shape {sizes}, received {image_size}.")
    counted = [layer for layer in model.layers if _kernels(layer)]
    probe = keras.Model(model.input, [layer.output for layer in counted])
    shapes = probe.compute_output_shape((1, image_size, image_size, channels))
    return sum(_kernels(layer) * math.prod(shape[1:-1]) for layer, shape in zip(counted, shapes, strict=True))


def _kernels(layer):
    """Multiply-adds of a layer at one output position; 0 for a layer that has no kernel."""
    if isinstance(layer, layers.SeparableConv2D):
        return math.prod(layer.depthwise_kernel.shape) + math.prod(layer.pointwise_kernel.shape)
    if isinstance(layer, (layers.Conv2D, layers.DepthwiseConv2D, layers.Dense)):
        return math.prod(layer.kernel.shape)
    return 0
