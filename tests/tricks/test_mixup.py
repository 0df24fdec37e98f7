import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

from keras_bot.tricks import MixUp, draw_weight, mixup

BATCH, CLASSES = 6, 3


def make_batch(dtype="float32"):
    rng = np.random.default_rng(0)
    images = rng.uniform(0, 255, size=(BATCH, 4, 4, 3)).astype(dtype)
    labels = np.eye(CLASSES, dtype="float32")[rng.integers(0, CLASSES, BATCH)]
    return images, labels


def run_eager(layer, images, labels):
    return layer((tf.constant(images), tf.constant(labels)))


def run_jit(layer, images, labels):
    return tf.function(lambda x, y: layer((x, y)), jit_compile=True)(images, labels)


def run_tf_data(layer, images, labels):
    dataset = tf.data.Dataset.from_tensor_slices((images, labels)).batch(BATCH)
    return next(iter(dataset.map(lambda x, y: layer((x, y)))))


RUNS = [run_eager, run_jit, run_tf_data]


def weight_in(mixed, images):
    """The one lambda that explains `mixed`, by least squares over the whole batch."""
    difference = (images - images[::-1]).astype("float64")
    return float(((mixed - images[::-1]) * difference).sum() / (difference**2).sum())


def test_weight_1_is_the_identity_and_0_the_partner():
    x, y = np.arange(4.0), np.arange(4.0)[::-1]
    np.testing.assert_array_equal(mixup(x, y, 1), x)
    np.testing.assert_array_equal(mixup(x, y, 0), y)
    np.testing.assert_allclose(mixup(x, y, 0.25), 0.25 * x + 0.75 * y)


@pytest.mark.parametrize("run", RUNS)
def test_one_weight_mixes_images_and_labels_with_the_reversed_batch(run):
    images, labels = make_batch()
    mixed, mixed_labels = (np.asarray(t) for t in run(MixUp(1.0, seed=3), images, labels))
    weight = weight_in(mixed, images)
    assert 0.01 < weight < 0.99
    np.testing.assert_allclose(mixed, weight * images + (1 - weight) * images[::-1], rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(mixed_labels, weight * labels + (1 - weight) * labels[::-1], atol=1e-5)
    np.testing.assert_allclose(mixed_labels.sum(axis=-1), 1, rtol=1e-6)


def test_eager_and_tf_data_draw_the_same_weight_for_a_seed():  # XLA has a random generator of its own
    images, labels = make_batch()
    eager, piped = (run(MixUp(1.0, seed=5), images, labels)[0] for run in (run_eager, run_tf_data))
    np.testing.assert_array_equal(eager, piped)


@pytest.mark.parametrize(
    "alpha", [pytest.param(0.05, marks=pytest.mark.thorough), 0.2, 1.0, pytest.param(4.0, marks=pytest.mark.thorough)]
)
def test_the_weight_is_beta_distributed(alpha):
    generator = keras.random.SeedGenerator(7)
    draw = tf.function(lambda: tf.map_fn(lambda _: draw_weight(alpha, generator), tf.zeros(20000)))
    weights = draw().numpy()
    assert np.all((weights >= 0) & (weights <= 1))
    assert weights.mean() == pytest.approx(0.5, abs=0.015)
    assert weights.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.03)
    inside = np.linspace(0.02, 0.98, 25)  # float32 rounds the outermost weights to 0 and 1
    empirical = (weights[:, None] <= inside).mean(axis=0)
    np.testing.assert_allclose(empirical, stats.beta(alpha, alpha).cdf(inside), atol=0.015)


def test_the_papers_alpha_has_the_right_variance():
    generator = keras.random.SeedGenerator(1)
    weights = tf.function(lambda: tf.map_fn(lambda _: draw_weight(0.2, generator), tf.zeros(20000)))()
    assert np.var(weights) == pytest.approx(0.1786, abs=0.003)  # a uniform weight would have 0.0833


def test_seeds_repeat_and_differ():
    images, labels = make_batch()

    def weights_of(seed):
        layer = MixUp(1.0, seed=seed)
        return [weight_in(np.asarray(layer((images, labels))[0]), images) for _ in range(4)]

    assert weights_of(1) == weights_of(1)
    assert weights_of(1) != weights_of(2)
    assert len(set(weights_of(1))) == 4


@pytest.mark.parametrize("run", RUNS)
def test_switched_off_it_is_the_identity(run):
    images, labels = make_batch()
    layer = MixUp(1.0, seed=3)
    layer.enabled.assign(0.0)
    mixed, mixed_labels = run(layer, images, labels)
    np.testing.assert_array_equal(mixed, images)
    np.testing.assert_array_equal(mixed_labels, labels)


