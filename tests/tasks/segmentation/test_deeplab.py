import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_bot import models
from keras_bot.errors import MisuseError
from keras_bot.tasks.segmentation.deeplab import deeplabv3plus, keras_cv_deeplabv3plus
from keras_bot.tasks.segmentation.fcn import PixelCrossentropy, Segmenter
from keras_bot.tricks import mixed_precision

NARROW = {"channels": 16, "low_channels": 8}


def _backbone(shape=(None, None, 3)):
    return models.features(models.create_model("resnet10_d", include_top=False, width=0.1, input_shape=shape))


def _few_layers():
    """Strides 4 and 32 in two convolutions: builds and compiles in no time."""
    image = keras.Input((None, None, 3))
    c2 = keras.layers.Conv2D(12, 5, 4, "same", activation="relu", name="C2")(image)
    return keras.Model(image, {"C2": c2, "C5": keras.layers.Conv2D(12, 9, 8, "same", name="C5")(c2)})


def _data(size=32):
    images = np.random.default_rng(0).normal(size=(4, size, size, 3)).astype(np.float32)
    masks = np.where(images.mean(-1) > 0, 1, 0).astype(np.int32)
    masks[:, : size // 2] = 2
    masks[:, :3] = 255
    return images, masks


def test_logits_have_the_images_size():
    network = deeplabv3plus(_backbone(), 5, **NARROW)
    assert network.output["logits"].shape == (None, None, None, 5)
    for height, width in ((64, 64), (33, 50), (1, 7)):
        outputs = network(np.zeros((2, height, width, 3), np.float32))
        assert set(outputs) == {"logits"}
        assert outputs["logits"].shape == (2, height, width, 5) and outputs["logits"].dtype == tf.float32


def test_parts_are_the_papers():
    network = deeplabv3plus(_backbone(), 5)
    c2, c5 = 6, 51
    shapes = {
        layer.name: tuple(layer.kernel.shape) for layer in network.layers if isinstance(layer, keras.layers.Conv2D)
    }
    for rate in (6, 12, 18):
        assert shapes[f"pyramid_dilated{rate}_conv"] == (3, 3, c5, 256)
        assert network.get_layer(f"pyramid_dilated{rate}_conv").dilation_rate == (rate, rate)
    assert shapes["pyramid_1x1_conv"] == shapes["pyramid_image_conv"] == (1, 1, c5, 256)
    assert shapes["pyramid_project_conv"] == (1, 1, 5 * 256, 256)
    assert shapes["low_conv"] == (1, 1, c2, 48)
    assert shapes["decoder_1_conv"] == (3, 3, 256 + 48, 256) and shapes["classes"] == (1, 1, 256, 5)


def test_keras_cvs_takes_our_backbone():
    network = keras_cv_deeplabv3plus(_backbone(), 5, channels=16)
    assert network(np.zeros((1, 64, 96, 3), np.float32))["logits"].shape == (1, 64, 96, 5)


@pytest.mark.parametrize("make", [deeplabv3plus, pytest.param(keras_cv_deeplabv3plus, marks=pytest.mark.thorough)])
def test_fit_lowers_the_loss(make):
    keras.utils.set_random_seed(0)
    images, masks = _data()
    segmenter = Segmenter(make(_few_layers(), 3, channels=16))
    segmenter.compile(keras.optimizers.Adam(1e-2), PixelCrossentropy())
    losses = segmenter.fit(images, masks, epochs=12, verbose=0, batch_size=4).history["loss"]
    assert losses[-1] < 0.8 * losses[0]
    logits = segmenter.predict(images, verbose=0)
    assert logits.shape == (4, 32, 32, 3) and logits.min() < 0


def test_the_decoder_computes_in_half_precision():
    with mixed_precision("mixed_bfloat16"):
        network = deeplabv3plus(_few_layers(), 3, **NARROW)
    assert network.get_layer("decoder_concat").output.dtype == "bfloat16"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: deeplabv3plus(models.create_model("resnet10_d", include_top=False, width=0.1), 3), "dict with C2, C5"),
        (lambda: deeplabv3plus(_backbone(), 1), "num_classes"),
        (lambda: deeplabv3plus(_backbone(), 3, channels=0), "channels"),
        (lambda: deeplabv3plus(_backbone(), 3, dilations=(0, 1)), "dilations"),
        (lambda: keras_cv_deeplabv3plus(_backbone((360, 480, 3)), 3), "multiples of 32"),
    ],
)
def test_wrong_arguments(make, message):
    with pytest.raises(MisuseError, match=message):
        make()
