"""MobileNet against a forward pass in NumPy: strides, both paddings, where the ReLUs end, batch norm."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_bot import models

pytestmark = pytest.mark.core

EPSILON = {"mobilenet_v1": 1e-5, "mobilenet_v1_relu6": 1e-5, "mobilenet_v1_tf": 1e-3}
BLOCKS = (
    "stem_block",
    *(f"stage{s}_block{b}" for s, count in ((1, 2), (2, 2), (3, 6), (4, 2)) for b in range(1, count + 1)),
)
STRIDED = {f"stage{stage}_block1" for stage in (1, 2, 3, 4)}


def pad(x, stride, uneven):
    """Zeros around 3x3 windows: one on each side, or as TensorFlow where it needs an odd number of them."""
    amounts = [1 if uneven and stride == 2 and side % 2 == 0 else 2 for side in x.shape[1:3]]
    rows, columns = ((amount // 2, 1) for amount in amounts)
    return np.pad(x, ((0, 0), rows, columns, (0, 0)))


def forward(model, x):
    weights, name = {layer.name: layer.get_weights() for layer in model.layers}, model.name
    levels = {}

    def ending(x, layer):
        gamma, beta, mean, variance = weights[f"{layer}_bn"]
        x = np.maximum((x - mean) / np.sqrt(variance + EPSILON[name]) * gamma + beta, 0)
        return x if name == "mobilenet_v1" else np.minimum(x, 6)

    def windows(x, stride):
        x = pad(x, stride, name == "mobilenet_v1_tf")
        return np.lib.stride_tricks.sliding_window_view(x, (3, 3), (1, 2))[:, ::stride, ::stride]

    x = ending(np.einsum("bhwcij,ijcd->bhwd", windows(x, 2), weights["stem_conv"][0], optimize=True), "stem")
    for block in BLOCKS:
        depthwise, pointwise = f"{block}_depthwise", f"{block}_pointwise"
        cut = windows(x, 2 if block in STRIDED else 1)
        x = ending(np.einsum("bhwcij,ijc->bhwc", cut, weights[f"{depthwise}_conv"][0][..., 0]), depthwise)
        x = ending(x @ weights[f"{pointwise}_conv"][0][0, 0], pointwise)
        levels[block] = x
    kernel, bias = weights["predictions"]
    ends = {f"C{s + 1}": levels[f"stage{s}_block{b}"] for s, b in ((1, 2), (2, 2), (3, 6), (4, 2))}
    return ends, x.mean((1, 2)) @ kernel + bias


def with_random_weights(model):
    draw = np.random.default_rng(0)
    for variable in model.weights:
        low, high = {"gamma": (1, 4), "beta": (-2, 8)}.get(variable.name, (0.5, 1.5))
        if variable.name != "kernel":
            variable.assign(draw.uniform(low, high, variable.shape))
    return model


@pytest.mark.parametrize("size", [(64, 96), (45, 31)])
@pytest.mark.parametrize("name", EPSILON)
def test_network_is_the_numpy_one(name, size):
    model = with_random_weights(models.create_model(name, num_classes=5, width=0.125))
    image = np.random.default_rng(1).standard_normal((2, *size, 3), dtype="float32")
    levels, logits = forward(model, image)
    assert name == "mobilenet_v1" or all((end == 6).any() for end in levels.values())
    both = keras.Model(model.input, [models.features(model).output, model.output])
    ours, our_logits = both(image, training=False)
    assert list(ours) == list(levels)
    for level, expected in {**levels, "logits": logits}.items():
        given = ops.convert_to_numpy(our_logits if level == "logits" else ours[level])
        np.testing.assert_allclose(given, expected, rtol=2e-3, atol=2e-3 * np.abs(expected).max(), err_msg=level)


@pytest.mark.parametrize("name", EPSILON)
def test_features_have_their_strides_at_any_size(name):
    ends = models.features(models.create_model(name, num_classes=1, width=0.125))
    for size in [(64, 96), (33, 7), (1, 1)]:
        shapes = {level: end.shape[1:3] for level, end in ends(np.zeros((1, *size, 3), "float32")).items()}
        assert shapes == {f"C{i}": tuple(-(-side // 2**i) for side in size) for i in (2, 3, 4, 5)}


def test_depthwise_kernels_are_xavier_uniform_with_mxnets_fans():
    model = models.create_model("mobilenet_v1", num_classes=40, width=0.5)
    depthwise = [layer for layer in model.layers if isinstance(layer, keras.layers.DepthwiseConv2D)]
    assert len(depthwise) == 13 and not any(layer.use_bias for layer in depthwise)
    for layer in depthwise:
        kernel = layer.get_weights()[0]
        bound = np.sqrt(6 / (9 + 9 * kernel.shape[2]))
        assert kernel.shape[3] == 1
        assert 0.9 * bound < np.abs(kernel).max() <= bound * (1 + 1e-6)
    norms = {(n.momentum, n.epsilon) for n in model.layers if isinstance(n, keras.layers.BatchNormalization)}
    assert norms == {(0.9, 1e-5)} and models.info("mobilenet_v1").image_size == 224
    assert models.info("mobilenet_v1").variant is None and models.info("mobilenet_v1").smallest_image_size == 1
