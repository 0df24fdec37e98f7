"""The contract of optimizers."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

from contracts.checks import (
    Row,
    assert_close,
    assert_equal,
    check_config,
    check_defaults,
    check_refusal,
    each,
    each_refusal,
    refuse,
    round_trip,
    save_and_load,
)
from keras_bot.training.optimizer import AdamW
from keras_bot.tricks import NAG, CosineDecay, LossScaling, Warmup

CLIPPING = ("clipnorm", "clipvalue", "global_clipnorm")  # one of them at a time
COMMON = {  # the other arguments of every Keras optimizer
    "use_ema": True,
    "ema_momentum": 0.75,
    "ema_overwrite_frequency": 2,
    "loss_scale_factor": 2.0,
    "gradient_accumulation_steps": 2,
    "name": "mine",
}
SHAPES = {"kernel": (2, 3), "bias": (3,)}
STEPS = 2  # one accumulated update


def nag(**changes):
    return {
        "learning_rate": 0.25,
        "momentum": 0.5,
        "weight_decay": 0.125,
        "decayed_variables": ["kernel", "bias"],
        "lr_multipliers": {"bias": 0.5},
        **changes,
    }


def adamw(**changes):
    numbers = {"learning_rate": 0.25, "weight_decay": 0.125, "beta_1": 0.5, "beta_2": 0.75, "epsilon": 1e-3}
    return {**numbers, "amsgrad": True, **changes}


ROWS = [
    Row(
        make=NAG,
        arguments=lambda: nag(learning_rate=Warmup(CosineDecay(0.4, 6), 2), clipnorm=0.75, **COMMON),
        defaults={
            "learning_rate": 0.1,
            "momentum": 0.9,
            "weight_decay": 0.0,
            "decayed_variables": "kernels",
            "lr_multipliers": None,
        },
        refused=(
            refuse(momentum=1.0),
            refuse(momentum=-0.1),
            refuse(weight_decay=-1e-4),
            refuse(weight_decay=float("nan")),
            refuse(decayed_variables="bias"),
        ),
    ),
    Row(
        make=NAG,
        name="NAG of all variables",
        arguments=lambda: nag(decayed_variables="all", clipvalue=0.5),
    ),
    Row(
        make=AdamW,
        signature=keras.optimizers.AdamW,
        arguments=lambda: adamw(learning_rate=Warmup(CosineDecay(0.4, 6), 2), global_clipnorm=0.75, **COMMON),
        defaults={
            "learning_rate": 0.001,
            "weight_decay": 0.004,
            "beta_1": 0.9,
            "beta_2": 0.999,
            "epsilon": 1e-7,
            "amsgrad": False,
        },
    ),
    Row(
        make=LossScaling,
        arguments=lambda: {
            "inner_optimizer": AdamW(**adamw()),
            "initial_scale": 8.0,
            "dynamic_growth_steps": 3,
            "min_scale": 2.0,
            "name": "mine",
        },
        defaults={"initial_scale": 2.0**15, "dynamic_growth_steps": 2000, "min_scale": 1.0},
        refused=(
            refuse(min_scale=0.0),
            refuse("min_scale must be", "initial_scale (8.0)", "received 16.0", min_scale=16.0),
            refuse("inner_optimizer already scales the loss", inner_optimizer=LossScaling(NAG())),
        ),
    ),
]
COMPLETE = [row for row in ROWS if not row.name]  # those that set every argument
WITHOUT_ACCUMULATION = [row for row in ROWS if "gradient_accumulation_steps" not in row.arguments()]


def variables(dtype="float32"):
    draw = np.random.default_rng(0)
    return [keras.Variable(draw.normal(size=shape), dtype=dtype, name=name) for name, shape in SHAPES.items()]


def gradients(step, dtype="float32"):
    """Gradients of one step: random numbers above 0.1, which no precision rounds to 0."""
    draw = np.random.default_rng(step)
    return [tf.constant(draw.choice([-1, 1], shape) * draw.uniform(0.1, 2, shape), dtype) for shape in SHAPES.values()]


@functools.cache
def trained_in_float32(row):
    weights = variables()
    train(row.build(), weights)
    return weights


def train(optimizer, weights, first=0, steps=STEPS, apply=None):
    for step in range(first, first + steps):
        (apply or optimizer.apply)(gradients(step, weights[0].dtype), weights)


@pytest.fixture
def trained(row):
    """The row's optimizer after three steps, the last of them a half step of accumulation, and its weights."""
    optimizer, weights = row.build(), variables()
    train(optimizer, weights, steps=3)
    return optimizer, weights


