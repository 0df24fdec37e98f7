"""`compile_trainee` passes every setting of the recipe to Keras and to the strategy, in the right order."""

import types
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_bot import data
from keras_bot.recipe import Recipe
from keras_bot.training.compile import augment_in_step, compile_trainee
from keras_bot.training.distillation.soft_targets import build_distillation_model
from keras_bot.training.distributed.selection import build_strategy
from keras_bot.training.evaluate import build_losses
from keras_bot.training.optimizer import build_optimizer


class FakeStrategy:
    """Records what it is asked for; `jit` is its answer to `use_jit`."""

    def __init__(self, jit=False):
        self.jit, self.calls = jit, []

    def use_jit(self, recipe):
        self.calls.append(("use_jit", recipe))
        return self.jit

    def prepare_step(self, trainee, network, **options):
        self.calls.append(("prepare_step", trainee, network, options, trainee.compiled))


def build_network():
    keras.utils.set_random_seed(0)
    return keras.Sequential([keras.Input((2, 2, 3)), keras.layers.Flatten(), keras.layers.Dense(6)])


def compiled(recipe, trainee=None, jit=False, **options):
    """Returns a compiled network, or a compiled model around it, with its strategy and optimizer."""
    network = build_network()
    trainee = trainee(network) if trainee else network
    strategy, optimizer = FakeStrategy(jit), build_optimizer(recipe, 0.1, network)
    options = {"losses": build_losses(), **options}
    compile_trainee(recipe, trainee, network, optimizer, strategy, **options)
    return types.SimpleNamespace(trainee=trainee, network=network, strategy=strategy, optimizer=optimizer)


@pytest.mark.parametrize("jit", [True, False])
@pytest.mark.parametrize("supports_jit", [True, False])
def test_xla_needs_the_strategy_and_the_model(jit, supports_jit):
    def trainee(network):
        network.supports_jit = supports_jit
        return network

    recipe = Recipe()
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # Keras warns about a model that does not support XLA
        result = compiled(recipe, trainee, jit=jit)
    assert result.trainee.jit_compile is (jit and supports_jit)
    assert result.strategy.calls[0] == ("use_jit", recipe)


@pytest.mark.parametrize(
    ("changes", "options"),
    [
        ({}, {"sync_bn": False, "accumulation_steps": 1}),
        ({"sync_bn": True}, {"sync_bn": True, "accumulation_steps": 1}),
        ({"accumulation_steps": 4}, {"sync_bn": False, "accumulation_steps": 4}),
    ],
    ids=str,
)
def test_the_step_is_prepared_after_compiling(changes, options):
    result = compiled(Recipe(**changes))
    assert result.strategy.calls[1:] == [("prepare_step", result.trainee, result.network, options, True)]


def test_the_optimizer_the_loss_and_the_metrics_are_those_given():
    losses = build_losses()
    result = compiled(Recipe(), losses=losses)
    assert result.trainee.optimizer is result.optimizer and result.trainee.loss is losses["loss"]
    labels = np.eye(6, dtype="float32")[:2]
    metrics = result.trainee.compute_metrics(None, labels, labels, np.ones(2, "float32"))
    assert metrics.keys() == {"loss", "top1", "top5", "cross_entropy"} and metrics["top1"] == 1
    assert result.trainee.steps_per_execution == 1


def test_float16_is_scaled_once():
    result = compiled(Recipe(precision="mixed_float16"))
    assert result.trainee.optimizer is result.optimizer
    assert not isinstance(result.optimizer.inner_optimizer, keras.optimizers.LossScaleOptimizer)


def test_the_optimizer_has_state_for_the_networks_weights_before_the_first_step():
    result = compiled(Recipe())
    velocities = [tuple(v.shape) for v in result.optimizer.variables if "velocity" in v.path]
    assert velocities == [(12, 6), (6,)]


def test_a_frozen_layer_has_no_optimizer_state():
    def freeze(network):
        network.layers[-1].trainable = False
        return network

    assert not [v for v in compiled(Recipe(), freeze).optimizer.variables if "velocity" in v.path]


