import pytest

from keras_bot.tricks import linear_scaling

pytestmark = pytest.mark.core


def test_the_paper_scales_0_1_at_256_to_0_4_at_1024():
    assert linear_scaling(0.1, 1024) == pytest.approx(0.4)
    assert linear_scaling(0.1, 256) == pytest.approx(0.1)
    assert linear_scaling(0.2, 64, reference_batch_size=32) == pytest.approx(0.4)


@pytest.mark.parametrize("arguments", [(0.0, 256), (0.1, 0), (0.1, 256, 0), (float("nan"), 256)])
def test_numbers_that_are_not_above_0_are_refused(arguments):
    with pytest.raises(ValueError, match="above 0"):
        linear_scaling(*arguments)
