import keras
import numpy as np

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
