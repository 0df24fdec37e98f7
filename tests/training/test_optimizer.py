"""Each optimizer field of the recipe changes the update as its NumPy reference does."""

import keras
import numpy as np
import pytest

from keras_bot import tricks
from keras_bot.errors import MisuseError
from keras_bot.recipe import Recipe
from keras_bot.training.optimizer import AdamW, build_optimizer
from keras_bot.training.schedule import build_schedule

STEPS = 3
FACTORS = {"stem/kernel": 5, "stem/bias": 5, "stage4_norm/gamma": 1, "stage4_norm/beta": 1}  # parts below the head
rng = np.random.default_rng(0)


@pytest.fixture(scope="module")
def network():
    """A network with a part below the head of each kind: stem, stage 4 and head."""
    keras.utils.set_random_seed(0)
    layers = [
        keras.layers.Dense(2, name="stem", bias_initializer="random_normal"),
        keras.layers.BatchNormalization(name="stage4_norm", beta_initializer="random_normal"),
        keras.layers.Dense(2, name="head", bias_initializer="random_normal"),
    ]
    return keras.Sequential([keras.Input((3,)), *layers])


@pytest.fixture(scope="module")
def gradients(network):
    """One list of gradients per step, large enough for every clip norm in these tests."""
    return [[rng.standard_normal(v.shape).astype("float32") for v in network.trainable_variables] for _ in range(STEPS)]


def update(recipe, network, gradients, learning_rate=0.1):
    """Returns the variables after a step for each list of gradients; the network is restored."""
    before = network.get_weights()
    optimizer = build_optimizer(recipe, learning_rate, network)
    for each in gradients:
        optimizer.apply([keras.ops.convert_to_tensor(gradient) for gradient in each], network.trainable_variables)
    after = [np.asarray(variable) for variable in network.trainable_variables]
    network.set_weights(before)
    return after


def clipped(gradients, norm):
    if not norm:
        return gradients
    length = np.sqrt(sum((gradient.astype("float64") ** 2).sum() for gradient in gradients))
    return [gradient * min(1, norm / length) for gradient in gradients]


def decays(variable, recipe):
    return not recipe.no_bias_decay or variable.name == "kernel"


def nag_reference(recipe, network, gradients, learning_rate):
    """Returns the variables after NAG's steps, in NumPy and as the paper's equations."""
    variables = network.trainable_variables
    values = [np.asarray(v, "float64") for v in variables]
    velocities = [np.zeros_like(value) for value in values]
    for each in gradients:
        for i, gradient in enumerate(clipped(each, recipe.global_clipnorm)):
            penalty = recipe.weight_decay * values[i] if decays(variables[i], recipe) else 0
            rate = learning_rate * recipe.layer_decay ** FACTORS.get("/".join(variables[i].path.split("/")[-2:]), 0)
            total = gradient + penalty
            velocities[i] = recipe.momentum * velocities[i] + total
            values[i] = values[i] - rate * (total + recipe.momentum * velocities[i])
    return values


def adamw_reference(recipe, network, gradients, learning_rate):
    """Returns the variables after AdamW's steps: decoupled decay, betas 0.9 and 0.999, epsilon 1e-7."""
    variables = network.trainable_variables
    values = [np.asarray(v, "float64") for v in variables]
    first, second = ([np.zeros_like(value) for value in values] for _ in range(2))
    for step, each in enumerate(gradients, 1):
        rate = learning_rate * np.sqrt(1 - 0.999**step) / (1 - 0.9**step)
        for i, gradient in enumerate(clipped(each, recipe.global_clipnorm)):
            if decays(variables[i], recipe):
                values[i] = values[i] * (1 - learning_rate * recipe.weight_decay)
            first[i] = 0.9 * first[i] + 0.1 * gradient
            second[i] = 0.999 * second[i] + 0.001 * gradient.astype("float64") ** 2
            values[i] = values[i] - rate * first[i] / (np.sqrt(second[i]) + 1e-7)
    return values


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"momentum": 0.0},
        {"momentum": 0.5},
        {"weight_decay": 0.0},
        {"weight_decay": 0.1},
        {"weight_decay": 0.1, "no_bias_decay": True},
        {"global_clipnorm": 0.5},
        {"global_clipnorm": 1e6},
        {"layer_decay": 0.5},
        {"layer_decay": 0.5, "global_clipnorm": 0.5, "weight_decay": 0.1, "no_bias_decay": True},
        {"precision": "mixed_bfloat16"},
    ],
    ids=str,
)
def test_nag_follows_the_recipe(changes, network, gradients):
    recipe = Recipe(**changes)
    actual, expected = (function(recipe, network, gradients, learning_rate=0.1) for function in (update, nag_reference))
    for ours, reference in zip(actual, expected, strict=True):
        np.testing.assert_allclose(ours, reference, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"weight_decay": 0.0},
        {"weight_decay": 0.1},
        {"weight_decay": 0.1, "no_bias_decay": True},
        {"momentum": 0.5},
        {"global_clipnorm": 0.5},
    ],
    ids=str,
)
def test_adamw_follows_the_recipe(changes, network, gradients):
    recipe = Recipe(optimizer="adamw", **changes)
    actual, expected = (
        function(recipe, network, gradients, learning_rate=0.01) for function in (update, adamw_reference)
    )
    for ours, reference in zip(actual, expected, strict=True):
        np.testing.assert_allclose(ours, reference, rtol=1e-4, atol=1e-6)


