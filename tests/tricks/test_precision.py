import keras
import pytest
from keras import layers

from keras_bot.surgery import recast
from keras_bot.tricks import mixed_precision
from keras_bot.tricks.precision import policy_of

pytestmark = pytest.mark.core


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "float32"])
def test_the_policy_holds_inside_and_the_old_one_comes_back(policy):
    before = keras.config.dtype_policy().name
    with mixed_precision(policy):
        assert keras.config.dtype_policy().name == policy
        assert layers.Dense(1).compute_dtype == policy.removeprefix("mixed_")
    assert keras.config.dtype_policy().name == before


def test_the_old_policy_comes_back_after_an_error():
    with pytest.raises(KeyError), mixed_precision("mixed_bfloat16"):
        raise KeyError
    assert keras.config.dtype_policy().name == "float32"


def test_another_name_is_refused():
    with pytest.raises(ValueError, match="float16"), mixed_precision("float16"):
        pass


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "float32"])
def test_the_policy_of_a_model_is_that_of_its_first_kernel(policy):
    net = keras.Sequential([keras.Input((6,)), layers.Normalization(mean=1.0, variance=4.0), layers.Dense(3)])
    outer = keras.Sequential([keras.Input((6,)), net, layers.Dense(2)])
    assert policy_of(outer).name == "float32"
    assert policy_of(recast(outer, policy)).name == policy
