"""DeepLabV3+: atrous spatial pyramid pooling over C5 and a decoder that uses C2.

    C5 -> 1x1 | 3x3 at three dilations | image pooling, each to A channels -> concat -> 1x1 to A -> dropout -> resize
    C2 -> 1x1 to 48 -> concat with the resized C5 branch -> 3x3 to A, twice -> 1x1 to K -> bilinear to the image size

`deeplabv3plus` is built from Keras layers. keras-cv's version also accepts our backbones (`keras_cv_deeplabv3plus`),
but it upsamples C5 by a fixed factor of 8 to C2's size. This requires output stride 32 and image sizes that are
multiples of 32, which excludes the paper's stride of 16 and CamVid's 360 rows. Its decoder has no 3x3 convolution. The
dilations 6, 12, 18 are for output stride 16.

Source: Chen et al., "Encoder-Decoder with Atrous Separable Convolution", ECCV 2018 (here with plain convolutions).
"""

import keras
from keras import layers

from keras_bot.errors import MisuseError
from keras_bot.models.layers import KERNEL_INITIALIZER, conv_bn
from keras_bot.tasks.segmentation.fcn import ResizeLike, check_head, pixel_classifier


def deeplabv3plus(
    backbone: keras.Model,
    num_classes: int,
    *,
    channels: int = 256,
    low_channels: int = 48,
    dilations: tuple[int, ...] = (6, 12, 18),
    dropout: float = 0.1,
    name: str = "deeplabv3plus",
) -> keras.Model:
    """Builds a network from normalised images (B, H, W, 3) of any size to {"logits": float32 (B, H, W, K)}.

    Args:
        backbone: model from images to a dict with C2 and C5; its weights are shared.
        num_classes: K.
        channels: A, the channels of each branch and of the decoder.
        low_channels: channels of the projection of C2.
        dilations: of the 3x3 branches: 6, 12, 18 for output stride 16, twice that for 8.
        dropout: dropout rate after the pyramid.
        name: model name.

    Raises:
        MisuseError: the backbone lacks a level, or an argument is out of range.
    """
    levels = check_head(backbone, num_classes, ("C5", "C2"), dropout)
    if min(channels, low_channels, *dilations) < 1:
        raise MisuseError(
            f"channels, low_channels and dilations must be at least 1, received {channels}, {low_channels} and "
            f"{dilations}."
        )
    image = backbone.input
    x = _pyramid(levels["C5"], channels, dilations, dropout)
    low = conv_bn(levels["C2"], low_channels, 1, name="low")
    x = layers.Concatenate(name="decoder_concat")([_resize_like(x, low, "decoder_resize"), low])
    x = conv_bn(x, channels, 3, name="decoder_1")
    x = conv_bn(x, channels, 3, name="decoder_2")
    x = pixel_classifier(x, num_classes, name="classes")
    return keras.Model(image, {"logits": ResizeLike(name="logits")([x, image])}, name=name)


def _pyramid(x, channels, dilations, dropout):
    branches = [conv_bn(x, channels, 1, name="pyramid_1x1")]
    branches += [_dilated(x, channels, rate, name=f"pyramid_dilated{rate}") for rate in dilations]
    pooled = layers.GlobalAveragePooling2D(keepdims=True, name="pyramid_pool")(x)
    pooled = conv_bn(pooled, channels, 1, name="pyramid_image")
    branches.append(_resize_like(pooled, x, "pyramid_image_resize"))
    x = layers.Concatenate(name="pyramid_concat")(branches)
    x = conv_bn(x, channels, 1, name="pyramid_project")
    return layers.Dropout(dropout, name="pyramid_dropout")(x)


def _dilated(x, channels, rate, name):
    x = layers.Conv2D(
        channels,
        3,
        padding="same",
        dilation_rate=rate,
        use_bias=False,
        kernel_initializer=KERNEL_INITIALIZER,
        name=f"{name}_conv",
    )(x)
    x = layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=f"{name}_bn")(x)
    return layers.ReLU(name=f"{name}_relu")(x)


def _resize_like(x, like, name):
    return ResizeLike(dtype=keras.config.dtype_policy(), name=name)([x, like])


def keras_cv_deeplabv3plus(backbone: keras.Model, num_classes: int, *, channels: int = 256) -> keras.Model:
    """Builds keras-cv's `DeepLabV3Plus` with the interface of `deeplabv3plus`: {"logits": float32 (B, H, W, K)}.

    Args:
        backbone: model with output stride 32; each level must be the output of one of its layers.
        num_classes: K.
        channels: channels of the pyramid's branches and of the head.

    Raises:
        MisuseError: keras-cv is missing, the backbone lacks a level, or its input size is not a multiple of 32.
    """
    levels = check_head(backbone, num_classes, ("C2", "C5"), 0.0)
    try:
        import keras_cv
    except ImportError as error:
        raise MisuseError("keras-cv is not installed. `pip install keras-cv`, or use deeplabv3plus.") from error
    wrong = [edge for edge in backbone.input.shape[1:3] if edge and edge % 32]
    if wrong:
        raise MisuseError(
            f"keras-cv's DeepLabV3+ needs image sizes that are multiples of 32, received {wrong[0]}. Use deeplabv3plus."
        )
    body = keras.Model(backbone.input, backbone.output)
    named = {f"P{level[1]}": tensor._keras_history.operation.name for level, tensor in levels.items()}
    body.pyramid_level_inputs = named
    head = keras.Sequential(
        [
            layers.Conv2D(channels, 1, use_bias=False, name="head_conv"),
            layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name="head_bn"),
            layers.ReLU(name="head_relu"),
            layers.UpSampling2D(4, interpolation="bilinear", name="head_resize"),
            layers.Conv2D(num_classes, 1, dtype="float32", name="head_classes"),
        ],
        name="head",
    )
    pyramid = keras_cv.layers.SpatialPyramidPooling(dilation_rates=[6, 12, 18], num_channels=channels)
    network = keras_cv.models.DeepLabV3Plus(
        body, num_classes, spatial_pyramid_pooling=pyramid, segmentation_head=head, name="keras_cv_deeplabv3plus"
    )
    return keras.Model(network.input, {"logits": network.output}, name="keras_cv_deeplabv3plus")