def test_the_optimizer_follows_the_schedule(network, gradients):
    recipe = Recipe(epochs=2, schedule="cosine", warmup_epochs=1.0, weight_decay=0.0, momentum=0.0)
    schedule = build_schedule(recipe, steps_per_epoch=2)  # rates 0.05, 0.1, 0.1, 0.05
    expected = [np.asarray(v, "float64") for v in network.trainable_variables]
    for rate, each in zip((0.05, 0.1, 0.1), gradients, strict=True):
        expected = [value - rate * gradient for value, gradient in zip(expected, each, strict=True)]
    actual = update(recipe, network, gradients, schedule)
    for ours, reference in zip(actual, expected, strict=True):
        np.testing.assert_allclose(ours, reference, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({}, tricks.NAG),
        ({"optimizer": "adamw"}, AdamW),
        ({"precision": "mixed_bfloat16"}, tricks.NAG),
        ({"precision": "mixed_bfloat16", "optimizer": "adamw"}, AdamW),
    ],
    ids=str,
)
def test_only_float16_needs_loss_scaling(changes, kind, network):
    assert type(build_optimizer(Recipe(**changes), 0.1, network)) is kind


@pytest.mark.parametrize(("name", "kind"), [("nag", tricks.NAG), ("adamw", AdamW)])
def test_float16_scales_the_loss(name, kind, network):
    optimizer = build_optimizer(Recipe(optimizer=name, precision="mixed_float16"), 0.1, network)
    assert type(optimizer) is tricks.LossScaling and type(optimizer.inner_optimizer) is kind
    assert (optimizer.initial_scale, optimizer.dynamic_growth_steps, optimizer.min_scale) == (2.0**15, 2000, 1.0)


def test_a_scaled_step_is_the_step_without_scaling(network, gradients):
    recipe = Recipe(precision="mixed_float16", weight_decay=0.1, global_clipnorm=0.5)
    scaled = [[gradient * 2.0**15 for gradient in each] for each in gradients]
    actual = update(recipe, network, scaled)
    for ours, reference in zip(actual, nag_reference(recipe, network, gradients, 0.1), strict=True):
        np.testing.assert_allclose(ours, reference, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["nag", "adamw"])
def test_a_clip_norm_of_0_does_not_clip(name, network):
    assert build_optimizer(Recipe(optimizer=name), 0.1, network).global_clipnorm is None
    assert build_optimizer(Recipe(optimizer=name, global_clipnorm=2.0), 0.1, network).global_clipnorm == 2.0


def test_layer_decay_gives_each_part_its_factor(network):
    multipliers = build_optimizer(Recipe(layer_decay=0.5), 0.1, network).lr_multipliers
    by_layer = {path.split("/")[-2]: factor for path, factor in multipliers.items()}
    assert by_layer == {"stem": 0.5**5, "stage4_norm": 0.5, "head": 1.0} and len(multipliers) == 6
    assert build_optimizer(Recipe(), 0.1, network).lr_multipliers == {}


def test_layer_decay_requires_nag(network):
    message = r"^--layer_decay is only supported for --optimizer=nag, but --optimizer is adamw\. Drop one\.$"
    with pytest.raises(MisuseError, match=message):
        build_optimizer(Recipe(optimizer="adamw", layer_decay=0.9), 0.1, network)


def test_adamw_saves_its_exclusions(network):
    optimizer = build_optimizer(Recipe(optimizer="adamw", no_bias_decay=True), 0.1, network)
    excluded = [path.split("/")[-1] for path in optimizer.get_config()["excluded_from_weight_decay"]["var_paths"]]
    assert excluded == ["bias", "gamma", "beta", "bias"]
    assert "excluded_from_weight_decay" not in build_optimizer(Recipe(optimizer="adamw"), 0.1, network).get_config()


def test_files_name_adamw_by_the_package():
    assert keras.saving.get_registered_name(AdamW) == "keras_bot>AdamW"
