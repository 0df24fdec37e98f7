import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_bot.tricks import zero_gamma

pytestmark = pytest.mark.core


def conv_norm(x, filters, size, name, strides=1):
    x = layers.Conv2D(filters, size, strides, padding="same", use_bias=False, name=f"{name}_c")(x)
    return layers.BatchNormalization(name=name)(x)


def bottleneck(x, filters, name, project, strides=1, add=None):
    y = layers.ReLU()(conv_norm(x, filters, 1, f"{name}_first", strides))
    y = layers.ReLU()(conv_norm(y, filters, 3, f"{name}_middle"))
    y = conv_norm(y, filters, 1, f"{name}_last")
    if project:
        x = layers.AveragePooling2D(strides, padding="same")(x) if strides > 1 else x
        x = conv_norm(x, filters, 1, f"{name}_projection")
    return layers.ReLU()(add(x, y) if add else layers.Add()([x, y]))


def names(norms):
    return [norm.name for norm in norms]


def test_a_foreign_net_with_projection_and_identity_shortcuts():
    inputs = keras.Input((8, 8, 3))
    x = layers.ReLU()(conv_norm(inputs, 4, 3, "stem"))
    x = bottleneck(x, 8, "a", project=True, strides=2)
    x = bottleneck(x, 8, "b", project=False)
    x = bottleneck(x, 8, "c", project=True, strides=2, add=lambda shortcut, y: y + shortcut)
    model = keras.Model(inputs, layers.Dense(2)(layers.GlobalAveragePooling2D()(x)))
    assert names(zero_gamma(model)) == ["a_last", "b_last", "c_last"]
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            assert np.all(layer.gamma.numpy() == (0 if layer.name.endswith("_last") else 1)), layer.name


def test_identity_blocks_return_their_shortcut():
    inputs = keras.Input((8, 8, 4))
    model = keras.Model(inputs, bottleneck(layers.ReLU()(inputs), 4, "a", project=False))
    images = np.random.default_rng(0).normal(size=(2, 8, 8, 4)).astype("float32")
    assert np.abs(ops.convert_to_numpy(model(images)) - np.maximum(images, 0)).max() > 0.01
    zero_gamma(model)
    np.testing.assert_array_equal(ops.convert_to_numpy(model(images)), np.maximum(images, 0))


def test_a_branch_may_end_in_dropout_or_squeeze_and_excitation():
    inputs = keras.Input((8, 8, 4))
    y = conv_norm(layers.ReLU()(conv_norm(inputs, 4, 3, "a_first")), 4, 3, "a_last")
    gate = layers.Dense(4, activation="sigmoid")(layers.GlobalAveragePooling2D(keepdims=True)(y))
    y = layers.Dropout(0.1)(layers.Multiply()([y, gate]))
    assert names(zero_gamma(keras.Model(inputs, layers.Add()([y, inputs])))) == ["a_last"]


def test_branches_and_blocks_that_are_models_themselves():
    branch = keras.Sequential(
        [
            keras.Input((8, 8, 4)),
            layers.Conv2D(4, 3, padding="same"),
            layers.BatchNormalization(name="inner_last"),
        ]
    )
    block_in = keras.Input((8, 8, 4))
    block = keras.Model(block_in, bottleneck(block_in, 4, "nested", project=False))
    inputs = keras.Input((8, 8, 4))
    model = keras.Model(inputs, block(layers.Add()([inputs, branch(inputs)])))
    assert names(zero_gamma(model)) == ["inner_last", "nested_last"]


def test_the_lateral_sum_of_a_feature_pyramid_is_no_residual_block():
    inputs = keras.Input((8, 8, 4))
    fine = bottleneck(inputs, 4, "a", project=False)
    coarse = bottleneck(fine, 4, "b", project=True, strides=2)
    top = layers.UpSampling2D()(conv_norm(coarse, 4, 1, "top"))
    lateral = conv_norm(fine, 4, 1, "lateral")
    assert names(zero_gamma(keras.Model(inputs, layers.Add()([top, lateral])))) == ["a_last", "b_last"]


def test_resnet50_of_keras_has_16_blocks():
    model = keras.applications.ResNet50(weights=None, input_shape=(32, 32, 3), include_top=False)
    assert all(name.endswith("_3_bn") for name in names(zero_gamma(model)))
    assert len(zero_gamma(model)) == 16


@pytest.mark.parametrize(
    "build",
    [
        lambda x: conv_norm(x, 4, 3, "plain"),  # no sum
        lambda x: layers.Add()([x, layers.Conv2D(4, 3, padding="same")(layers.BatchNormalization()(x))]),
        lambda x: layers.Add()([conv_norm(x, 4, 3, "left"), conv_norm(x, 4, 3, "right")]),  # no shortcut
    ],
)
def test_a_net_without_such_branches_is_refused(build):
    inputs = keras.Input((8, 8, 4))
    with pytest.raises(ValueError, match="found none"):
        zero_gamma(keras.Model(inputs, build(inputs)))


def test_a_model_without_a_graph_is_refused():
    class Subclassed(keras.Model):
        pass

    with pytest.raises(ValueError, match="functional"):
        zero_gamma(Subclassed())
