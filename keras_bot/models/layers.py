"""The pieces the networks are made of: convolution with batch norm, a ResNet's stems, residual paths and shortcuts.

`conv_bn` and `depthwise_bn` are the one place that knows about padding, initialisation and batch norm (section 2.1 of
the paper):

- Padding is symmetric, k // 2 on every side, as in MXNet and PyTorch. Keras' "same" is that for stride 1, but
  for stride 2 it pads the bottom and the right more, so there the zeros are put explicitly.
- Kernels are Xavier uniform, U(-a, a) with a = sqrt(6 / (fan_in + fan_out)), where a fan is channels times
  kernel area, as in MXNet; so are depthwise ones, with fans of area and channels * area. Convolutions have no bias,
  since batch norm adds one.
- Batch norm starts at gamma 1, beta 0, with momentum 0.9 and epsilon 1e-5.

A network that is defined otherwise says so: Inception-V3's unpadded convolutions and its epsilon, and the networks
that are like TensorFlow's.

Everything is made of Keras' own layers, so that a saved model loads where keras_bot isn't installed. Tensors
are (batch, height, width, channels).
"""

from keras import layers

BN_MOMENTUM = 0.9
BN_EPSILON = 1e-5
KERNEL_INITIALIZER = "glorot_uniform"


def scale_channels(channels: int, width: float) -> int:
    """The channels of a network `width` times as wide, at least 1."""
    return max(1, round(channels * width))


def conv_bn(x, filters, kernel_size, *, name, strides=1, padding="symmetric", gamma="ones", **ending):
    """Convolution, batch norm and ReLU.

    From (B, H, W, C) to (B, ceil(H / strides), ceil(W / strides), filters), for odd kernels. The layers are called
    `name` + _pad, _conv, _bn and _relu.

    Args:
        x: features.
        filters: channels of the result.
        kernel_size: one number, or height and width.
        name: start of the layers' names.
        strides: 1 or 2.
        padding: "symmetric", or Keras' "same" or "valid", which is none.
        gamma: initialiser of the batch norm's scale.
        ending: of `norm_relu`.
    """
    x, padding = _pad(x, kernel_size, strides, padding, name)
    options = {"use_bias": False, "kernel_initializer": KERNEL_INITIALIZER, "name": f"{name}_conv"}
    x = layers.Conv2D(filters, kernel_size, strides, padding, **options)(x)
    return norm_relu(x, name=name, gamma=gamma, **ending)


def depthwise_bn(x, *, name, strides=1, padding="symmetric", **ending):
    """A 3x3 convolution of each channel by itself, batch norm and ReLU. Arguments and layers as of `conv_bn`."""
    x, padding = _pad(x, 3, strides, padding, name)
    options = {"use_bias": False, "depthwise_initializer": KERNEL_INITIALIZER, "name": f"{name}_conv"}
    x = layers.DepthwiseConv2D(3, strides, padding, **options)(x)
    return norm_relu(x, name=name, **ending)


def norm_relu(x, *, name, relu=True, gamma="ones", epsilon=BN_EPSILON, ceiling=None, end=None):
    """Batch norm and, unless `relu` is False, ReLU, up to `ceiling` if there is one, called `end` if that is given."""
    options = {"momentum": BN_MOMENTUM, "epsilon": epsilon, "gamma_initializer": gamma}
    x = layers.BatchNormalization(**options, name=f"{name}_bn")(x)
    return layers.ReLU(ceiling, name=end or f"{name}_relu")(x) if relu else x


def zero_pad(x, name):
    """A border of one zero."""
    return layers.ZeroPadding2D(1, name=f"{name}_pad")(x)


def _pad(x, kernel_size, strides, padding, name):
    """x and what is left for the convolution to pad."""
    if padding != "symmetric":
        return x, padding
    if strides == 1 or kernel_size == 1:
        return x, "same"
    return layers.ZeroPadding2D(kernel_size // 2, name=f"{name}_pad")(x), "valid"


def _max_pool(x, name):
    """3x3/2 max pool with symmetric padding; the zeros are right because x comes from a ReLU."""
    return layers.MaxPooling2D(3, 2, name=f"{name}_pool")(zero_pad(x, f"{name}_pool"))


def stem_7x7(x, channels):
    """ResNet's input stem: 7x7/2, 3x3/2 max pool; stride 4."""
    return _max_pool(conv_bn(x, channels, 7, strides=2, name="stem"), "stem")


def stem_deep(x, channels):
    """ResNet-C's input stem (4.2): 3x3/2, 3x3, 3x3, 3x3/2 max pool; stride 4. Two are of half the channels.

    The paper's text gives the second convolution stride 2 too. Its figure, its FLOPs and GluonCV don't.
    """
    narrow = max(1, channels // 2)
    x = conv_bn(x, narrow, 3, strides=2, name="stem_1")
    x = conv_bn(x, narrow, 3, name="stem_2")
    return _max_pool(conv_bn(x, channels, 3, name="stem_3"), "stem")


def stem_3x3(x, channels):
    """The input stem for CIFAR's 32x32 images (He et al. 2016, 4.2): 3x3; stride 1."""
    return conv_bn(x, channels, 3, name="stem")


def bottleneck(x, channels, strides, *, strided_kernel, gamma, name):
    """Path A of the deep ResNets: 1x1, 3x3, 1x1 to 4 * channels. A strides the first 1x1, B the 3x3."""
    x = conv_bn(x, channels, 1, strides=strides if strided_kernel == 1 else 1, name=f"{name}_1")
    x = conv_bn(x, channels, 3, strides=strides if strided_kernel == 3 else 1, name=f"{name}_2")
    return conv_bn(x, 4 * channels, 1, relu=False, gamma=gamma, name=f"{name}_3")


def basic(x, channels, strides, *, strided_kernel, gamma, name):
    """Path A of the shallow ResNets: 3x3, 3x3. The first has the stride whatever `strided_kernel`: B is A."""
    del strided_kernel
    x = conv_bn(x, channels, 3, strides=strides, name=f"{name}_1")
    return conv_bn(x, channels, 3, relu=False, gamma=gamma, name=f"{name}_2")


def shortcut_conv(x, channels, strides, *, name):
    """Path B of ResNet-A, B, C: 1x1 with the stride, which skips three quarters of its input."""
    return conv_bn(x, channels, 1, strides=strides, relu=False, name=name)


def shortcut_pool(x, channels, strides, *, name):
    """Path B of ResNet-D (4.2): 2x2/2 average pool, then 1x1. Without a stride (stage 1) nothing is pooled.

    At odd sizes the last window averages what there is, as GluonCV's `ceil_mode` without `count_include_pad`.
    """
    if strides > 1:
        x = layers.AveragePooling2D(strides, strides, "same", name=f"{name}_pool")(x)
    return conv_bn(x, channels, 1, relu=False, name=name)


def classifier(x, num_classes, activation, *, name):
    """Features (B, C) to logits, or what `activation` makes of them, (B, num_classes); in float32 (3.2)."""
    return layers.Dense(num_classes, activation, kernel_initializer=KERNEL_INITIALIZER, dtype="float32", name=name)(x)
