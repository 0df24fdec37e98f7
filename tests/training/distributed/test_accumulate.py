"""Gradient accumulation gives the weights and metrics of the whole batch."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_bot import tricks
from keras_bot.errors import MisuseError
from keras_bot.recipe import Recipe
from keras_bot.tasks.classification import Classification
from keras_bot.training.distributed.accumulate import accumulate_in_step

rng = np.random.default_rng(0)
IMAGES = rng.standard_normal((16, 6, 6, 3), dtype="float32")
LABELS = np.eye(4, dtype="float32")[rng.integers(0, 4, 16)]
WEIGHTS = rng.uniform(0.5, 2, 16).astype("float32")


def network(policy="float32", l2=None, filters=5):
    keras.utils.set_random_seed(1)
    image = keras.Input((6, 6, 3))
    with tricks.mixed_precision(policy):
        x = keras.layers.Conv2D(filters, 3, activation="relu", kernel_regularizer=l2)(image)
        x = keras.layers.GlobalAveragePooling2D()(x)
        x = keras.layers.Dense(4, dtype="float32")(x)
    return keras.Model(image, x)


def compiled(model, steps, *, optimizer=None, jit=False):
    model.compile(
        optimizer=optimizer or tricks.NAG(0.1, weight_decay=1e-3),
        loss=keras.losses.CategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        weighted_metrics=[keras.metrics.CategoricalCrossentropy(from_logits=True, name="entropy")],
        jit_compile=jit,
    )
    if steps is not None:
        accumulate_in_step(model, steps)
    return model


def after_steps(model, steps=5, batch=(IMAGES, LABELS, WEIGHTS)):
    """Trains some steps; returns the weights and metrics."""
    data = tf.data.Dataset.from_tensors(batch).repeat(steps)
    logs = model.fit(data, verbose=0).history
    return model.get_weights(), logs


def assert_same(actual, expected, rtol=1e-5):
    """Compares two results of `after_steps`."""
    (weights, logs), (expected_weights, expected_logs) = actual, expected
    for a, b in zip(weights, expected_weights, strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol / 10)
    assert logs.keys() == expected_logs.keys() and "entropy" in logs
    for name in logs:
        np.testing.assert_allclose(logs[name], expected_logs[name], rtol=rtol)


@pytest.fixture(scope="module")
def whole():
    return after_steps(compiled(network(), None))


@pytest.mark.parametrize(("steps", "jit"), [(1, False), (2, False), (4, False), (4, True)])
def test_accumulation_equals_the_whole_batch(steps, jit, whole):
    assert_same(after_steps(compiled(network(), steps, jit=jit)), whole)


def test_the_penalty_counts_once():
    penalty = keras.regularizers.L2(0.05)
    assert_same(*(after_steps(compiled(network(l2=penalty), steps)) for steps in (4, None)))


@pytest.mark.thorough
def test_the_teacher_sees_each_micro_batch():
    def distiller():
        teacher = network(filters=7)
        return tricks.DistillationModel(network(l2=keras.regularizers.L2(0.05)), teacher, temperature=3.0)

    assert_same(*(after_steps(compiled(distiller(), steps)) for steps in (2, None)))


@pytest.mark.parametrize(
    "wrapper", [tricks.LossScaling, pytest.param(keras.optimizers.LossScaleOptimizer, marks=pytest.mark.thorough)]
)
def test_half_precision_with_a_scaled_loss(wrapper):
    results = []
    for steps in (4, None):
        optimizer = wrapper(tricks.NAG(0.1))
        results.append(after_steps(compiled(network("mixed_float16"), steps, optimizer=optimizer)))
        assert float(optimizer.dynamic_scale.numpy()) == 2.0**15
    assert_same(*results, rtol=5e-3)


def test_an_overflow_in_one_micro_batch_skips_the_whole_update():
    optimizer = tricks.LossScaling(tricks.NAG(0.1))
    model = compiled(network("mixed_float16"), 4, optimizer=optimizer)
    before = model.get_weights()
    images = IMAGES.copy()
    images[-1] = np.inf
    weights, _ = after_steps(model, 1, (images, LABELS))
    for after, initial in zip(weights, before, strict=True):
        np.testing.assert_array_equal(after, initial)
    assert float(optimizer.dynamic_scale.numpy()) == 2.0**14


def test_nested_inputs_and_a_variable_without_gradient():
    class Unused(keras.layers.Layer):
        def build(self, _):
            self.idle = self.add_weight(shape=(2,), name="idle")

        def call(self, x):
            return x

    def nested():
        keras.utils.set_random_seed(1)
        inputs = {"a": keras.Input((6,)), "b": keras.Input((3,))}
        x = Unused()(keras.layers.concatenate([inputs["a"], inputs["b"]]))
        return keras.Model(inputs, keras.layers.Dense(4)(x))

    batch = ({"a": IMAGES[:, 0, :, 0], "b": IMAGES[:, 1, 1]}, LABELS)
    with pytest.warns(UserWarning, match="Gradients do not exist"):
        assert_same(*(after_steps(compiled(nested(), steps), batch=batch) for steps in (4, None)))


def test_indivisible_batches_are_rejected():
    model = compiled(network(), 3)
    with pytest.raises(MisuseError, match="batch of 16 images is not divisible by accumulation_steps=3"):
        model.fit(tf.data.Dataset.from_tensors((IMAGES, LABELS)), verbose=0)
    unknown_size = tf.data.Dataset.from_tensor_slices((IMAGES, LABELS)).batch(16)  # static batch size None
    with pytest.raises(tf.errors.InvalidArgumentError, match="not divisible by accumulation_steps=3"):
        compiled(network(), 3).fit(unknown_size, verbose=0)
    assert_same(
        after_steps(compiled(network(), 4), 1, (IMAGES, LABELS)), fit_once(compiled(network(), 4), unknown_size)
    )
    with pytest.raises(MisuseError, match="--accumulation_steps=0 must be at least 1"):
        accumulate_in_step(model, 0)


def fit_once(model, data):
    logs = model.fit(data, verbose=0).history
    return model.get_weights(), logs


@pytest.mark.thorough
def test_only_one_micro_batch_is_in_memory():
    """Counts full-batch activations in XLA's optimised program."""

    def full_batch_activations(steps):
        image = keras.Input((32, 32, 3))
        x = image
        for _ in range(4):
            x = keras.layers.Conv2D(8, 3, padding="same", activation="tanh")(x)
        model = compiled(keras.Model(image, keras.layers.Dense(4)(keras.layers.GlobalAveragePooling2D()(x))), steps)
        batch = tf.zeros((16, 32, 32, 3)), tf.zeros((16, 4))
        model.optimizer.build(model.trainable_variables)
        model.train_step(batch)  # the first step creates variables
        step = tf.function(model.train_step, jit_compile=True)
        text = step.experimental_get_compiler_ir(batch)(stage="optimized_hlo")
        shapes = [line for line in text.splitlines() if "f32[16,32,32,8]" in line]
        return len(shapes)

    assert full_batch_activations(None) > 0
    assert full_batch_activations(4) == 0


