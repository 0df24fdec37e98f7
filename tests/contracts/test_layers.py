"""The contract of layers."""

import dataclasses
from collections.abc import Callable

import keras
import numpy as np
import pytest
import tensorflow as tf

from contracts.checks import (
    EPSILON,
    Row,
    assert_close,
    assert_equal,
    check_compiled,
    check_config,
    check_defaults,
    check_refusal,
    dtypes,
    each,
    each_refusal,
    refuse,
    round_trip,
    save_and_load,
)
from keras_bot.tasks.detection.fpn import AddUpsampled
from keras_bot.tasks.segmentation.fcn import ResizeLike
from keras_bot.tricks import MixUp

POLICIES = ("float32", "mixed_bfloat16", "mixed_float16", "float64")


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class LayerRow(Row):
    """A layer and its calls.

    Attributes:
        inputs: batch size -> float32 arrays.
        call: layer and tensors -> outputs.
        output_dtypes: compute dtype of the layer -> dtypes of its outputs, for inputs of this dtype.
        same_under_xla: whether XLA gives the same values.
        in_data: whether the layer is also meant for `tf.data.Dataset.map`.
    """

    inputs: Callable[[int], tuple]
    call: Callable
    output_dtypes: Callable[[str], list[str]]
    same_under_xla: bool = True
    in_data: bool = False


def normal(size, *shape):
    return np.random.default_rng(0).normal(size=(size, *shape)).astype("float32")


def labels(size):
    return np.eye(3, dtype="float32")[np.arange(size) % 3]


POLICY = keras.DTypePolicy("mixed_bfloat16")
PARTS = normal(4, 4, 4, 3), labels(4)
ROWS = [
    LayerRow(
        make=MixUp,
        arguments=lambda: {"alpha": 0.3, "seed": 11, "name": "mine", "dtype": POLICY},
        defaults={"alpha": 0.2, "seed": None, "name": None, "dtype": None},
        inputs=lambda size: (normal(size, 4, 4, 3), labels(size)),
        call=lambda layer, *parts: layer(parts),
        output_dtypes=lambda dtype: [dtype, "float32"],
        same_under_xla=False,  # which has a random number generator of its own; test_mixup.py checks its results
        in_data=True,
        refused=(
            refuse(alpha=0.0),
            refuse(alpha=-1.0),
            refuse(alpha=float("nan")),
            refuse("labels must be one-hot", "received the shape (4,)", call=((PARTS[0], np.zeros(4, "int64")),)),
            refuse("must have the keys images, labels", "['images']", call=({"images": PARTS[0]},)),
            refuse(
                "must have the keys images, labels",
                "['boxes', 'images', 'labels']",
                call=({"images": PARTS[0], "labels": PARTS[1], "boxes": PARTS[1]},),
            ),
            refuse("needs (images, labels) or", "received", call=(PARTS[0],)),
            refuse("sample_weight must be (batch,)", "received the shape (4, 3)", call=((*PARTS, PARTS[1]),)),
        ),
    ),
    LayerRow(
        make=AddUpsampled,
        signature=keras.layers.Layer,
        arguments=lambda: {"name": "mine", "dtype": POLICY, "trainable": False},
        inputs=lambda size: (normal(size, 5, 7, 2), normal(size, 3, 4, 2)),
        call=lambda layer, *inputs: layer(*inputs),
        output_dtypes=lambda dtype: [dtype],
    ),
    LayerRow(
        make=ResizeLike,
        arguments=lambda: {"name": "mine", "dtype": POLICY},
        defaults={"dtype": "float32"},
        inputs=lambda size: (normal(size, 3, 4, 2), normal(size, 7, 9, 1)),
        call=lambda layer, *inputs: layer(list(inputs)),
        output_dtypes=lambda dtype: [dtype],
    ),
]


def inputs_of(row, size, dtype="float32"):
    return [tf.cast(array, dtype) for array in row.inputs(size)]


@each(ROWS)
def test_the_config_contains_every_argument(row):
    inherited = ("activity_regularizer", "autocast", "trainable", "dtype", "name")
    check_defaults(row, inherited if row.signature else ())
    check_config(row, inherited[:2] if row.signature else ())


@each(ROWS)
def test_a_copy_gives_the_same_outputs(row):
    layer = row.build()
    copy = round_trip(layer)
    assert copy.name == layer.name == "mine" and copy.dtype_policy == POLICY
    for size in (3, 1):
        assert_equal(row.call(copy, *row.inputs(size)), row.call(layer, *row.inputs(size)))


@each(ROWS)
@pytest.mark.parametrize("training", [False, True])
def test_a_saved_model_contains_the_layer_and_its_state(row, training, tmp_path):
    inputs = [keras.Input(array.shape[1:]) for array in row.inputs(1)]
    layer = row.build(dtype="float32")
    model = keras.Model(inputs, row.call(layer, *inputs))
    for weight in layer.weights:
        weight.assign(weight.numpy() + 1)
    loaded = save_and_load(model, tmp_path)
    assert type(loaded.get_layer("mine")) is row.make
    results = [each_model(inputs_of(row, 3), training=training) for each_model in (loaded, model)]
    assert_equal(*results)
    for spec, tensor in zip(tf.nest.flatten(model.output), tf.nest.flatten(results[0]), strict=True):
        assert tensor.shape.is_compatible_with(spec.shape) and spec.dtype == tensor.dtype


@each(ROWS)
@pytest.mark.parametrize("policy", POLICIES)
def test_dtype_policies(row, policy):
    layer = row.build(dtype=policy)
    compute = layer.compute_dtype
    assert compute == policy.removeprefix("mixed_")
    assert {v.dtype for v in layer.weights if "float" in v.dtype} <= {"float32"}
    outputs = row.call(layer, *inputs_of(row, 3, compute))
    assert dtypes(outputs) == row.output_dtypes(compute)
    rounded = [tf.cast(x, "float32") for x in inputs_of(row, 3, compute)]
    expected = row.call(row.build(dtype="float32"), *rounded)
    assert_close(outputs, expected, tolerance=2 * max(EPSILON[compute], EPSILON["float32"]))


@each(ROWS)
def test_graphs_give_the_same_outputs(row):
    def build():
        layer = row.build(dtype="float32")
        return lambda *inputs: row.call(layer, *inputs)

    check_compiled(build, row.inputs, tolerance=1e-6, xla=row.same_under_xla)


@each([row for row in ROWS if row.in_data])
def test_data_sets_map_the_layer(row):
    eager, mapped = row.build(dtype="float32"), row.build(dtype="float32")
    data = tf.data.Dataset.from_tensor_slices(row.inputs(4)).batch(3).map(mapped)
    for batch, first, size in zip(data, (0, 3), (3, 1), strict=True):
        assert_equal(batch, row.call(eager, *(part[first : first + size] for part in row.inputs(4))))


@each_refusal(ROWS)
def test_bad_arguments_are_refused(row, refusal):
    check_refusal(row, refusal)
