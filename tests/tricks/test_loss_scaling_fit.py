"""LossScaling in `fit` on two replicas: skipped, counted once, saved; and its arguments."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_bot.tricks import NAG, DistillationModel, LossScaling

draw = np.random.default_rng(0)
IMAGES = draw.normal(size=(8, 6)).astype("float32")
LABELS = np.eye(3, dtype="float32")[draw.integers(0, 3, 8)]


def build(seed, policy="float32", decay=0.05):
    keras.utils.set_random_seed(seed)
    penalty = keras.regularizers.L2(decay)
    dense = keras.layers.Dense(5, "relu", dtype=policy, kernel_regularizer=penalty)
    return keras.Sequential([keras.Input((6,)), dense, keras.layers.Dense(3, dtype="float32")])


def compiled(model, optimizer):
    model.compile(optimizer, keras.losses.CategoricalCrossentropy(from_logits=True), jit_compile=False)
    return model


def fit(model, images=IMAGES):
    model.fit(images, LABELS, batch_size=8, shuffle=False, verbose=0)


def state(model):
    found = {}
    for variable in model.trainable_variables + model.optimizer.variables:
        parts = [np.asarray(part) for part in getattr(variable.value, "values", [variable.value])]
        assert all(np.array_equal(part, parts[0]) for part in parts), f"replicas differ in {variable.path}"
        found[variable.path] = parts[0]
    return found


@pytest.mark.thorough
def test_fit_skips_an_overflow_moves_no_velocity_and_is_loaded_with_its_scale(two_replicas, tmp_path):
    with two_replicas.scope():
        optimizer = LossScaling(NAG(0.1, weight_decay=1e-3), initial_scale=4.0, dynamic_growth_steps=4)
        model = compiled(build(1, "mixed_float16"), optimizer)
    assert type(model.optimizer) is LossScaling
    fit(model)
    for replica, scale in ((0, 2.0), (1, 1.0), (1, 1.0)):  # not below min_scale
        images = IMAGES.copy()
        images[replica * 4] = np.nan
        before = state(model)
        fit(model, images)
        for path, value in state(model).items():
            wanted = {"dynamic_scale": scale, "step_counter": 0}.get(path.split("/")[-1], before[path])
            np.testing.assert_array_equal(value, wanted, err_msg=path)
    model.save(tmp_path / "model.keras")
    with two_replicas.scope():
        loaded = keras.saving.load_model(tmp_path / "model.keras")
    for each in (model, loaded):
        fit(each)
    for (path, value), other in zip(state(model).items(), state(loaded).values(), strict=True):
        np.testing.assert_array_equal(value, other, err_msg=path)


@pytest.mark.parametrize("scaled", [pytest.param(False, marks=pytest.mark.thorough), True])
@pytest.mark.parametrize("with_teacher", [pytest.param(False, marks=pytest.mark.thorough), True])
def test_penalties_and_the_soft_loss_count_once_and_not_once_a_replica(two_replicas, with_teacher, scaled):
    def gradient(strategy):
        with strategy.scope():
            model = trainee = build(1)
            if with_teacher:
                trainee = DistillationModel(model, build(2, decay=0.5), temperature=4.0, hard_weight=0.3)
            optimizer = NAG(1.0, momentum=0.0)
            compiled(trainee, LossScaling(optimizer, initial_scale=64.0) if scaled else optimizer)
        before = [variable.numpy() for variable in model.trainable_variables]
        fit(trainee)
        return [old - new.numpy() for old, new in zip(before, model.trainable_variables, strict=True)]

    for one, two in zip(gradient(tf.distribute.get_strategy()), gradient(two_replicas), strict=True):
        np.testing.assert_allclose(two, one, rtol=1e-5, atol=1e-6)


def test_a_variable_without_gradient_stays(two_replicas):
    with two_replicas.scope():
        weights = [keras.Variable([1.0, 2.0], name=name) for name in ("kernel", "unused")]
        optimizer = LossScaling(NAG(1.0, momentum=0.0), initial_scale=8.0)
        optimizer.build(weights)

    def step():
        optimizer.apply([tf.fill([2], 8.0), None], weights)

    tf.function(lambda: two_replicas.run(step))()
    for weight, wanted in zip(weights, ([-1.0, 0.0], [1.0, 2.0]), strict=True):
        np.testing.assert_array_equal(weight.numpy(), wanted)
