import numpy as np
import pytest

from keras_bot.tricks import CosineDecay, PolyDecay, StepDecay


def test_steps_drop_at_their_boundaries():
    schedule = StepDecay(0.4, [3, 5, 9])
    expected = [0.4] * 3 + [0.04] * 2 + [0.004] * 4 + [0.0004] * 3
    np.testing.assert_allclose([float(schedule(t)) for t in range(12)], expected, rtol=1e-6)


def test_steps_take_another_factor_and_no_boundary():
    assert float(StepDecay(1.0, [2], factor=0.5)(2)) == pytest.approx(0.5)
    assert float(StepDecay(0.3, [])(1000)) == pytest.approx(0.3)


def test_cosine_follows_the_formula_and_stays_at_0():
    schedule = CosineDecay(0.4, decay_steps=50)
    t = np.arange(70)
    expected = 0.5 * (1 + np.cos(np.minimum(t, 50) * np.pi / 50)) * 0.4
    np.testing.assert_allclose([float(schedule(i)) for i in t], expected, rtol=1e-5, atol=1e-8)
    assert float(schedule(0)) == pytest.approx(0.4)
    assert float(schedule(69)) == pytest.approx(0.0, abs=1e-8)


def test_the_polynomial_follows_the_formula_and_stays_at_0():
    schedule = PolyDecay(0.01, decay_steps=50, power=0.9)
    expected = 0.01 * (1 - np.minimum(np.arange(70), 50) / 50) ** 0.9
    np.testing.assert_allclose([float(schedule(i)) for i in range(70)], expected, rtol=1e-5, atol=1e-9)
