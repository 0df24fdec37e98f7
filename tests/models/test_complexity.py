import keras
import pytest
from keras import layers

from keras_bot.models import count_flops, count_parameters, create


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


def test_flops_depend_on_the_size_asked_for_not_on_the_models():
    fixed = create("cifar_resnet20_d", input_shape=(32, 32, 3), num_classes=10)
    free = create("cifar_resnet20_d", num_classes=10)
    assert count_flops(fixed, 64) == count_flops(free, 64)
    head = 64 * 10
    assert count_flops(free, 64) - head == 4 * (count_flops(free, 32) - head)


def test_parameters_are_the_trainable_ones():
    model = create("cifar_resnet20_a", num_classes=10)
    moving = sum(v.numpy().size for v in model.non_trainable_variables)
    assert moving > 0
    assert count_parameters(model) == model.count_params() - moving


def test_size_below_one_is_refused():
    with pytest.raises(ValueError, match="image_size of at least 1"):
        count_flops(create("cifar_resnet20_a"), 0)