@each(COMPLETE)
def test_the_config_contains_every_argument(row):
    inherited = ("name",) if row.make is LossScaling else (*COMMON, *CLIPPING)
    check_defaults(row, inherited)
    check_config(row, inherited)


@each(ROWS)
def test_a_copy_with_the_state_makes_the_same_next_updates(row, trained):
    optimizer, weights = trained
    copy, copied = round_trip(optimizer), variables()
    copy.build(copied)
    store = {}
    optimizer.save_own_variables(store)
    assert len(store) == len(optimizer.variables)
    copy.load_own_variables(store)
    for weight, value in zip(copied, weights, strict=True):
        weight.assign(value)
    train(optimizer, weights, first=3)
    train(copy, copied, first=3)
    assert_equal([copied, copy.variables], [weights, optimizer.variables])


@each(ROWS)
def test_a_saved_model_contains_the_optimizer(row, tmp_path):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3, name="dense")], name="net")
    paths = {"kernel": "net/dense/kernel", "bias": "net/dense/bias"}
    optimizer = row.build()
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    if isinstance(inner, NAG):
        # Paths that begin with the name of the model, which a loaded one no longer has.
        inner.lr_multipliers = {paths[name]: factor for name, factor in inner.lr_multipliers.items()}
        if inner.decayed_variables != "all":
            inner.decayed_variables = tuple(paths[name] for name in inner.decayed_variables)
    model.compile(optimizer, "mse")
    train(model.optimizer, model.trainable_variables, steps=3)
    loaded = save_and_load(model, tmp_path)
    assert type(loaded.optimizer) is row.make
    for each_model in (model, loaded):
        train(each_model.optimizer, each_model.trainable_variables, first=3)
    assert_equal([loaded.weights, loaded.optimizer.variables], [model.weights, model.optimizer.variables])


@each(ROWS)
def test_graphs_make_the_same_updates(row):
    results = []
    for options in (None, {"jit_compile": False}, {"jit_compile": True}):
        optimizer, weights = row.build(), variables()
        optimizer.build(weights)
        apply = optimizer.apply if options is None else tf.function(optimizer.apply, autograph=False, **options)
        train(optimizer, weights, apply=lambda grads, weights, apply=apply: apply(grads))
        results.append([weights, optimizer.variables])
    for found in results[1:]:
        assert_close(found, results[0], tolerance=1e-5)


@each(ROWS)
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-6), ("bfloat16", 4e-2), ("float16", 5e-3)])
def test_slots_and_updates_have_the_dtype_of_the_variable(row, dtype, tolerance):
    optimizer, weights = row.build(), variables(dtype)
    train(optimizer, weights)
    slots = [v for v in optimizer.variables if v.name.startswith(tuple(SHAPES))]
    assert len(slots) >= len(SHAPES) and {v.dtype for v in [*weights, *slots]} == {dtype}
    assert_close(weights, trained_in_float32(row), tolerance)


@each(WITHOUT_ACCUMULATION)  # which Keras does for float32 only
def test_half_precision_gradients_update_float32_weights(row):
    optimizer, weights = row.build(), variables()
    train(optimizer, weights, apply=lambda grads, w: optimizer.apply([tf.cast(g, "float16") for g in grads], w))
    assert {weight.dtype for weight in weights} == {"float32"}
    assert_close(weights, trained_in_float32(row), 5e-3)


@each(ROWS)
def test_a_variable_without_a_gradient_stays(row):
    optimizer, weights = row.build(), variables()
    before = [weight.numpy() for weight in weights]
    optimizer.build(weights)
    for step in range(2):
        optimizer.apply([gradients(step)[0], None], weights)
    np.testing.assert_array_equal(weights[1], before[1])
    assert np.all(weights[0] != before[0])


@each_refusal(ROWS)
def test_bad_arguments_are_refused(row, refusal):
    check_refusal(row, refusal)
