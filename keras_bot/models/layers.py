"""Building blocks of the networks: convolution with batch norm, and ResNet stems, residual paths and shortcuts.

`conv_bn` and `depthwise_bn` define padding, initialization and batch norm in one place (section 2.1 of the paper):

- Padding is symmetric, k // 2 on every side, as in MXNet and PyTorch. Keras' "same" is equivalent at stride 1, but at
  stride 2 it pads the bottom and the right more, so explicit zero padding is used there.
- Kernels are Xavier uniform, U(-a, a) with a = sqrt(6 / (fan_in + fan_out)), where a fan is channels times
  kernel area, as in MXNet. Depthwise kernels use it too, with fan_in = channels * area and fan_out = area.
  Convolutions have no bias, since batch norm adds one.
- Batch norm is initialized with gamma 1 and beta 0, and has momentum 0.9 and epsilon 1e-5.

Networks that differ pass arguments: Inception-V3 for its unpadded convolutions and epsilon, and the TensorFlow
variants.

All layers are Keras' own, so a saved model loads without keras_bot. Tensors are (batch, height, width, channels).
"""

from typing import Any

import keras
from keras import layers

BN_MOMENTUM = 0.9
BN_EPSILON = 1e-5
KERNEL_INITIALIZER = "glorot_uniform"


def scale_channels(channels: int, width: float) -> int:
    """Scales a number of channels by `width`, to at least 1."""
    return max(1, round(channels * width))


def conv_bn(
    x: keras.KerasTensor,
    filters: int,
    kernel_size: int | tuple[int, int],
    *,
    name: str,
    strides: int = 1,
    padding: str = "symmetric",
    gamma: str = "ones",
    **ending: Any,
) -> keras.KerasTensor:
    """Applies convolution, batch norm and ReLU.

    Maps (B, H, W, C) to (B, ceil(H / strides), ceil(W / strides), filters), for odd kernels and unless padding is
    "valid". The layers are named `name` + _pad, _conv, _bn and _relu.

    Args:
        x: features.
        filters: number of output channels.
        kernel_size: one number, or height and width.
        name: prefix of the layer names.
        strides: 1 or 2.
        padding: "symmetric", or Keras' "same" or "valid" (no padding).
        gamma: initializer of the batch norm's gamma.
        ending: other arguments of `norm_relu`.
    """
    x, padding = _pad(x, kernel_size, strides, padding, name)
    options = {"use_bias": False, "kernel_initializer": KERNEL_INITIALIZER, "name": f"{name}_conv"}
    x = layers.Conv2D(filters, kernel_size, strides, padding, **options)(x)
    return norm_relu(x, name=name, gamma=gamma, **ending)


def depthwise_bn(
    x: keras.KerasTensor, *, name: str, strides: int = 1, padding: str = "symmetric", **ending: Any
) -> keras.KerasTensor:
    """Applies a 3x3 depthwise convolution, batch norm and ReLU. Arguments and layer names are those of `conv_bn`."""
    x, padding = _pad(x, 3, strides, padding, name)
    options = {"use_bias": False, "depthwise_initializer": KERNEL_INITIALIZER, "name": f"{name}_conv"}
    x = layers.DepthwiseConv2D(3, strides, padding, **options)(x)
    return norm_relu(x, name=name, **ending)


def norm_relu(
    x: keras.KerasTensor,
    *,
    name: str,
    relu: bool = True,
    gamma: str = "ones",
    epsilon: float = BN_EPSILON,
    ceiling: float | None = None,
    end: str | None = None,
) -> keras.KerasTensor:
    """Applies batch norm and, if `relu`, a ReLU with maximum `ceiling` (None: unbounded), named `end` if given."""
    options = {"momentum": BN_MOMENTUM, "epsilon": epsilon, "gamma_initializer": gamma}
    x = layers.BatchNormalization(**options, name=f"{name}_bn")(x)
    return layers.ReLU(ceiling, name=end or f"{name}_relu")(x) if relu else x


def zero_pad(x: keras.KerasTensor, name: str) -> keras.KerasTensor:
    """Pads height and width with one zero on each side."""
    return layers.ZeroPadding2D(1, name=f"{name}_pad")(x)


