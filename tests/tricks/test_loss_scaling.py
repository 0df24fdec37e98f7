"""A gradient that isn't finite, in any replica, skips the step in all of them and halves the scale."""

import itertools
import json
import subprocess
import sys

import keras
import numpy as np
import pytest

from keras_bot.tricks import NAG, LossScaling

PLANTED = """
import json, sys
import numpy as np
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 4)
import keras
from keras_bot.tricks import NAG, LossScaling

def parts(variable):
    value = variable.value
    return [np.asarray(each) for each in getattr(value, "values", [value])]

def play(make, replicas, culprit, planted):
    devices = [f"CPU:{i}" for i in range(replicas)]
    strategy = tf.distribute.MirroredStrategy(devices) if replicas > 1 else tf.distribute.get_strategy()
    with strategy.scope():
        weights = [keras.Variable(np.arange(6.0).reshape(2, 3), name="kernel"), keras.Variable(np.ones(3), name="bias")]
        optimizer = make()
        optimizer.build(weights)

    def step(culprit):
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        grads = [tf.fill(w.shape, tf.cast(replica + 1, tf.float32) * optimizer.dynamic_scale.value) for w in weights]
        bad = tf.equal(replica, culprit)
        grads[1] = tf.where(bad & (tf.range(3) == 1), planted, grads[1])
        optimizer.apply(grads, weights)

    run = tf.function(lambda culprit: strategy.run(step, (culprit,)))
    watched = {"scale": optimizer.dynamic_scale, "good": optimizer.step_counter, "iterations": optimizer.iterations}
    watched |= {f"w{i}": w for i, w in enumerate(weights)}
    states = []
    for who in (-1, culprit, -1):
        run(tf.constant(who))
        states.append({name: [part.tolist() for part in parts(v)] for name, v in watched.items()})
    return states

print(json.dumps([play(**case) for case in CASES]))
"""


def play(cases):
    """States of each case; a process can have one number of replicas above 1."""
    code = PLANTED.replace("CASES", "[" + ", ".join(cases) + "]")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def nag(gradients, rate=0.1, momentum=0.9):
    """NumPy's weights after each gradient of one element, from 0."""
    weight = velocity = 0.0
    for gradient in gradients:
        velocity = momentum * velocity + gradient
        weight -= rate * (gradient + momentum * velocity)
    return weight


OURS = "LossScaling(NAG(0.1, weight_decay=0.0), initial_scale=1024.0, dynamic_growth_steps={growth})"


def case(replicas, culprit, planted, make=None):
    make = make or OURS.format(growth=100)
    return f"dict(make=lambda: {make}, replicas={replicas}, culprit={culprit}, planted=float('{planted}'))"


SETTINGS = {n: [(n, culprit, bad) for culprit in range(n) for bad in ("inf", "nan")] for n in (1, 2, 4)}
KERAS_OWN = "keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1), initial_scale=1024.0)"
CLIPPED = {"global_clipnorm=3.0": 3.0 / np.sqrt(9 * 3.0**2) * 3.0, "clipvalue=0.5": 0.5}  # 9 elements of 1 + 2
ALONE = "type('Alone', (NAG,), dict(dynamic_scale=keras.Variable(1.0), step_counter=keras.Variable(0)))"


@pytest.fixture(scope="module")
def played():
    """States of all cases on one and on two replicas, from one process."""
    inner = [f"NAG(1.0, momentum=0.0, {clip})" for clip in CLIPPED]
    clipped = [case(2, -1, "inf", f"LossScaling({make}, initial_scale=1024.0)") for make in inner]
    clipped += [case(2, -1, "inf", make.replace("NAG", ALONE, 1)) for make in inner]
    cases = {n: [case(*each) for each in SETTINGS[n]] for n in (1, 2)}
    cases |= {f"grown {n}": [case(n, -1, "inf", OURS.format(growth=2))] for n in (1, 2)}
    cases |= {"Keras": [case(2, 1, "inf", KERAS_OWN)], "clipped": clipped}
    states = iter(play([each for part in cases.values() for each in part]))
    return {name: list(itertools.islice(states, len(part))) for name, part in cases.items()}


