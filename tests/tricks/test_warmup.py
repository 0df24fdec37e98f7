import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_bot.tricks import CosineDecay, StepDecay, Warmup

ETA, WARMUP, DECAY = 0.4, 5, 20


def cosine_reference(steps):
    rates = []
    for step in range(steps):
        if step < WARMUP:
            rates.append((step + 1) / WARMUP * ETA)
        else:
            t = min(step - WARMUP, DECAY)
            rates.append(0.5 * (1 + np.cos(np.pi * t / DECAY)) * ETA)
    return rates


def rates_of(schedule, steps):
    return [float(schedule(step)) for step in range(steps)]


def test_rises_to_the_peak_then_follows_the_cosine():
    schedule = Warmup(CosineDecay(ETA, DECAY), WARMUP)
    np.testing.assert_allclose(rates_of(schedule, 30), cosine_reference(30), rtol=1e-5, atol=1e-7)


def test_boundaries_count_from_the_end_of_the_warmup():
    schedule = Warmup(StepDecay(ETA, [4, 8]), WARMUP)
    expected = [0.08, 0.16, 0.24, 0.32, 0.4] + [0.4] * 4 + [0.04] * 4 + [0.004] * 3
    np.testing.assert_allclose(rates_of(schedule, 16), expected, rtol=1e-6)


def test_a_number_stays_constant_after_the_warmup():
    np.testing.assert_allclose(rates_of(Warmup(0.1, 2), 4), [0.05, 0.1, 0.1, 0.1], rtol=1e-6)


def test_wraps_a_schedule_of_keras():
    schedule = Warmup(keras.optimizers.schedules.PiecewiseConstantDecay([2], [1.0, 0.5]), 2)
    np.testing.assert_allclose(rates_of(schedule, 6), [0.5, 1.0, 1.0, 1.0, 1.0, 0.5], rtol=1e-6)


def test_xla_gives_the_same_rates():
    compiled = tf.function(Warmup(CosineDecay(ETA, DECAY), WARMUP), jit_compile=True)
    rates = [compiled(tf.constant(step, tf.int64)) for step in range(30)]
    assert {rate.dtype for rate in rates} == {tf.float32}
    np.testing.assert_allclose(rates, cosine_reference(30), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("inner", [0.1, CosineDecay(0.4, 9), StepDecay(0.4, [2, 5])])
def test_serialisation_gives_an_equal_schedule(inner):
    schedule = Warmup(inner, 3)
    copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(schedule))
    assert copy.get_config() == schedule.get_config()
    assert rates_of(copy, 12) == rates_of(schedule, 12)


@pytest.mark.parametrize(
    "arguments", [("cosine", 5), (None, 5), (0.0, 5), (-0.1, 5), (True, 5), (0.1, 0), (0.1, 2.5), (0.1, True)]
)
def test_bad_arguments_are_refused(arguments):
    with pytest.raises(ValueError, match="must be"):
        Warmup(*arguments)


def test_numbers_of_numpy_are_numbers():
    schedule = Warmup(np.float32(0.5), np.int64(4))
    assert schedule.get_config() == {"schedule": 0.5, "warmup_steps": 4}
    assert type(schedule.warmup_steps) is int
    for wrong in (np.float64(4.0), np.bool_(True), np.int64(0)):
        with pytest.raises(ValueError, match="warmup_steps"):
            Warmup(0.5, wrong)