def test_with_a_teacher_only_the_students_weights_have_state():
    teacher = build_network()
    recipe = Recipe(teacher="somewhere", distill_temperature=2.0)
    result = compiled(recipe, lambda network: build_distillation_model(recipe, network, teacher))
    velocities = [v for v in result.optimizer.variables if "velocity" in v.path]
    assert len(velocities) == 2 and result.network.optimizer is result.optimizer
    name, trainee, network, *_ = result.strategy.calls[1]
    assert (name, trainee, network) == ("prepare_step", result.trainee, result.network)


@pytest.mark.parametrize(("precision", "dtype"), [("float32", tf.float32), ("mixed_bfloat16", tf.bfloat16)])
def test_the_step_transform_runs_on_the_finished_images(precision, dtype, monkeypatch):
    seen = []

    def transform(images, labels, seed, epoch):
        seen.append((images, labels, seed, epoch))
        return images + 1, labels * 2

    network = build_network()
    recipe = Recipe(precision=precision)
    monkeypatch.setattr(network, "train_step", lambda batch: batch, raising=False)
    compile_trainee(
        recipe,
        network,
        network,
        build_optimizer(recipe, 0.1, network),
        FakeStrategy(),
        losses=build_losses(),
        step_transform=transform,
    )
    images, matrix, shift, seed, _ = inputs = step_inputs()
    trained_images, trained_labels = network.train_step((inputs, np.eye(6, dtype="float32")[:2]))
    finished = np.einsum("bij,bhwj->bhwi", matrix, images) + shift[:, None, None]
    given = seen[0]
    assert given[0].dtype == dtype and len(seen) == 1
    np.testing.assert_allclose(tf.cast(given[0], tf.float32), finished, rtol=1e-2)
    np.testing.assert_array_equal(given[2], seed[0])
    assert given[3] == 3
    np.testing.assert_allclose(tf.cast(trained_images, tf.float32), finished + 1, rtol=1e-2)
    np.testing.assert_array_equal(trained_labels, 2 * np.eye(6)[:2])


def step_inputs():
    """Returns the inputs of `augment_on="device"`: two images with a map each, one seed and epoch 3."""
    draw = np.random.default_rng(0)
    images = draw.integers(0, 256, (2, 2, 2, 3), np.uint8)
    matrix = draw.standard_normal((2, 3, 3), dtype="float32")
    shift = draw.standard_normal((2, 3), dtype="float32")
    return images, matrix, shift, np.array([[1, 2]] * 2, np.int32), np.array([3, 3])


def test_without_a_step_transform_the_step_is_keras_own():
    network = compiled(Recipe()).network
    assert "train_step" not in vars(network)


def test_the_augmented_step_leaves_evaluation_alone():
    network = build_network()
    network.train_step = lambda batch: batch
    augment_in_step(network, lambda images, labels, seed, epoch: (images, labels), "float32")
    assert "test_step" not in vars(network) and "predict_step" not in vars(network)
    inputs, labels = step_inputs(), np.eye(6, dtype="float32")[:2]
    images, same_labels = network.train_step((inputs, labels))
    np.testing.assert_allclose(images, data.finish_batch(inputs, labels)[0], rtol=1e-6)
    np.testing.assert_array_equal(same_labels, labels)


@pytest.mark.parametrize(("setting", "expected"), [("on", True), ("off", False), ("auto", False)])
def test_auto_compiles_with_xla_on_a_single_gpu_only(setting, expected, monkeypatch):
    strategy = build_strategy(Recipe(strategy="one_device", batch_size=2))
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind: [])
    assert strategy.use_jit(Recipe(jit_compile=setting)) is expected
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind: ["GPU:0"] if kind == "GPU" else [])
    assert strategy.use_jit(Recipe(jit_compile=setting)) is (setting != "off")
    monkeypatch.setattr(strategy, "replicas", 2)
    assert strategy.use_jit(Recipe(jit_compile=setting)) is expected