def _pad(x, kernel_size, strides, padding, name):
    """Returns `x`, explicitly padded if necessary, and the padding argument for the convolution."""
    if padding != "symmetric":
        return x, padding
    if strides == 1 or kernel_size == 1:
        return x, "same"
    return layers.ZeroPadding2D(kernel_size // 2, name=f"{name}_pad")(x), "valid"


def _max_pool(x, name):
    """Applies a 3x3/2 max pool with symmetric padding; zeros are valid because x is the output of a ReLU."""
    return layers.MaxPooling2D(3, 2, name=f"{name}_pool")(zero_pad(x, f"{name}_pool"))


def stem_7x7(x: keras.KerasTensor, channels: int) -> keras.KerasTensor:
    """Applies ResNet's input stem: 7x7/2, 3x3/2 max pool; stride 4."""
    return _max_pool(conv_bn(x, channels, 7, strides=2, name="stem"), "stem")


def stem_deep(x: keras.KerasTensor, channels: int) -> keras.KerasTensor:
    """Applies ResNet-C's input stem (4.2): 3x3/2, 3x3, 3x3, 3x3/2 max pool; stride 4. The first two have channels // 2.

    The paper's text also gives the second convolution stride 2. Its figure, its FLOPs and GluonCV don't.
    """
    narrow = max(1, channels // 2)
    x = conv_bn(x, narrow, 3, strides=2, name="stem_1")
    x = conv_bn(x, narrow, 3, name="stem_2")
    return _max_pool(conv_bn(x, channels, 3, name="stem_3"), "stem")


def stem_3x3(x: keras.KerasTensor, channels: int) -> keras.KerasTensor:
    """Applies the input stem for CIFAR's 32x32 images (He et al. 2016, 4.2): 3x3; stride 1."""
    return conv_bn(x, channels, 3, name="stem")


def bottleneck(
    x: keras.KerasTensor, channels: int, strides: int, *, strided_convolution: int, gamma: str, name: str
) -> keras.KerasTensor:
    """Applies path A of the deep ResNets: 1x1, 3x3, 1x1 to 4 * channels. `strided_convolution` is 1 or 2.

    The first convolution has the strides in ResNet-A, the second in B, C and D.
    """
    x = conv_bn(x, channels, 1, strides=strides if strided_convolution == 1 else 1, name=f"{name}_1")
    x = conv_bn(x, channels, 3, strides=strides if strided_convolution == 2 else 1, name=f"{name}_2")
    return conv_bn(x, 4 * channels, 1, relu=False, gamma=gamma, name=f"{name}_3")


def basic(x: keras.KerasTensor, channels: int, strides: int, *, gamma: str, name: str) -> keras.KerasTensor:
    """Applies path A of the shallow ResNets: 3x3, 3x3. The first always has the stride, so B equals A."""
    x = conv_bn(x, channels, 3, strides=strides, name=f"{name}_1")
    return conv_bn(x, channels, 3, relu=False, gamma=gamma, name=f"{name}_2")


def shortcut_conv(x: keras.KerasTensor, channels: int, strides: int, *, name: str) -> keras.KerasTensor:
    """Applies path B of ResNet-A, B, C: 1x1 with the stride; at stride 2 it skips three quarters of its input."""
    return conv_bn(x, channels, 1, strides=strides, relu=False, name=name)


def shortcut_pool(x: keras.KerasTensor, channels: int, strides: int, *, name: str) -> keras.KerasTensor:
    """Applies path B of ResNet-D (4.2): 2x2/2 average pool, then 1x1. At stride 1 (stage 1) there is no pool.

    At odd sizes the last window averages only existing pixels, as GluonCV's `ceil_mode` without `count_include_pad`.
    """
    if strides > 1:
        x = layers.AveragePooling2D(strides, strides, "same", name=f"{name}_pool")(x)
    return conv_bn(x, channels, 1, relu=False, name=name)


def classifier(x: keras.KerasTensor, num_classes: int, activation: str | None, *, name: str) -> keras.KerasTensor:
    """Maps features (B, C) to logits, or `activation` of the logits, (B, num_classes), in float32 (3.2)."""
    return layers.Dense(num_classes, activation, kernel_initializer=KERNEL_INITIALIZER, dtype="float32", name=name)(x)
