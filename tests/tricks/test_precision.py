import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_bot.tricks import mixed_precision, policy_of, recast

pytestmark = pytest.mark.core


def build_net():
    inputs = keras.Input((6, 6, 3))
    x = layers.Normalization(mean=[1.0, 2.0, 3.0], variance=[4.0, 5.0, 6.0])(inputs)
    left = layers.Conv2D(4, 3, padding="same", name="left")(x)
    right = layers.BatchNormalization(name="right")(layers.DepthwiseConv2D(3, padding="same")(x))
    tail = keras.Sequential([keras.Input((6, 6, 7)), layers.Conv2D(5, 3), layers.ReLU()], name="tail")
    x = tail(layers.Concatenate()([left, right]) * 1.5)
    return keras.Model(inputs, layers.Dense(2, name="logits")(layers.GlobalAveragePooling2D()(x)))


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "float32"])
def test_the_policy_holds_inside_and_the_old_one_comes_back(policy):
    before = keras.config.dtype_policy().name
    with mixed_precision(policy):
        assert keras.config.dtype_policy().name == policy
        assert layers.Dense(1).compute_dtype == policy.removeprefix("mixed_")
    assert keras.config.dtype_policy().name == before


def test_the_old_policy_comes_back_after_an_error():
    with pytest.raises(KeyError), mixed_precision("mixed_bfloat16"):
        raise KeyError
    assert keras.config.dtype_policy().name == "float32"


def test_another_name_is_refused():
    with pytest.raises(ValueError, match="float16"), mixed_precision("float16"):
        pass


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_recast_computes_the_same_in_another_policy(policy):
    images = np.random.default_rng(0).normal(size=(3, 6, 6, 3)).astype("float32")
    net = build_net()
    net.get_layer("right").moving_mean.assign([1.0, 2.0, 3.0])
    copy = recast(net, policy)
    assert policy_of(net).name == "float32"
    assert policy_of(copy).name == policy
    assert copy.get_layer("tail").layers[0].compute_dtype == policy.removeprefix("mixed_")
    assert copy.get_layer("logits").compute_dtype == "float32"
    for ours, theirs in zip(copy.weights, net.weights, strict=True):
        np.testing.assert_array_equal(*map(ops.convert_to_numpy, (ours, theirs)))
    np.testing.assert_allclose(*map(ops.convert_to_numpy, (copy(images), net(images))), atol=0.02)
    back = recast(copy, "float32")
    np.testing.assert_array_equal(*map(ops.convert_to_numpy, (back(images), net(images))))


def test_an_adapted_normalisation_survives_recasting():
    images = np.random.default_rng(0).normal(3.0, 2.0, size=(50, 4)).astype("float32")
    normalise = layers.Normalization()
    normalise.adapt(images)
    net = keras.Sequential([keras.Input((4,)), normalise, layers.Dense(2)])
    np.testing.assert_array_equal(*map(ops.convert_to_numpy, (recast(net, "float32")(images), net(images))))


def test_the_copy_of_a_compiled_model_is_plain():
    net = build_net()
    net.compile("sgd", "mse")
    net.fit(np.zeros((2, 6, 6, 3)), np.zeros((2, 2)), verbose=0)
    assert not recast(net, "float32").compiled
