"""Network size: parameters and multiply-adds, counted as in the paper's Table 5."""

import math

import keras
from keras import layers


def count_parameters(model: keras.Model) -> int:
    """Counts the trainable parameters, without batch norm's moving statistics: ResNet-50-D has 25,576,264."""
    return sum(math.prod(variable.shape) for variable in model.trainable_variables)


def count_flops(model: keras.Model, image_size: int) -> int:
    """Counts the multiply-adds of the convolutions and dense layers for one image of image_size x image_size.

    The paper's Table 5 calls these FLOPs. A kernel is applied once per output position, so the cost of a layer is
    the kernel's size times the height and width of its output. `model` must be functional, have one input and use
    each layer once.

    Raises:
        ValueError: if image_size is below 1 or differs from the model's fixed input size.
    """
    *sizes, channels = model.input_shape[1:]
    if image_size < 1 or any(size not in (None, image_size) for size in sizes):
        raise ValueError(
            f"image_size must be at least 1 and match the model's input size {sizes}, received {image_size}."
        )
    counted = [layer for layer in model.layers if _kernels(layer)]
    probe = keras.Model(model.input, [layer.output for layer in counted])
    shapes = probe.compute_output_shape((1, image_size, image_size, channels))
    return sum(_kernels(layer) * math.prod(shape[1:-1]) for layer, shape in zip(counted, shapes, strict=True))


def _kernels(layer):
    """Returns a layer's multiply-adds per output position, 0 without a kernel."""
    if isinstance(layer, layers.SeparableConv2D):
        return math.prod(layer.depthwise_kernel.shape) + math.prod(layer.pointwise_kernel.shape)
    if isinstance(layer, (layers.Conv2D, layers.DepthwiseConv2D, layers.Dense)):
        return math.prod(layer.kernel.shape)
    return 0
