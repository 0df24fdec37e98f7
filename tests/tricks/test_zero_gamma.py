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


class Doubling(layers.Layer):
    """A linear layer without weights that no list of Keras' layers has."""

    def call(self, inputs):
        return 2 * inputs


AFTER_THE_NORM = {
    "nothing": lambda y: y,
    "linear": layers.Activation("linear"),
    "dropout": layers.Dropout(0.2),
    "spatial dropout": layers.SpatialDropout2D(0.2),
    "mean pooling": lambda y: layers.AveragePooling2D(3, 1, padding="same")(y),
    "padding": lambda y: layers.Cropping2D(1)(layers.ZeroPadding2D(1)(y)),
    "own layer": lambda y: Doubling()(y),
    "factor": lambda y: 0.5 * y,
}
ACTIVATIONS = [
    "relu",
    "relu6",
    "leaky_relu",
    "elu",
    "selu",
    "gelu",
    "silu",
    "mish",
    "tanh",
    "sigmoid",
    "hard_silu",
    "softplus",
    "softsign",
    "softmax",
]


def residual(after, shape=(8, 8, 4)):
    inputs = keras.Input(shape)
    y = conv_norm(layers.ReLU()(conv_norm(inputs, 4, 3, "a_first")), 4, 3, "a_last")
    return keras.Model(inputs, layers.Add(name="sum")([after(y), inputs]))


@pytest.mark.parametrize("after", AFTER_THE_NORM.values(), ids=AFTER_THE_NORM)
@pytest.mark.parametrize("shape", [(8, 8, 4), (None, None, 4)])
def test_linear_layers_without_weights_may_follow_the_norm(after, shape):
    zeroed = zero_gamma(residual(after, shape))
    assert names(zeroed) == ["a_last"] and zeroed.skipped == {}


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("place", [[0], [0, 1], [1, 0]])
def test_a_norm_before_any_activation_keeps_its_gamma(activation, place):
    linear = layers.AveragePooling2D(1)

    def after(y):
        for number in place:
            y = [layers.Activation(activation), linear][number](y)
        return y

    model = residual(after)
    with pytest.raises(
        ValueError, match=r"has no residual branch .*: the branch at 'sum' ends in \w+ '\w+', which is not linear"
    ):
        zero_gamma(model)
    assert all(np.all(ops.convert_to_numpy(layer.gamma) == 1) for layer in model.layers if hasattr(layer, "gamma"))


@pytest.mark.parametrize(
    "after",
    [
        layers.ReLU(),
        layers.PReLU(),
        layers.MaxPooling2D(3, 1, padding="same"),
        lambda y: ops.relu(y),
        lambda y: y * ops.relu(y),
        lambda y: y * y,
        lambda y: layers.Conv2D(4, 1)(y),
    ],
    ids=["ReLU", "PReLU", "MaxPooling2D", "ops.relu", "own relu as gate", "square", "convolution"],
)
def test_branches_that_would_never_train_are_refused(after):
    with pytest.raises(ValueError, match=r"has no residual branch .*the branch at 'sum' ends in"):
        zero_gamma(residual(after))


class Faint(layers.Layer):
    """Not linear, but small."""

    def call(self, inputs):
        return 1e-4 * ops.relu(inputs)


def test_a_faint_activation_is_one():
    with pytest.raises(ValueError, match="ends in Faint 'faint"):
        zero_gamma(residual(lambda y: Faint()(y)))


def test_frozen_norms_stay():
    model = residual(lambda y: y)
    model.get_layer("a_last").trainable = False
    with pytest.raises(ValueError, match="ends in BatchNormalization 'a_last', which is frozen"):
        zero_gamma(model)


def test_a_norm_that_is_also_used_elsewhere_stays():
    inputs = keras.Input((8, 8, 4))
    norm = layers.BatchNormalization(name="shared")
    x = layers.Add(name="sum")([inputs, norm(layers.Conv2D(4, 3, padding="same")(inputs))])
    x = layers.ReLU()(norm(layers.Conv2D(4, 3, padding="same")(x)))
    with pytest.raises(ValueError, match="ends in BatchNormalization 'shared', which is used more than once"):
        zero_gamma(keras.Model(inputs, x))