@pytest.mark.parametrize("replicas", [1, 2, pytest.param(4, marks=pytest.mark.thorough)])
def test_a_planted_gradient_skips_the_step_everywhere(replicas, played):
    settings = SETTINGS[replicas]
    every = played[replicas] if replicas in played else play([case(*each) for each in settings])
    begin = {"w0": np.arange(6.0).reshape(2, 3), "w1": np.ones(3)}
    for (replicas, culprit, bad), states in zip(settings, every, strict=True):
        what = f"{bad} in replica {culprit} of {replicas}"
        for state in states:
            assert all(part == parts[0] for parts in state.values() for part in parts), f"{what}: replicas differ"
        first, skipped, last = ({name: parts[0] for name, parts in state.items()} for state in states)
        assert first["scale"] == 1024 and skipped["scale"] == last["scale"] == 512, what
        assert (first["good"], skipped["good"], last["good"]) == (1, 0, 1), what
        assert (first["iterations"], skipped["iterations"], last["iterations"]) == (1, 1, 2), what
        total = replicas * (replicas + 1) / 2
        for name, start in begin.items():
            assert skipped[name] == first[name], what
            np.testing.assert_allclose(first[name], start + nag([total]), rtol=1e-6)
            np.testing.assert_allclose(last[name], start + nag([total, total]), rtol=1e-6)


def test_keras_own_still_needs_ours(played):
    """When this fails, Keras decides on all replicas, and LossScaling can go."""
    (states,) = played["Keras"]
    assert not np.isfinite(np.array(states[1]["w1"])).all() and states[1]["scale"][0] == 1024


@pytest.mark.parametrize("replicas", [1, 2])
def test_the_scale_grows_once_on_any_number_of_replicas(replicas, played):
    (states,) = played[f"grown {replicas}"]
    for state, scale in zip(states, (1024, 2048, 2048), strict=True):
        assert state["scale"] == [scale] * replicas


def test_clipping_sees_the_summed_gradient(played):
    for states, expected in zip(played["clipped"], [*CLIPPED.values()] * 2, strict=True):
        np.testing.assert_allclose(np.ones(3) - np.array(states[0]["w1"][0]), expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("jit", "inner"), [(True, lambda: NAG(0.05)), (False, lambda: keras.optimizers.Adam(0.01))], ids=["nag", "adam"]
)
def test_it_trains_and_is_saved_in_both_forms(tmp_path, jit, inner):
    draw = np.random.default_rng(0)
    images, labels = draw.normal(size=(64, 8)).astype("float32"), draw.integers(0, 2, 64)
    with_policy = {"dtype": "mixed_float16"}
    model = keras.Sequential(
        [keras.Input((8,)), keras.layers.Dense(16, "relu", **with_policy), keras.layers.Dense(2, dtype="float32")]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(LossScaling(inner(), initial_scale=2.0**30, dynamic_growth_steps=3), loss, jit_compile=jit)
    files = (tmp_path / "model.keras", tmp_path / "model.weights.h5")
    savers = [keras.callbacks.ModelCheckpoint(str(f), save_weights_only=f.suffix == ".h5") for f in files]
    history = model.fit(images, labels, epochs=20, verbose=0, callbacks=savers).history["loss"]
    assert history[-1] < history[0] and model.optimizer.dynamic_scale.numpy() < 2.0**30
    loaded = keras.saving.load_model(files[0])
    assert isinstance(loaded.optimizer, LossScaling)
    for ours, theirs in zip(loaded.optimizer.variables, model.optimizer.variables, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    loaded.load_weights(files[1])
    assert np.isfinite(loaded.fit(images, labels, verbose=0).history["loss"]).all()


def test_the_scale_is_halved_down_to_min_scale():
    variable = keras.Variable([1.0], name="kernel")
    optimizer = LossScaling(NAG(0.1), initial_scale=64.0, min_scale=16.0)
    optimizer.build([variable])
    scales = []
    for _ in range(4):
        optimizer.apply([keras.ops.convert_to_tensor([np.inf])])
        scales.append(float(optimizer.dynamic_scale))
    assert scales == [32, 16, 16, 16] and variable.numpy() == 1
