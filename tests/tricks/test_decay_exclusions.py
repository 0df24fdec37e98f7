"""`exclude_from_weight_decay` holds for each of our optimizers, inside LossScaling, on replicas and through files."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_bot.training.optimizer import AdamW
from keras_bot.tricks import NAG, LossScaling

OPTIMIZERS = {
    "nag": lambda: NAG(0.1, weight_decay=0.5, decayed_variables="all"),
    "adamw": lambda: AdamW(0.1, weight_decay=0.5),
    "nag, scaled": lambda: LossScaling(NAG(0.1, weight_decay=0.5, decayed_variables="all"), initial_scale=1.0),
    "adamw, scaled": lambda: LossScaling(AdamW(0.1, weight_decay=0.5), initial_scale=1.0),
}


def build_net():
    layers = [keras.layers.Dense(2, name="bias_branch"), keras.layers.Dense(2, name="head")]
    return keras.Sequential([keras.Input((3,)), *layers], name="net")


def decayed(net, optimizer, run=lambda step: tf.function(step)()):
    """The paths of the variables that a step with zero gradients changes."""
    variables = net.trainable_variables
    for variable in variables:
        variable.assign(keras.ops.ones(variable.shape))
    run(lambda: optimizer.apply([tf.zeros(v.shape) for v in variables], variables))
    return [v.path.removeprefix("net/") for v in variables if np.any(np.asarray(v) != 1)]


ALL = ["bias_branch/kernel", "bias_branch/bias", "head/kernel", "head/bias"]
CASES = [
    ({"var_names": ["bias"]}, ["bias_branch/kernel", "head/kernel"]),
    ({"var_names": "bias"}, ["bias_branch/kernel", "head/kernel"]),
    ({"var_names": ["head/"]}, ["bias_branch/kernel", "bias_branch/bias"]),
    ({"var_names": ["^kernel$", "nothing"]}, ["bias_branch/bias", "head/bias"]),
    ({"var_list": [0, 3]}, ["bias_branch/bias", "head/kernel"]),
    ({"var_list": [1], "var_names": ["kernel"]}, ["head/bias"]),
    ({}, ALL),
]


def exclude(optimizer, net, case):
    case = {**case, "var_list": [net.trainable_variables[i] for i in case["var_list"]]} if "var_list" in case else case
    optimizer.exclude_from_weight_decay(**case)


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
@pytest.mark.parametrize(("case", "expected"), CASES)
def test_excluded_variables_are_not_decayed(make, case, expected):
    net, optimizer = build_net(), make()
    exclude(optimizer, net, case)
    optimizer.build(net.trainable_variables)
    assert decayed(net, optimizer) == expected
    with pytest.raises(ValueError, match="before the optimizer is built"):
        exclude(optimizer, net, case)


EVERY_CASE = [  # the default tier has the first case with every optimizer
    pytest.param(make, *case, id=f"{number}-{name}", marks=[pytest.mark.thorough] * (number > 0))
    for number, case in enumerate(CASES)
    for name, make in OPTIMIZERS.items()
]


@pytest.mark.parametrize(("make", "case", "expected"), EVERY_CASE)
def test_exclusions_are_saved_with_the_model(make, case, expected, tmp_path):
    net, optimizer = build_net(), make()
    exclude(optimizer, net, case)
    net.compile(optimizer, "mse")
    net.fit(np.ones((4, 3)), np.ones((4, 2)), verbose=0)
    net.save(tmp_path / "net.keras")
    again = keras.saving.load_model(tmp_path / "net.keras")
    assert type(again.optimizer) is type(optimizer)
    for variable in again.optimizer.variables:  # momentum from the training would move them too
        if "velocity" in variable.path or "momentum" in variable.path:
            variable.assign(keras.ops.zeros(variable.shape))
    assert decayed(again, again.optimizer) == expected


def test_the_last_call_counts_and_no_call_leaves_the_configuration_as_it_was():
    net, optimizer = build_net(), NAG(0.1, weight_decay=0.5, decayed_variables="kernels")
    assert "excluded_from_weight_decay" not in optimizer.get_config()
    optimizer.exclude_from_weight_decay(var_names=["kernel"])
    optimizer.exclude_from_weight_decay(var_list=net.layers[0].trainable_variables)
    optimizer.build(net.trainable_variables)
    assert decayed(net, optimizer) == ["head/kernel"]


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_exclusions_hold_on_replicas(make, two_replicas):
    with two_replicas.scope():
        net, optimizer = build_net(), make()
        optimizer.exclude_from_weight_decay(var_list=[net.trainable_variables[0]], var_names=["bias"])
        optimizer.build(net.trainable_variables)
        assert decayed(net, optimizer, lambda step: tf.function(lambda: two_replicas.run(step))()) == ["head/kernel"]