@pytest.mark.parametrize("kind", ["float32", pytest.param("mixed_float16", marks=pytest.mark.thorough)])
def test_accumulation_on_two_replicas(two_replicas, kind):
    """With a penalty; in float32 with a teacher, in float16 with loss scaling."""

    def model(steps):
        student = network(kind, l2=keras.regularizers.L2(0.05))
        if kind == "float32":
            return compiled(tricks.DistillationModel(student, network(filters=7), temperature=3.0), steps)
        return compiled(student, steps, optimizer=tricks.LossScaling(tricks.NAG(0.1)))

    with two_replicas.scope():
        mirrored = model(4)
    assert_same(after_steps(mirrored), after_steps(model(None)), rtol=1e-5 if kind == "float32" else 5e-3)
    for variable in mirrored.trainable_variables:
        np.testing.assert_array_equal(*variable.value.values)


@pytest.mark.thorough
def test_accumulation_equals_the_whole_batch_on_photos(test_data):
    """20 steps without batch norm on augmented, mixed photos: weights agree to 1e-4, metrics to 1e-5."""
    recipe = Recipe(
        dataset=str(test_data / "imagenette224"), image_size=64, batch_size=40, epochs=1, mixup_alpha=0.2, seed=1
    )
    task = Classification()
    source = task.open_source(recipe, "train")
    results = []
    for steps in (None, 4):
        keras.utils.set_random_seed(1)
        x = image = keras.Input((64, 64, 3))
        for filters in (16, 32, 64):
            x = keras.layers.Conv2D(filters, 3, strides=2, activation="relu")(x)
        x = keras.layers.GlobalAveragePooling2D()(x)
        model = compiled(keras.Model(image, keras.layers.Dense(10)(x)), steps)
        logs = model.fit(task.training_data(recipe, source, None), verbose=0, steps_per_epoch=20).history
        results.append((np.concatenate([w.ravel() for w in model.get_weights()]), logs))
    (whole, whole_logs), (weights, logs) = results
    distance = np.linalg.norm(weights - whole) / np.linalg.norm(whole)
    print(f"weights differ by {distance:.2g}; {logs} and {whole_logs}")
    assert distance < 1e-4
    for name in logs:
        np.testing.assert_allclose(logs[name], whole_logs[name], rtol=1e-5)