def test_a_running_pipeline_sees_the_switch():
    images, labels = make_batch()
    layer = MixUp(1.0, seed=3)
    dataset = tf.data.Dataset.from_tensors((images, labels)).map(lambda x, y: layer((x, y)))
    assert np.any(next(iter(dataset))[0] != images)
    layer.enabled.assign(0.0)
    np.testing.assert_array_equal(next(iter(dataset))[0], images)


def test_inference_is_the_identity():
    images, labels = make_batch()
    np.testing.assert_array_equal(MixUp(1.0)((images, labels), training=False)[0], images)


def test_dictionaries_give_dictionaries():
    images, labels = make_batch()
    from_tuple = MixUp(1.0, seed=3)((images, labels))
    from_dict = MixUp(1.0, seed=3)({"images": images, "labels": labels})
    assert set(from_dict) == {"images", "labels"}
    np.testing.assert_array_equal(from_dict["images"], from_tuple[0])
    np.testing.assert_array_equal(from_dict["labels"], from_tuple[1])


def test_a_pipeline_maps_the_layer_itself():
    images, labels = make_batch()
    dataset = tf.data.Dataset.from_tensor_slices((images, labels)).batch(BATCH)
    expected = run_tf_data(MixUp(1.0, seed=3), images, labels)
    for part, mixed in zip(expected, next(iter(dataset.map(MixUp(1.0, seed=3)))), strict=True):
        np.testing.assert_array_equal(mixed, part)
    weighted = tf.data.Dataset.from_tensor_slices((images, labels, np.ones(BATCH))).batch(BATCH)
    mixed = next(iter(weighted.map(MixUp(1.0, seed=3))))
    assert len(mixed) == 3
    np.testing.assert_allclose(mixed[1], expected[1], rtol=1e-6)


@pytest.mark.parametrize("run", [run_eager, run_jit])
def test_with_sample_weights_the_loss_is_the_mixture_of_both_examples_losses(run):
    images, labels = make_batch()
    weights = np.array([1.0, 2.0, 0.0, 3.0, 0.5, 1.0], "float32")
    layer = MixUp(1.0, seed=3)
    call = tf.function(lambda x, y, w: layer((x, y, w)), jit_compile=run is run_jit)
    mixed, mixed_labels, mixed_weights = (np.asarray(part) for part in call(images, labels, weights))
    share = weight_in(mixed, images)
    np.testing.assert_allclose(mixed_weights, share * weights + (1 - share) * weights[::-1], rtol=1e-4)
    logits = np.random.default_rng(1).normal(size=labels.shape).astype("float32")
    crossentropy = [keras.losses.categorical_crossentropy(y, logits, from_logits=True) for y in (labels, labels[::-1])]
    own, partner = (np.asarray(part) for part in crossentropy)
    expected = share * weights * own + (1 - share) * weights[::-1] * partner
    found = mixed_weights * np.asarray(keras.losses.categorical_crossentropy(mixed_labels, logits, from_logits=True))
    np.testing.assert_allclose(found, expected, rtol=1e-3)
    np.testing.assert_allclose(mixed_labels.sum(axis=-1), 1, rtol=1e-5)


def test_examples_without_weight_mix_and_keep_weight_0():
    images, labels = make_batch()
    weighted = {"images": images, "labels": labels, "sample_weight": np.zeros(BATCH, "float32")}
    mixed = MixUp(1.0, seed=3)(weighted)
    assert list(mixed) == list(weighted)
    np.testing.assert_array_equal(mixed["sample_weight"], 0)
    np.testing.assert_allclose(mixed["labels"], MixUp(1.0, seed=3)((images, labels))[1], rtol=1e-6)


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("dtype", ["float32", "uint8", pytest.param("float16", marks=pytest.mark.thorough)])
def test_a_mixed_policy_keeps_labels_in_float32_and_the_images_dtype(run, dtype):
    images, labels = make_batch(dtype)
    layer = MixUp(1.0, seed=3, dtype="mixed_float16")
    mixed, mixed_labels = run(layer, images, labels)
    assert mixed.dtype == (layer.compute_dtype if dtype == "uint8" else dtype)
    assert mixed_labels.dtype == tf.float32
    reference = run(MixUp(1.0, seed=3), images.astype("float32"), labels)[0]
    np.testing.assert_allclose(np.asarray(mixed, "float32"), reference, rtol=1e-2, atol=0.5)


def test_a_functional_model_can_hold_it():
    images, labels = make_batch()
    inputs = keras.Input((4, 4, 3)), keras.Input((CLASSES,))
    model = keras.Model(inputs, MixUp(1.0, seed=3)(inputs))
    np.testing.assert_array_equal(model([images, labels], training=False)[0], images)
    assert np.any(np.asarray(model([images, labels], training=True)[0]) != images)