@pytest.mark.parametrize("order", [[0, 1, 2], [1, 0, 2], [1, 2, 0]])
def test_two_branches_and_a_shortcut_in_one_addition(order):
    inputs = keras.Input((8, 8, 4))
    paths = [inputs, conv_norm(inputs, 4, 3, "x"), conv_norm(inputs, 4, 1, "y")]
    model = keras.Model(inputs, layers.Add()([paths[i] for i in order]))
    assert sorted(names(zero_gamma(model))) == ["x", "y"]


def test_an_addition_without_a_shortcut_is_named():
    inputs = keras.Input((8, 8, 4))
    x = bottleneck(inputs, 4, "good", project=False)
    both = layers.Add(name="both")([conv_norm(x, 4, 3, "left"), conv_norm(x, 4, 3, "right")])
    with pytest.warns(UserWarning, match="the branch at 'both' adds paths with equally many kernels"):
        zeroed = zero_gamma(keras.Model(inputs, both))
    assert names(zeroed) == ["good_last"] and list(zeroed.skipped) == ["both"]


def test_what_was_skipped_is_reported_and_the_rest_zeroed():
    inputs = keras.Input((8, 8, 4))
    x = bottleneck(inputs, 4, "good", project=False)
    y = layers.ReLU(name="dead")(conv_norm(x, 4, 3, "closing"))
    x = layers.Add(name="second")([y, x])
    y = layers.Conv2D(4, 3, padding="same", name="last")(layers.ReLU()(layers.BatchNormalization()(x)))
    model = keras.Model(inputs, layers.Add(name="third")([x, y]))
    with pytest.warns(UserWarning, match="set 1 layers .*skipped: the branch at 'second' ends in ReLU 'dead'"):
        zeroed = zero_gamma(model)
    assert names(zeroed) == ["good_last"]
    assert zeroed.skipped == {
        "second": "ends in ReLU 'dead', which is not linear",
        "third": "ends in Conv2D 'last'",
    }


@pytest.mark.parametrize("after_norm", [True, False])
def test_every_branch_that_is_zeroed_trains(after_norm):
    """With gamma = beta = 0 before a ReLU the gradient of the whole branch is 0 for ever; such branches are skipped."""
    inputs = keras.Input((6, 6, 2))
    y = conv_norm(inputs, 2, 3, "a")
    y = layers.Dropout(0.0)(y) if after_norm else layers.ReLU()(y)
    x = layers.Add()([inputs, y])
    x = layers.Add()([x, conv_norm(layers.ReLU()(x), 2, 3, "b")])
    model = keras.Model(inputs, layers.Dense(1)(layers.Flatten()(x)))
    if after_norm:
        zero_gamma(model)
    else:
        with pytest.warns(UserWarning, match="skipped"):
            zero_gamma(model)
    before = {v.path: ops.convert_to_numpy(v) for v in model.trainable_variables}
    draw = np.random.default_rng(0)
    images, targets = (draw.normal(size=(16, *shape)).astype("float32") for shape in ((6, 6, 2), (1,)))
    model.compile("sgd", "mse")
    model.fit(images, targets, epochs=3, verbose=0)
    for variable in model.trainable_variables:
        if "_c/kernel" in variable.path or variable.path.endswith("gamma"):
            assert np.any(ops.convert_to_numpy(variable) != before[variable.path]), variable.path


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
    with pytest.raises(ValueError, match="has no residual branch"):
        zero_gamma(keras.Model(inputs, build(inputs)))


def test_a_model_without_a_graph_is_refused():
    class Subclassed(keras.Model):
        pass

    with pytest.raises(ValueError, match="functional"):
        zero_gamma(Subclassed())
