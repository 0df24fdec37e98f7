"""The contract of losses."""

import dataclasses
from collections.abc import Callable

import keras
import numpy as np
import pytest
import tensorflow as tf

from contracts.checks import (
    Row,
    check_compiled,
    check_config,
    check_defaults,
    check_refusal,
    each,
    each_refusal,
    refuse,
    round_trip,
)
from keras_bot.tasks.segmentation.fcn import PixelCrossentropy
from keras_bot.training.distillation.soft_targets import TopKCrossentropy, top_k_targets
from keras_bot.tricks import SmoothedCrossentropy, SoftCrossentropy

CLASSES = 5
INHERITED = ("reduction", "name")  # arguments of every Keras loss
COMMON = {"reduction": "sum", "name": "mine"}


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class LossRow(Row):
    """A loss with `batch`: batch size -> labels and predictions in float32, as float16 can represent them."""

    batch: Callable[[int], tuple]


def logits(size, *shape, seed=1):
    draw = np.random.default_rng(seed)
    return (draw.normal(size=(size, *shape, CLASSES)) * 4).astype("float16").astype("float32")


def one_hot(size):
    return np.eye(CLASSES, dtype="float32")[np.arange(size) % CLASSES]


def probabilities(size):
    return tf.nn.softmax(logits(size) / 4).numpy().astype("float16").astype("float32")


def masks(size):
    found = np.random.default_rng(2).integers(0, CLASSES, (size, 4, 6)).astype("int32")
    found[:, 0] = 9
    return found


SOFT = {
    "defaults": {"temperature": 20.0},
    "arguments": lambda: {"temperature": 4.0, **COMMON},
    "refused": (refuse(temperature=0.0), refuse(temperature=-1.0), refuse(temperature=float("nan"))),
}
ROWS = [
    LossRow(make=SoftCrossentropy, batch=lambda size: (logits(size, seed=3), logits(size)), **SOFT),
    LossRow(
        make=TopKCrossentropy,
        batch=lambda size: (top_k_targets(logits(size, seed=3), 2, 4.0), logits(size)),
        **SOFT,
    ),
    LossRow(
        make=SmoothedCrossentropy,
        arguments=lambda: {"epsilon": 0.2, "from_logits": True, **COMMON},
        defaults={"epsilon": 0.1, "from_logits": False},
        batch=lambda size: (one_hot(size), logits(size)),
        refused=(
            *(refuse(epsilon=wrong) for wrong in (-0.1, 1.0, 1.5, float("nan"))),
            *(
                refuse("class indices must be whole numbers from 0 to 4", f"received {wrong}", call=(labels, logits(2)))
                for wrong, labels in (
                    (5, np.array([0, 5])),
                    (-1, np.array([[-1], [0]])),
                    (2.5, np.array([2.5, 0])),
                )
            ),
            refuse("labels must be (batch, 5)", "received the shape (2, 3)", call=(np.eye(3)[:2], logits(2))),
            refuse("labels must be one-hot or probabilities", "received 3", call=(3 * one_hot(2), logits(2))),
        ),
    ),
    LossRow(
        make=SmoothedCrossentropy,
        name="SmoothedCrossentropy of probabilities",
        arguments=lambda: {"epsilon": 0.2, **COMMON},
        batch=lambda size: (one_hot(size), probabilities(size)),
    ),
    LossRow(
        make=SmoothedCrossentropy,
        name="SmoothedCrossentropy of class indices",
        arguments=lambda: {"epsilon": 0.2, "from_logits": True, **COMMON},
        batch=lambda size: (np.arange(size)[:, None] % CLASSES, logits(size)),
    ),
    LossRow(
        make=PixelCrossentropy,
        arguments=lambda: {"ignore": 9, **COMMON},
        defaults={"ignore": 255},
        batch=lambda size: (masks(size), logits(size, 4, 6)),
    ),
]


@each([row for row in ROWS if not row.name])
def test_the_config_contains_every_argument(row):
    check_defaults(row, INHERITED)
    check_config(row)


@each(ROWS)
def test_a_copy_gives_the_same_loss(row):
    loss = row.build(reduction=None)
    np.testing.assert_array_equal(round_trip(loss)(*row.batch(3)), loss(*row.batch(3)))


@pytest.fixture
def half_precision_by_default():
    """Makes float16 the default dtype of Keras, for losses that do not set their own."""
    keras.config.set_floatx("float16")
    keras.config.set_dtype_policy("mixed_float16")
    yield
    keras.config.set_floatx("float32")
    keras.config.set_dtype_policy("float32")


@each(ROWS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "float64"])
def test_losses_are_computed_in_float32(row, dtype, half_precision_by_default):
    labels, predictions = row.batch(3)
    predictions = tf.cast(predictions, dtype)
    expected = row.build(reduction=None)(labels, tf.cast(predictions, "float32"))
    found = row.build(reduction=None)(labels, predictions)
    assert found.dtype == expected.dtype == "float32"
    np.testing.assert_array_equal(found, expected)
    assert len(set(np.asarray(found, "float16"))) == len(found) and np.isfinite(found).all()


@each(ROWS)
@pytest.mark.parametrize("weights", [None, np.array([0.5, 0.0, 3.0], "float32")], ids=["plain", "weighted"])
def test_reductions_are_of_the_weighted_values(row, weights):
    values = row.build(reduction=None)(*row.batch(3))
    assert values.shape == (3,)
    expected = np.asarray(values) * (1 if weights is None else weights)
    for reduction, value in (("sum", expected.sum()), ("sum_over_batch_size", expected.mean()), (None, expected)):
        np.testing.assert_allclose(row.build(reduction=reduction)(*row.batch(3), weights), value, rtol=1e-5)


@each(ROWS)
def test_extreme_predictions_have_a_finite_loss_and_gradient(row):
    labels, predictions = row.batch(3)
    is_probability = predictions.min() >= 0
    predictions = (
        tf.math.floor(predictions / predictions.max(-1, keepdims=True)) if is_probability else 1e4 * predictions
    )
    predictions = tf.convert_to_tensor(predictions)
    with tf.GradientTape() as tape:
        tape.watch(predictions)
        loss = row.build()(labels, predictions)
    assert np.isfinite(loss) and np.isfinite(tape.gradient(loss, predictions)).all()


@each(ROWS)
def test_graphs_give_the_same_loss(row):
    check_compiled(lambda: row.build(reduction=None), row.batch, tolerance=1e-5)


@each_refusal(ROWS)
def test_bad_arguments_are_refused(row, refusal):
    check_refusal(row, refusal)
