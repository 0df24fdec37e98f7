"""The contract of the functions that build networks out of Keras layers: blocks, pyramids and heads.

The blocks of a table are outputs of one model, which is saved, traced and compiled once.
"""

import functools
import inspect
import zipfile
from collections.abc import Callable
from typing import NamedTuple

import keras
import numpy as np
import pytest

from contracts.checks import POLICIES, assert_close, assert_equal, check_compiled, dtypes, save_and_load
from keras_bot.models import layers
from keras_bot.tasks.detection.fpn import pyramid
from keras_bot.tasks.segmentation.fcn import pixel_classifier
from keras_bot.tricks import mixed_precision

CHANNELS = 6
TOLERANCES = {"float32": 1e-6, "mixed_bfloat16": 0.05, "mixed_float16": 0.01}  # of a block's largest output


class Block(NamedTuple):
    """A builder of `models.layers`, or another one, with the shape of its output for inputs of 9x7x6.

    Attributes:
        build: features and the prefix of the layer names -> features.
        shape: height, width and channels.
        ends_in_float32: whether the output is float32 under every policy.
    """

    build: Callable
    shape: tuple[int, ...]
    ends_in_float32: bool = False


def classify(x, name):
    return layers.classifier(x[:, 0, 0], 3, "softmax", name=name)


BLOCKS = {
    "conv_bn": Block(lambda x, name: layers.conv_bn(x, 4, 3, strides=2, name=name), (5, 4, 4)),
    "conv_bn unpadded": Block(
        lambda x, name: layers.conv_bn(x, 4, (3, 1), padding="valid", epsilon=1e-3, gamma="zeros", name=name), (7, 7, 4)
    ),
    "depthwise_bn": Block(lambda x, name: layers.depthwise_bn(x, strides=2, name=name), (5, 4, 6)),
    "norm_relu": Block(lambda x, name: layers.norm_relu(x, ceiling=6.0, name=name), (9, 7, 6)),
    "zero_pad": Block(layers.zero_pad, (11, 9, 6)),
    "bottleneck": Block(
        lambda x, name: layers.bottleneck(x, 2, 2, strided_convolution=2, gamma="ones", name=name), (5, 4, 8)
    ),
    "basic": Block(lambda x, name: layers.basic(x, 4, 2, gamma="ones", name=name), (5, 4, 4)),
    "shortcut_conv": Block(lambda x, name: layers.shortcut_conv(x, 4, 2, name=name), (5, 4, 4)),
    "shortcut_pool": Block(lambda x, name: layers.shortcut_pool(x, 4, 2, name=name), (5, 4, 4)),
    "classifier": Block(classify, (3,), ends_in_float32=True),
    "pixel_classifier": Block(lambda x, name: pixel_classifier(x, 3, name=name), (9, 7, 3), ends_in_float32=True),
    # The stems name their layers themselves, so each of them is in a model of its own.
    "stem_7x7": Block(lambda x, name: nested(layers.stem_7x7, name)(x), (3, 2, 4)),
    "stem_deep": Block(lambda x, name: nested(layers.stem_deep, name)(x), (3, 2, 4)),
    "stem_3x3": Block(lambda x, name: nested(layers.stem_3x3, name)(x), (9, 7, 4)),
    "pyramid": Block(lambda x, name: nested(finest_level, name)(x), (9, 7, 4)),
}
WITHOUT_ROW = {"scale_channels": "It computes a number of channels."}


def nested(build, name):
    image = keras.Input((None, None, CHANNELS))
    return keras.Model(image, build(image, 4), name=name)


def finest_level(x, channels):
    """P4 of a pyramid on the input as C4 and on a quarter of its positions as C5."""
    c5 = keras.layers.AveragePooling2D(2, 2, "same", name="c5")(x)
    return pyramid({"C4": x, "C5": c5}, first=4, last=5, channels=channels, coarser="conv")["P4"]


@functools.cache
def all_blocks(policy="float32"):
    """A model of all blocks, with the same random weights and statistics under every policy."""
    with mixed_precision(policy):
        image = keras.Input((None, None, CHANNELS), name="image")
        outputs = {name: block.build(image, name.replace(" ", "_")) for name, block in BLOCKS.items()}
        model = keras.Model(image, outputs)
    draw = np.random.default_rng(0)
    for weight in model.weights:
        values = draw.uniform(0.2, 1, weight.shape)
        weight.assign(values if weight.name == "moving_variance" else values * draw.choice([-1, 1], weight.shape))
    return model


def images(size):
    return (np.random.default_rng(1).normal(size=(size, 9, 7, CHANNELS)).astype("float32"),)


def test_every_builder_has_a_row():
    functions = {name for name, value in vars(layers).items() if inspect.isfunction(value) and name[0] != "_"}
    assert functions == ({name.split()[0] for name in BLOCKS} & functions) | set(WITHOUT_ROW)


def test_outputs_have_the_documented_shapes():
    model = all_blocks()
    for size in (1, 2):
        found = {name: tuple(value.shape) for name, value in model(*images(size)).items()}
        assert found == {name: (size, *block.shape) for name, block in BLOCKS.items()}
    symbolic = {name: tensor.shape for name, tensor in model.output.items()}
    assert symbolic == {name: (*[None] * len(b.shape), b.shape[-1]) for name, b in BLOCKS.items()}


def test_a_saved_model_needs_only_keras_and_is_the_same(tmp_path):
    model = all_blocks()
    loaded = save_and_load(model, tmp_path)
    assert_equal(loaded(*images(2)), model(*images(2)))
    config = zipfile.ZipFile(tmp_path / "model.keras").read("config.json").decode()
    assert "keras_bot" not in config.replace("keras_bot>AddUpsampled", "").replace("keras_bot.tasks.detection.fpn", "")


@pytest.mark.parametrize("policy", POLICIES)
def test_dtype_policies(policy):
    model, expected = all_blocks(policy), all_blocks()(*images(2))
    assert {variable.dtype for variable in model.weights} == {"float32"}
    outputs = model(*images(2))
    compute = policy.removeprefix("mixed_")
    for name, block in BLOCKS.items():
        assert dtypes(outputs[name]) == ["float32" if block.ends_in_float32 else compute], name
    assert_close(outputs, expected, TOLERANCES[policy])


def test_graphs_give_the_same_outputs():
    check_compiled(lambda: lambda x: all_blocks()(x, training=False), images, tolerance=1e-5)
