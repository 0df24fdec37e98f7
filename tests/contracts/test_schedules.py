"""The contract of learning rate schedules."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from contracts.checks import Row, check_config, check_defaults, check_refusal, each, each_refusal, refuse, round_trip
from keras_bot.tricks import CosineDecay, PolyDecay, StepDecay, Warmup

STEPS = 12

POSITIVE_RATE = (refuse(initial_learning_rate=0.0), refuse(initial_learning_rate=-0.1))
WHOLE_DECAY = (*POSITIVE_RATE, refuse(decay_steps=0), refuse(decay_steps=-3))
ROWS = [
    Row(
        make=StepDecay,
        arguments=lambda: {"initial_learning_rate": 0.4, "boundaries": [3, 5, 9], "factor": 0.2},
        defaults={"factor": 0.1},
        refused=(
            *POSITIVE_RATE,
            *(refuse(boundaries=wrong) for wrong in ([5, 3], [3, 3], [0, 3], [-1])),
            *(refuse(factor=wrong) for wrong in (0.0, -0.5, 1.5)),
        ),
    ),
    Row(
        make=CosineDecay,
        arguments=lambda: {"initial_learning_rate": 0.4, "decay_steps": 8},
        refused=WHOLE_DECAY,
    ),
    Row(
        make=PolyDecay,
        arguments=lambda: {"initial_learning_rate": 0.4, "decay_steps": 8, "power": 2.0},
        defaults={"power": 0.9},
        refused=(*WHOLE_DECAY, refuse(power=0), refuse(power=-1.0)),
    ),
    Row(
        make=Warmup,
        name="Warmup to a constant rate",
        arguments=lambda: {"schedule": 0.3, "warmup_steps": 4},
        refused=(
            *(refuse(schedule=wrong) for wrong in ("cosine", None, 0.0, -0.1, True)),
            *(
                refuse(warmup_steps=wrong)
                for wrong in (0, -1, 2.5, True, "5", np.float64(4.0), np.bool_(True), np.int64(0))
            ),
        ),
    ),
    *(
        Row(
            make=Warmup,
            name=f"Warmup to {type(schedule).__name__}",
            arguments=lambda schedule=schedule: {"schedule": schedule, "warmup_steps": 3},
        )
        for schedule in (
            StepDecay(0.4, [2, 5], factor=0.3),
            CosineDecay(0.4, 9),
            PolyDecay(0.4, 9, power=1.5),
            keras.optimizers.schedules.PiecewiseConstantDecay([2], [1.0, 0.5]),
        )
    ),
]


def rates(schedule, steps=range(STEPS)):
    return np.array([float(schedule(step)) for step in steps])


@each(ROWS)
def test_the_config_contains_every_argument(row):
    check_defaults(row)
    check_config(row)


@each(ROWS)
def test_a_copy_gives_the_same_rates(row):
    schedule = row.build()
    np.testing.assert_array_equal(rates(round_trip(schedule)), rates(schedule))


@each(ROWS)
def test_rates_do_not_depend_on_the_type_of_the_step(row):
    schedule = row.build()
    expected = rates(schedule)
    assert (expected >= 0).all() and len(set(expected)) > 2
    for dtype in ("int32", "int64", "float32"):
        for step in (0, 3, STEPS - 1):
            found = schedule(tf.constant(step, dtype))
            assert found.dtype == "float32" and found.shape == ()
            assert float(found) == pytest.approx(expected[step], rel=1e-6, abs=1e-9)


@each(ROWS)
@pytest.mark.parametrize("jit", [False, True])
def test_graphs_give_the_same_rates(row, jit):
    schedule = row.build()
    one = tf.function(schedule, jit_compile=jit, input_signature=[tf.TensorSpec([], "int64")])
    found = [float(one(tf.constant(step, "int64"))) for step in range(STEPS)]
    np.testing.assert_allclose(found, rates(schedule), rtol=1e-5, atol=1e-8)


@each_refusal(ROWS)
def test_bad_arguments_are_refused(row, refusal):
    check_refusal(row, refusal)


def test_numpy_numbers_become_python_numbers():
    schedule = Warmup(np.float32(0.5), np.int64(4))
    assert schedule.get_config() == {"schedule": 0.5, "warmup_steps": 4}
    assert type(schedule.warmup_steps) is int
