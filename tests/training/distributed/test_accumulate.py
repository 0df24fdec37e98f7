"""A batch taken in parts is the whole batch, for the weights and for the metrics."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_bot import tricks
from keras_bot.errors import MisuseError
from keras_bot.recipe import Recipe
from keras_bot.training import assemble
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


def compiled(model, parts, *, optimizer=None, jit=False):
    model.compile(
        optimizer=optimizer or tricks.NAG(0.1, weight_decay=1e-3),
        loss=keras.losses.CategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        weighted_metrics=[keras.metrics.CategoricalCrossentropy(from_logits=True, name="entropy")],
        jit_compile=jit,
    )
    if parts is not None:
        accumulate_in_step(model, parts)
    return model


def after_steps(model, steps=5, batch=(IMAGES, LABELS, WEIGHTS)):
    """The weights and the metrics after so many steps."""
    data = tf.data.Dataset.from_tensors(batch).repeat(steps)
    logs = model.fit(data, verbose=0).history
    return model.get_weights(), logs


def assert_same(ours, theirs, rtol=1e-5):
    for a, b in zip(ours[0], theirs[0], strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol / 10)
    assert ours[1].keys() == theirs[1].keys() and "entropy" in ours[1]
    for name in ours[1]:
        np.testing.assert_allclose(ours[1][name], theirs[1][name], rtol=rtol)


@pytest.fixture(scope="module")
def whole():
    return after_steps(compiled(network(), None))


@pytest.mark.parametrize(("parts", "jit"), [(1, False), (2, False), (4, False), (4, True)])
def test_parts_are_the_whole(parts, jit, whole):
    assert_same(after_steps(compiled(network(), parts, jit=jit)), whole)


def test_the_penalty_counts_once():
    penalty = keras.regularizers.L2(0.05)
    assert_same(*(after_steps(compiled(network(l2=penalty), parts)) for parts in (4, None)))


def test_a_distiller_gives_each_part_to_its_teacher():
    def distiller():
        teacher = network(filters=7)
        return tricks.Distiller(network(l2=keras.regularizers.L2(0.05)), teacher, temperature=3.0)

    assert_same(*(after_steps(compiled(distiller(), parts)) for parts in (2, None)))


@pytest.mark.parametrize("wrapper", [tricks.LossScaling, keras.optimizers.LossScaleOptimizer])
def test_half_precision_with_a_scaled_loss(wrapper):
    results = []
    for parts in (4, None):
        optimizer = wrapper(tricks.NAG(0.1))
        results.append(after_steps(compiled(network("mixed_float16"), parts, optimizer=optimizer)))
        assert float(optimizer.dynamic_scale.numpy()) == 2.0**15
    assert_same(*results, rtol=5e-3)


def test_one_part_that_overflows_skips_the_whole_update():
    optimizer = tricks.LossScaling(tricks.NAG(0.1))
    model = compiled(network("mixed_float16"), 4, optimizer=optimizer)
    before = model.get_weights()
    images = IMAGES.copy()
    images[-1] = np.inf
    weights, _ = after_steps(model, 1, (images, LABELS))
    for ours, theirs in zip(weights, before, strict=True):
        np.testing.assert_array_equal(ours, theirs)
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
        assert_same(*(after_steps(compiled(nested(), parts), batch=batch) for parts in (4, None)))


def test_rows_that_do_not_divide():
    model = compiled(network(), 3)
    with pytest.raises(MisuseError, match="batch of 16 images to divide into 3 parts"):
        model.fit(tf.data.Dataset.from_tensors((IMAGES, LABELS)), verbose=0)
    some = tf.data.Dataset.from_tensor_slices((IMAGES, LABELS)).batch(16)  # of a size known only when it runs
    with pytest.raises(tf.errors.InvalidArgumentError, match="divide into 3 parts"):
        compiled(network(), 3).fit(some, verbose=0)
    assert_same(after_steps(compiled(network(), 4), 1, (IMAGES, LABELS)), fit_once(compiled(network(), 4), some))
    with pytest.raises(MisuseError, match="at least 1 part"):
        accumulate_in_step(model, 0)


def fit_once(model, data):
    logs = model.fit(data, verbose=0).history
    return model.get_weights(), logs


def test_only_one_part_is_alive():
    """XLA's own account of the step's temporary memory, where activations outweigh weights."""

    def temporaries(parts):
        image = keras.Input((32, 32, 3))
        x = image
        for _ in range(4):
            x = keras.layers.Conv2D(8, 3, padding="same", activation="tanh")(x)
        model = compiled(keras.Model(image, keras.layers.Dense(4)(keras.layers.GlobalAveragePooling2D()(x))), parts)
        batch = tf.zeros((16, 32, 32, 3)), tf.zeros((16, 4))
        model.optimizer.build(model.trainable_variables)
        model.train_step(batch)  # makes what is made at the first step
        step = tf.function(model.train_step, jit_compile=True)
        text = step.experimental_get_compiler_ir(batch)(stage="optimized_hlo")
        shapes = [line for line in text.splitlines() if "f32[16,32,32,8]" in line]
        return len(shapes)

    assert temporaries(None) > 0
    assert temporaries(4) == 0


@pytest.mark.parametrize("kind", ["float32", "mixed_float16"])
def test_two_replicas_each_in_parts(two_replicas, kind):
    """With a penalty; in float32 with a teacher, in float16 with loss scaling."""

    def model(parts):
        student = network(kind, l2=keras.regularizers.L2(0.05))
        if kind == "float32":
            return compiled(tricks.Distiller(student, network(filters=7), temperature=3.0), parts)
        return compiled(student, parts, optimizer=tricks.LossScaling(tricks.NAG(0.1)))

    with two_replicas.scope():
        mirrored = model(4)
    assert_same(after_steps(mirrored), after_steps(model(None)), rtol=1e-5 if kind == "float32" else 5e-3)
    for variable in mirrored.trainable_variables:
        np.testing.assert_array_equal(*variable.value.values)


@pytest.mark.slow
def test_parts_are_the_whole_on_photos(test_data):
    """20 steps of a network without batch norm on augmented, mixed photos: weights to 1e-4, metrics to 1e-5."""
    recipe = Recipe(
        dataset=str(test_data / "imagenette224"), image_size=64, batch_size=40, epochs=1, mixup_alpha=0.2, seed=1
    )
    source = assemble.open_source(recipe, "train")
    results = []
    for parts in (None, 4):
        keras.utils.set_random_seed(1)
        x = image = keras.Input((64, 64, 3))
        for filters in (16, 32, 64):
            x = keras.layers.Conv2D(filters, 3, strides=2, activation="relu")(x)
        x = keras.layers.GlobalAveragePooling2D()(x)
        model = compiled(keras.Model(image, keras.layers.Dense(10)(x)), parts)
        logs = model.fit(assemble.training_data(recipe, source, None), verbose=0, steps_per_epoch=20).history
        results.append((np.concatenate([w.ravel() for w in model.get_weights()]), logs))
    (whole, whole_logs), (ours, logs) = results
    distance = np.linalg.norm(ours - whole) / np.linalg.norm(whole)
    print(f"weights differ by {distance:.2g}; {logs} and {whole_logs}")
    assert distance < 1e-4
    for name in logs:
        np.testing.assert_allclose(logs[name], whole_logs[name], rtol=1e-5)
