"""Inception-V3 against a forward pass in NumPy, written down block by block, and what it alone does and refuses."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_bot import models
from keras_bot.errors import MisuseError
from keras_bot.models.inception import convolution_names

pytestmark = pytest.mark.core

SMALL = {"num_classes": 5, "width": 0.0625}
NAMES = ("inception_v3", "inception_v3_tf")


def windows(x, height, width, stride=1):
    return np.lib.stride_tricks.sliding_window_view(x, (height, width), (1, 2))[:, ::stride, ::stride]


def border(x, rows, columns, value=0):
    return np.pad(x, ((0, 0), (rows, rows), (columns, columns), (0, 0)), constant_values=value)


class Reference:
    """Takes a model's weights by the names of its layers; `named` counts what it took."""

    def __init__(self, model):
        self.weights = {layer.name: layer.get_weights() for layer in model.layers}
        self.counts_zeros = model.name == "inception_v3"
        self.named = []

    def conv(self, x, name, stride=1, padded=True):
        self.named.append(name)
        (kernel,), (gamma, beta, mean, variance) = self.weights[f"{name}_conv"], self.weights[f"{name}_bn"]
        height, width = kernel.shape[:2]
        x = border(x, height // 2, width // 2) if padded and stride == 1 else x
        x = np.einsum("bhwcij,ijcd->bhwd", windows(x, height, width, stride), kernel, optimize=True)
        return np.maximum((x - mean) / np.sqrt(variance + 1e-3) * gamma + beta, 0)

    def chain(self, x, name, *steps, last_stride=1):
        for step in steps:
            x = self.conv(x, f"{name}_{step}", last_stride if step == steps[-1] else 1)
        return x

    def pooled(self, x, name):
        counts = None if self.counts_zeros else np.nanmean
        x = border(x, 1, 1, 0 if self.counts_zeros else np.nan)
        return self.conv((counts or np.mean)(windows(x, 3, 3), (-2, -1)), f"{name}_pool")

    def a(self, x, name):
        five, double = ("5x5_1", "5x5_2"), ("3x3dbl_1", "3x3dbl_2", "3x3dbl_3")
        ends = [self.conv(x, f"{name}_1x1"), self.chain(x, name, *five), self.chain(x, name, *double)]
        return np.concatenate([*ends, self.pooled(x, name)], -1)

    def b(self, x, name):
        double = self.chain(x, name, "3x3dbl_1", "3x3dbl_2", "3x3dbl_3", last_stride=2)
        return np.concatenate([self.conv(x, f"{name}_3x3", 2), double, maxima(x)], -1)

    def c(self, x, name):
        ends = [self.conv(x, f"{name}_1x1"), self.chain(x, name, "7x7_1", "7x7_2", "7x7_3")]
        ends.append(self.chain(x, name, *(f"7x7dbl_{i}" for i in (1, 2, 3, 4, 5))))
        return np.concatenate([*ends, self.pooled(x, name)], -1)

    def d(self, x, name):
        three = self.chain(x, name, "3x3_1", "3x3_2", last_stride=2)
        seven = self.chain(x, name, *(f"7x7x3_{i}" for i in (1, 2, 3, 4)), last_stride=2)
        return np.concatenate([three, seven, maxima(x)], -1)

    def e(self, x, name):
        three, double = self.chain(x, name, "3x3_1"), self.chain(x, name, "3x3dbl_1", "3x3dbl_2")
        ends = [self.conv(x, f"{name}_1x1")]
        ends += [self.conv(three, f"{name}_3x3_2{side}") for side in "ab"]
        ends += [self.conv(double, f"{name}_3x3dbl_3{side}") for side in "ab"]
        return np.concatenate([*ends, self.pooled(x, name)], -1)

    def __call__(self, x):
        x = self.conv(self.conv(x, "stem_1", 2), "stem_2", padded=False)
        x = maxima(self.conv(x, "stem_3"))
        levels = {"C2": self.conv(self.conv(x, "stage1_1"), "stage1_2", padded=False)}
        x = maxima(levels["C2"])
        for level, stage, blocks in (("C3", 2, "aaa"), ("C4", 3, "bcccc"), ("C5", 4, "dee")):
            for number, block in enumerate(blocks, start=1):
                x = getattr(self, block)(x, f"stage{stage}_block{number}")
            levels[level] = x
        kernel, bias = self.weights["predictions"]
        return levels, x.mean((1, 2)) @ kernel + bias


def maxima(x):
    return windows(x, 3, 3, 2).max((-2, -1))


def with_random_weights(model):
    draw = np.random.default_rng(0)
    for variable in model.weights:
        if variable.name != "kernel":
            variable.assign(draw.uniform(0.5, 1.5, variable.shape))
    return model


@pytest.mark.parametrize(("name", "size"), [("inception_v3", (75, 107)), ("inception_v3_tf", (107, 92))])
def test_network_is_the_numpy_one(name, size):
    model = with_random_weights(models.create_model(name, **SMALL))
    image = np.random.default_rng(1).standard_normal((2, *size, 3), dtype="float32")
    reference = Reference(model)
    levels, logits = reference(image)
    assert sorted(reference.named) == sorted(convolution_names()) and len(reference.named) == 94
    both = keras.Model(model.input, [models.features(model).output, model.output])
    ours, our_logits = both(image, training=False)
    for level, expected in {**levels, "logits": logits}.items():
        given = ops.convert_to_numpy(our_logits if level == "logits" else ours[level])
        np.testing.assert_allclose(given, expected, rtol=2e-3, atol=2e-3 * np.abs(expected).max(), err_msg=level)


@pytest.fixture(scope="module")
def model():
    return models.create_model("inception_v3", **SMALL)


def test_the_names_are_those_of_the_layers_in_the_order_of_every_library(model):
    made = [layer.name for layer in model.layers if layer.name.endswith("_conv")]
    assert sorted(made) == sorted(f"{name}_conv" for name in convolution_names())
    assert convolution_names()[:7] == ["stem_1", "stem_2", "stem_3", "stage1_1", "stage1_2", *FIRST]


FIRST = ("stage2_block1_1x1", "stage2_block1_5x5_1")


def test_factorised_convolutions_have_the_axes_of_every_library(model):
    """Rows before columns in the short branch, columns first in the double one (Szegedy et al. 2016, figure 6)."""
    for branch, kernels in (("7x7", [(1, 7), (7, 1)]), ("7x7dbl", [(7, 1), (1, 7), (7, 1), (1, 7)])):
        layers = [model.get_layer(f"stage3_block2_{branch}_{i + 2}_conv") for i in range(len(kernels))]
        assert [layer.kernel_size for layer in layers] == kernels


def test_batch_norm_and_dropout_are_gluoncvs(model):
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    assert len(norms) == 94 and {(norm.momentum, norm.epsilon) for norm in norms} == {(0.9, 1e-3)}
    assert model.get_layer("dropout").rate == 0.5 and model.get_layer("dropout").compute_dtype == "float32"


def test_of_the_smallest_image_one_place_is_left_and_without_the_top_nothing_is_dropped():
    topless = models.create_model("inception_v3", include_top=False, width=0.0625, input_shape=(75, 75, 3))
    assert topless.output_shape[1:3] == (1, 1)
    assert not any(isinstance(layer, keras.layers.Dropout) for layer in topless.layers)


@pytest.mark.parametrize("name", NAMES)
def test_smaller_images_are_refused(name):
    assert models.info(name).smallest_image_size == 75
    for shape in ((74, 75, 3), (None, 74, 3)):
        with pytest.raises(MisuseError, match=rf"{name} needs images of at least 75x75, but input_shape is \(.*74"):
            models.create_model(name, input_shape=shape)
    assert models.info(name).image_size == 299 and models.info(name).variant is None


def test_zero_gamma_is_refused_without_residual_blocks():
    for name in ("inception_v3", "mobilenet_v1"):
        with pytest.raises(MisuseError, match=f"zero_gamma needs residual blocks, but {name} has none"):
            models.create_model(name, zero_gamma=True)
