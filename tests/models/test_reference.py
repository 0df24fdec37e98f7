"""The networks against a forward pass in NumPy: stems, strides, padding, shortcuts and batch norm."""

import numpy as np
import pytest
from keras import ops

from keras_bot.models import create_model

pytestmark = pytest.mark.core

BLOCKS = {"resnet18": (2, 2, 2, 2), "resnet50": (3, 4, 6, 3), "cifar_resnet20": (3, 3, 3)}


class Reference:
    """A ResNet in NumPy that takes the weights of a Keras model by the names of its layers."""

    def __init__(self, model):
        self.weights = {layer.name: layer.get_weights() for layer in model.layers}
        self.family, self.variant = model.name.rsplit("_", 1)

    def conv_bn(self, x, name, stride=1):
        kernel, (gamma, beta, mean, variance) = self.weights[f"{name}_conv"][0], self.weights[f"{name}_bn"]
        size = kernel.shape[0]
        windows = _windows(_pad(x, size // 2, 0), size, stride)
        x = np.einsum("bhwcij,ijcd->bhwd", windows, kernel, optimize=True)
        return (x - mean) / np.sqrt(variance + 1e-5) * gamma + beta

    def stem(self, x):
        if self.family.startswith("cifar"):
            return _relu(self.conv_bn(x, "stem"))
        if self.variant in "ab":
            x = _relu(self.conv_bn(x, "stem", 2))
        else:
            for i, stride in ((1, 2), (2, 1), (3, 1)):
                x = _relu(self.conv_bn(x, f"stem_{i}", stride))
        return _windows(_pad(x, 1, -np.inf), 3, 2).max((-2, -1))

    def block(self, x, name, stride):
        if f"{name}_3_conv" in self.weights:
            strides = (stride, 1, 1) if self.variant == "a" else (1, stride, 1)
        else:
            strides = (stride, 1)
        y = x
        for i, s in enumerate(strides, start=1):
            y = self.conv_bn(_relu(y) if i > 1 else y, f"{name}_{i}", s)
        if f"{name}_shortcut_conv" in self.weights:
            if "d" in self.variant and stride == 2:
                x, stride = _average_pool(x), 1
            x = self.conv_bn(x, f"{name}_shortcut", stride)
        return _relu(x + y)

    def __call__(self, x):
        x = self.stem(x)
        for stage, blocks in enumerate(BLOCKS[self.family], start=1):
            for block in range(1, blocks + 1):
                x = self.block(x, f"stage{stage}_block{block}", 2 if stage > 1 and block == 1 else 1)
        kernel, bias = self.weights["predictions"]
        return x.mean((1, 2)) @ kernel + bias


def _relu(x):
    return np.maximum(x, 0)


def _pad(x, amount, value):
    return np.pad(x, ((0, 0), (amount, amount), (amount, amount), (0, 0)), constant_values=value)


def _windows(x, size, stride):
    return np.lib.stride_tricks.sliding_window_view(x, (size, size), (1, 2))[:, ::stride, ::stride]


def _average_pool(x):
    """2x2/2, ceil mode: what lies outside doesn't count."""
    x = np.pad(x, ((0, 0), (0, x.shape[1] % 2), (0, x.shape[2] % 2), (0, 0)), constant_values=np.nan)
    return np.nanmean(_windows(x, 2, 2), (-2, -1))


def _with_random_weights(model, rng):
    for variable in model.variables:
        if variable.name != "kernel":
            variable.assign(rng.uniform(0.5, 1.5, variable.shape))
    return model


@pytest.mark.parametrize("size", [pytest.param((64, 64), marks=pytest.mark.thorough), (45, 31)])
@pytest.mark.parametrize(
    "name",
    [f"{family}_{variant}" for family in ("resnet18", "resnet50") for variant in "abcd"]
    + ["resnet18_vd", "cifar_resnet20_a", "cifar_resnet20_d"],
)
def test_network_is_the_numpy_one(name, size):
    rng = np.random.default_rng(0)
    model = _with_random_weights(create_model(name, num_classes=5, width=0.125), rng)
    image = rng.standard_normal((2, *size, 3))
    expected = Reference(model)(image)
    np.testing.assert_allclose(
        ops.convert_to_numpy(model(image)), expected, rtol=2e-3, atol=2e-3 * np.abs(expected).max()
    )
