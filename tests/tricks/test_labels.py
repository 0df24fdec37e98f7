"""Tricks that blend labels refuse class indices, losses of class indices refuse blends: eager, graphs, tf.data."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_bot.tricks import (
    NAG,
    DistillationModel,
    MixUp,
    SmoothedCrossentropy,
    distillation_loss,
    linear_scaling,
    mix_with_reversal,
    smooth,
)

CLASSES = 10
INDICES = np.array([[1], [9], [8], [2]], "uint8")  # as keras.datasets.cifar10 has them
ONE_HOT = np.eye(CLASSES, dtype="float32")[INDICES[:, 0]]
IMAGES = np.random.default_rng(0).uniform(size=(4, 6, 6, 3)).astype("float32")
LOGITS = np.zeros((4, CLASSES), "float32")


def mix_eagerly(labels):
    return MixUp(1.0, seed=0)((IMAGES, labels))[1]


def mix_in_data(labels):
    dataset = tf.data.Dataset.from_tensor_slices((IMAGES, labels)).batch(4).map(MixUp(1.0, seed=0))
    return next(iter(dataset))[1]


def mix_compiled(labels):
    layer = MixUp(1.0, seed=0)
    return tf.function(lambda x, y: layer((x, y)), jit_compile=True)(IMAGES, labels)[1]


TRICKS = {
    "mixup": mix_eagerly,
    "mixup in tf.data": mix_in_data,
    "mixup under XLA": mix_compiled,
    "smooth": lambda labels: smooth(labels, 0.1),
    "smooth of tensors": lambda labels: smooth(tf.constant(labels), 0.1),
    "distillation": lambda labels: distillation_loss(labels, LOGITS, LOGITS),
}


@pytest.mark.parametrize("trick", TRICKS.values(), ids=TRICKS)
@pytest.mark.parametrize("dtype", ["uint8", "int32", "int64"])
def test_integer_class_indices_are_refused(trick, dtype):
    with pytest.raises(ValueError, match=r"are class indices, but one-hot or soft labels .*one_hot first"):
        trick(INDICES.astype(dtype))


def test_class_indices_in_one_row_are_refused():
    with pytest.raises(ValueError, match="class indices"):
        smooth(np.array([1, 9, 8]), 0.1)
    with pytest.raises(ValueError, match=r"between 0 and 1, received 9, 8"):
        smooth(np.array([1.0, 9.0, 8.0]), 0.1)


@pytest.mark.parametrize("labels", [INDICES, INDICES[:, 0], ONE_HOT.astype("int64")])
def test_the_function_of_the_pipeline_mixes_no_integer_labels(labels):
    with pytest.raises(ValueError, match="labels must be floats, received integers"):
        mix_with_reversal(keras.ops.convert_to_tensor(labels), 0.5)


@pytest.mark.parametrize("trick", [mix_eagerly, TRICKS["smooth"], TRICKS["distillation"]])
@pytest.mark.parametrize("labels", [3 * ONE_HOT, (2 * ONE_HOT).astype("int64"), ONE_HOT - 0.5])
def test_values_that_are_no_probabilities_are_refused(trick, labels):
    with pytest.raises(ValueError, match="must be one-hot or probabilities"):
        trick(labels)


@pytest.mark.parametrize("labels", [INDICES.astype("float32"), 3 * ONE_HOT, (2 * ONE_HOT).astype("int64")])
def test_in_tf_data_such_values_stop_the_pipeline(labels):
    with pytest.raises(tf.errors.InvalidArgumentError, match="labels_are_not_one_hot_or_probabilities"):
        mix_in_data(labels)


def test_under_xla_such_a_row_becomes_nan():
    labels = ONE_HOT.copy()
    labels[0] *= 3  # the first and, mixed with it, the last
    assert np.isnan(mix_compiled(labels).numpy()).all(axis=-1).tolist() == [True, False, False, True]


@pytest.mark.parametrize("mix", [mix_eagerly, mix_in_data, pytest.param(mix_compiled, marks=pytest.mark.thorough)])
def test_labels_that_are_right_mix(mix):
    expected = mix(ONE_HOT)
    for dtype in ("int64", "uint8", "float16", "bool"):
        np.testing.assert_array_equal(mix(ONE_HOT.astype(dtype)), expected)
    binary = np.array([[0.0], [1.0], [0.25], [1.0]], "float32")
    mixed = np.asarray(mix(binary))[:, 0]
    assert np.all((mixed > 0) & (mixed < 1.01)) and mixed[0] == pytest.approx(1 - mixed[3])


def fit(labels, jit, **options):
    model = keras.Sequential([keras.Input((6, 6, 3)), keras.layers.Flatten(), keras.layers.Dense(CLASSES)])
    loss = SmoothedCrossentropy(0.1, from_logits=True)
    model.compile(keras.optimizers.SGD(0.0), loss, jit_compile=jit, **options)
    return model.fit(IMAGES, labels, verbose=0).history["loss"][0]


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("shape", [(4,), pytest.param((4, 1), marks=pytest.mark.thorough)])
def test_fit_refuses_class_indices_that_may_be_blends(jit, shape):
    blended = np.array([1.0, 8.98, 7.93, 2.12], "float32").reshape(shape)
    for labels in (blended, INDICES.astype("float32").reshape(shape)):
        with pytest.raises(ValueError, match="must have an integer dtype inside a graph, received float32"):
            fit(labels, jit)
    assert fit(INDICES.reshape(shape), jit) == pytest.approx(fit(ONE_HOT, jit), rel=0.5)


@pytest.mark.parametrize("wrong", [[0, 1, 2, CLASSES], [0, 1, 2, -1]])
def test_in_a_graph_wrong_class_indices_stop_the_step_or_make_the_loss_nan(wrong):
    with pytest.raises(tf.errors.InvalidArgumentError, match="labels_are_no_class_indices"):
        fit(np.array(wrong), jit=False)
    assert np.isnan(fit(np.array(wrong), jit=True))


@pytest.mark.parametrize("labels", [INDICES[:, 0].astype("float32"), 255 * ONE_HOT, -ONE_HOT])
def test_smooth_stops_a_pipeline_of_wrong_values(labels):
    dataset = tf.data.Dataset.from_tensor_slices(labels).batch(4, drop_remainder=True).map(lambda y: smooth(y, 0.1))
    with pytest.raises(tf.errors.InvalidArgumentError, match="labels_are_not_one_hot_or_probabilities"):
        next(iter(dataset))


@pytest.mark.parametrize("dtype", ["int32", "uint8", "bool", "float16"])
def test_smooth_takes_one_hot_labels_of_any_dtype(dtype):
    expected = smooth(ONE_HOT, 0.1)
    labels = ONE_HOT.astype(dtype)
    dataset = tf.data.Dataset.from_tensor_slices(labels).batch(4).map(lambda y: smooth(y, 0.1))
    for smoothed in (smooth(labels, 0.1), smooth(tf.constant(labels), 0.1), next(iter(dataset))):
        np.testing.assert_allclose(np.asarray(smoothed, "float32"), expected, atol=1e-3)


@pytest.mark.parametrize("rows", [np.ones_like(ONE_HOT, "int64"), np.zeros_like(ONE_HOT, "int64")])
def test_in_a_graph_integer_rows_that_are_not_one_hot_stop_the_step_or_make_the_loss_nan(rows):
    with pytest.raises(tf.errors.InvalidArgumentError, match="labels_are_not_one_hot_or_probabilities"):
        fit(rows, jit=False)
    assert np.isnan(fit(rows, jit=True))


@pytest.mark.parametrize("number", [np.float32, np.float64])
def test_tricks_take_numbers_of_numpy_in_graphs(number):
    layers = [[keras.Input((6, 6, 3)), keras.layers.Flatten(), keras.layers.Dense(CLASSES)] for _ in range(2)]
    student, teacher = map(keras.Sequential, layers)
    distiller = DistillationModel(student, teacher, temperature=number(4), hard_weight=number(0.5))
    optimizer = NAG(linear_scaling(number(0.1), 64), momentum=number(0.9), weight_decay=number(1e-4))
    distiller.compile(optimizer, SmoothedCrossentropy(number(0.1), from_logits=True))
    mixup = MixUp(number(0.2), seed=np.int64(1))
    data = tf.data.Dataset.from_tensor_slices((IMAGES, ONE_HOT)).batch(4).map(mixup)
    assert np.isfinite(distiller.fit(data, verbose=0).history["loss"][0])
    assert NAG(number(0.1)).get_config()["learning_rate"] == pytest.approx(0.1)
