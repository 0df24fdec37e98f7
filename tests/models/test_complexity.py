import keras
import pytest
from keras import layers

from keras_bot.models import count_flops, count_parameters, create_model

pytestmark = pytest.mark.core


def test_layers_by_hand():
    image = keras.Input((None, None, 3))
    x = layers.Conv2D(8, 3, strides=2, padding="same")(image)  # 5x5 positions of a 9x9 image
    x = layers.Conv2D(12, 1, groups=4, use_bias=False)(x)
    x = layers.DepthwiseConv2D(3, padding="same", depth_multiplier=2)(x)
    x = layers.SeparableConv2D(6, 3)(x)  # 3x3 positions
    x = layers.BatchNormalization()(x)
    x = layers.GlobalAveragePooling2D()(x)
    model = keras.Model(image, layers.Dense(10)(x))
    parts = [3 * 3 * 3 * 8, 2 * 12, 3 * 3 * 12 * 2, 3 * 3 * 24 + 24 * 6, 6 * 10]
    assert count_flops(model, 9) == sum(part * at for part, at in zip(parts, (25, 25, 25, 9, 1), strict=True))
    assert count_parameters(model) == sum(parts) + 8 + 24 + 6 + 2 * 6 + 10


def test_flops_of_convolutions_grow_with_the_area():
    free = create_model("cifar_resnet20_d", num_classes=10)
    fixed = create_model("cifar_resnet20_d", num_classes=10, input_shape=(32, 32, 3))
    assert count_flops(fixed, 32) == count_flops(free, 32)
    head = 64 * 10
    assert count_flops(free, 64) - head == 4 * (count_flops(free, 32) - head)


def test_parameters_are_the_trainable_ones():
    model = create_model("cifar_resnet20_a", num_classes=10)
    moving = sum(v.numpy().size for v in model.non_trainable_variables)
    assert moving > 0
    assert count_parameters(model) == model.count_params() - moving


@pytest.mark.parametrize(("shape", "image_size"), [((None, None, 3), 0), ((32, 32, 3), 64), ((None, 32, 3), 64)])
def test_size_that_cannot_be_is_refused(shape, image_size):
    with pytest.raises(ValueError, match=f"image_size must be at least 1 .* received {image_size}"):
        count_flops(create_model("cifar_resnet20_a", input_shape=shape), image_size)
