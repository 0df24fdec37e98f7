"""Batch norm on two replicas: synchronised, it equals one device; otherwise moving statistics are averaged."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_bot import tricks
from keras_bot.training.distributed.accumulate import accumulate_in_step
from keras_bot.training.fused_batch_norm import average_moving_statistics_in_step, fuse_batch_norm

rng = np.random.default_rng(0)
IMAGES = rng.standard_normal((16, 6, 6, 3), dtype="float32")
IMAGES[8:] += 4  # the replicas' batches have other means and other variances
IMAGES[8:] *= 2
LABELS = np.eye(4, dtype="float32")[rng.integers(0, 4, 16)]
HALVES = slice(0, 8), slice(8, 16)


def network(policy="float32"):
    """Builds a network with batch norm of an activation, and of an image whose mean is far from 0."""
    keras.utils.set_random_seed(1)
    image = keras.Input((6, 6, 3))
    with tricks.mixed_precision(policy):
        x = keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5)(image)
        x = keras.layers.Conv2D(5, 3, use_bias=False)(x)
        x = keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5)(x)
        x = keras.layers.GlobalAveragePooling2D()(keras.layers.ReLU()(x))
        x = keras.layers.Dense(4, dtype="float32")(x)
    return keras.Model(image, x)


def loss_of(model, images, labels):
    entropy = keras.losses.categorical_crossentropy(labels, model(images, training=True), from_logits=True)
    return tf.reduce_sum(entropy) / len(IMAGES)


def gradients_of(model, images, labels):
    """Returns the gradients of every trainable variable and of the images."""
    with tf.GradientTape() as tape:
        tape.watch(images)
        loss = loss_of(model, images, labels)
    return tape.gradient(loss, [*[variable.value for variable in model.trainable_variables], images])


def statistics_of(model):
    return [variable for variable in model.non_trainable_variables if "moving" in variable.path]


@pytest.mark.parametrize(
    ("policy", "tolerance"),
    [("float32", 1e-5), pytest.param("mixed_bfloat16", 0.03, marks=pytest.mark.thorough), ("mixed_float16", 0.004)],
)
def test_synchronised_gradients_equal_one_device(two_replicas, policy, tolerance):
    """Gradients summed over replicas equal those of Keras' own batch norm on one device in float32."""
    plain = network()
    *expected, expected_images = gradients_of(plain, tf.constant(IMAGES), LABELS)
    with two_replicas.scope():
        model = network(policy)
    assert len(fuse_batch_norm(model, synchronized=True)) == 2
    model.set_weights(network().get_weights())
    batches = two_replicas.experimental_distribute_values_from_function(
        lambda context: tuple(tf.constant(x[HALVES[context.replica_id_in_sync_group]]) for x in (IMAGES, LABELS))
    )
    images, labels = (two_replicas.run(lambda batch, i=i: batch[i], (batches,)) for i in (0, 1))
    step = tf.function(lambda x, y: two_replicas.run(lambda x, y: gradients_of(model, x, y), (x, y)))
    *gradients, image_gradients = (two_replicas.experimental_local_results(value) for value in step(images, labels))
    tolerances = {"rtol": tolerance, "atol": tolerance}
    for replicas, whole in zip(gradients, expected, strict=True):
        np.testing.assert_allclose(sum(replicas), whole, **tolerances)
    np.testing.assert_allclose(np.concatenate(image_gradients), expected_images, **tolerances)
    for variable, whole in zip(statistics_of(model), statistics_of(plain), strict=True):
        one, other = (np.asarray(x) for x in variable.value.values)
        np.testing.assert_array_equal(one, other)
        np.testing.assert_allclose(one, whole, **tolerances)
    np.testing.assert_allclose(model(IMAGES), plain(IMAGES), rtol=10 * tolerance, atol=10 * tolerance)


def data(steps):
    return tf.data.Dataset.from_tensors((IMAGES, LABELS)).repeat(steps)


def compiled(model):
    model.compile(tricks.NAG(0.05), keras.losses.CategoricalCrossentropy(from_logits=True), jit_compile=False)
    return model


@pytest.mark.thorough
def test_synchronised_training_equals_one_device(two_replicas):
    with two_replicas.scope():
        model = compiled(network())
    fuse_batch_norm(model, synchronized=True)
    plain = compiled(network())
    losses = [trained.fit(data(5), verbose=0).history["loss"] for trained in (model, plain)]
    np.testing.assert_allclose(*losses, rtol=1e-5)
    for weights, expected in zip(model.get_weights(), plain.get_weights(), strict=True):
        np.testing.assert_allclose(weights, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("steps", "distilled"), [(1, False), pytest.param(2, True, marks=pytest.mark.thorough)])
def test_moving_statistics_are_averaged_over_replicas(two_replicas, steps, distilled):
    """After a step, each replica has the mean of the statistics that single devices have for its half of the batch."""

    def build(nested=True):
        inner = network()
        image = keras.Input((6, 6, 3))
        outer = keras.Model(image, inner(image)) if nested else inner
        trainee = tricks.DistillationModel(outer, network()) if distilled else outer
        return compiled(trainee), outer

    single = []  # statistics of a single device for each half
    for half in HALVES:
        model, student = build()
        accumulate_in_step(model, steps)
        model.fit(tf.data.Dataset.from_tensors((IMAGES[half], LABELS[half])), verbose=0)
        single.append([np.asarray(variable) for variable in statistics_of(student)])
    assert not np.allclose(single[0][0], single[1][0])
    for averaged in (False, True):
        with two_replicas.scope():
            model, student = build()
        accumulate_in_step(model, steps)
        if averaged:
            average_moving_statistics_in_step(model, student)
        model.fit(data(1), verbose=0)
        assert len(statistics_of(student)) == 4
        for variable, *halves in zip(statistics_of(student), *single, strict=True):
            replicas = [np.asarray(x) for x in variable.value.values]
            expected = [sum(halves) / 2] * 2 if averaged else halves
            np.testing.assert_allclose(replicas, expected, rtol=1e-5, atol=1e-6)
            assert np.array_equal(*replicas) == averaged
    model.fit(data(3), verbose=0)
    for variable in model.variables:
        if hasattr(variable.value, "values"):
            one, other = variable.value.values
            np.testing.assert_array_equal(one, other, err_msg=variable.path)
