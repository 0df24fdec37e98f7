"""`fit_from` starts at any step of any epoch and continues as if training had not been interrupted."""

import contextlib

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_bot.recipe import Recipe
from keras_bot.training.distributed.selection import build_strategy
from keras_bot.training.fit import FitPlan, fit_from

STEPS, EPOCHS, BATCH = 3, 2, 4
rng = np.random.default_rng(0)
IMAGES = rng.standard_normal((EPOCHS * STEPS, BATCH, 5), dtype="float32")
LABELS = rng.standard_normal((EPOCHS * STEPS, BATCH, 1), dtype="float32")
WEIGHTS = np.ones((EPOCHS * STEPS, BATCH), "float32")


class Recorder(keras.callbacks.Callback):
    """Records callback events as (name, epoch or step), and the weights after each training step."""

    def __init__(self):
        super().__init__()
        self.events, self.logs, self.weights = [], [], []

    def on_train_begin(self, logs=None):
        self.events.append("train")

    def on_epoch_begin(self, epoch, logs=None):
        self.events.append(("epoch", epoch))

    def on_train_batch_end(self, batch, logs=None):
        self.events.append(("step", batch))
        self.weights.append(self.model.get_weights())

    def on_test_begin(self, logs=None):
        self.events.append("test")

    def on_epoch_end(self, epoch, logs=None):
        self.events.append(("end", epoch))
        self.logs.append(dict(logs))


def fit(epoch, step, weights=None):
    """Trains a small network from a step of an epoch; returns its final weights, the recorder and the data starts."""
    keras.utils.set_random_seed(0)
    strategy = build_strategy(Recipe(strategy="one_device", batch_size=BATCH))
    model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.1), "mse", weighted_metrics=["mae"], jit_compile=False)
    model.optimizer.build(model.trainable_variables)
    if weights is not None:
        model.set_weights(weights)
    starts, recorder = [], Recorder()

    def train_data(epoch, step):
        starts.append((epoch, step))
        rest = slice(epoch * STEPS + step, None)
        return tf.data.Dataset.from_tensor_slices((IMAGES[rest], LABELS[rest]))

    eval_data = tf.data.Dataset.from_tensor_slices((IMAGES[:2], LABELS[:2], WEIGHTS[:2]))
    plan = FitPlan(first_epoch=epoch, first_step=step, epochs=EPOCHS, steps_per_epoch=STEPS, replica_batch=BATCH)
    fit_from(model, train_data, eval_data, strategy, plan, callbacks=[recorder], verbose=0)
    return model.get_weights(), recorder, starts


@pytest.fixture(scope="module")
def whole():
    return fit(0, 0)


def epoch_events(epoch, steps=STEPS):
    return [("epoch", epoch), *(("step", step) for step in range(steps)), "test", ("end", epoch)]


def test_training_from_the_start(whole):
    _, recorder, starts = whole
    assert recorder.events == ["train", *epoch_events(0), *epoch_events(1)] and starts == [(0, 0)]
    assert [set(logs) for logs in recorder.logs] == [{"loss", "mae", "val_loss", "val_mae"}] * EPOCHS


@pytest.mark.parametrize(
    ("epoch", "step", "starts", "events"),
    [
        (0, 2, [(0, 2), (1, 0)], ["train", *epoch_events(0, steps=1), "train", *epoch_events(1)]),
        (1, 0, [(1, 0)], ["train", *epoch_events(1)]),
        (1, 1, [(1, 1)], ["train", *epoch_events(1, steps=2)]),
    ],
)
def test_training_from_any_step_ends_with_the_same_weights(epoch, step, starts, events, whole):
    weights, whole_recorder, _ = whole
    initial = whole_recorder.weights[epoch * STEPS + step - 1]
    resumed, recorder, own_starts = fit(epoch, step, initial)
    assert own_starts == starts and recorder.events == events
    for actual, expected in zip(resumed, weights, strict=True):
        np.testing.assert_array_equal(actual, expected)
    assert recorder.logs[-1]["val_mae"] == whole_recorder.logs[-1]["val_mae"]


@pytest.mark.parametrize("epoch", range(EPOCHS))
def test_an_epoch_without_remaining_steps_is_only_evaluated(epoch, whole):
    weights, whole_recorder, _ = whole
    resumed, recorder, starts = fit(epoch, STEPS, whole_recorder.weights[(epoch + 1) * STEPS - 1])
    evaluation = ["train", ("epoch", epoch), "test", ("end", epoch)]
    assert recorder.events == [*evaluation, *(["train", *epoch_events(1)] if epoch == 0 else [])]
    assert starts == [(1, 0)][epoch:]
    assert {"loss", "mae", "val_loss", "val_mae"} <= set(recorder.logs[0])
    assert recorder.logs[0]["val_mae"] == pytest.approx(whole_recorder.logs[epoch]["val_mae"], rel=1e-6)
    for actual, expected in zip(resumed, weights, strict=True):
        np.testing.assert_array_equal(actual, expected)


def test_a_finished_training_does_nothing(whole):
    weights, recorder, starts = fit(EPOCHS, 0, whole[0])
    assert not recorder.events and not starts
    for actual, expected in zip(weights, whole[0], strict=True):
        np.testing.assert_array_equal(actual, expected)


class RecordingStrategy:
    """Records how data are spread and built, and whether `fit` runs inside `fitting`."""

    def __init__(self):
        self.events, self.is_fitting = [], False

    def build_from_spec(self, trainee, batches):
        self.events.append(("build", trainee, batches.element_spec[0].shape[0]))

    def spread(self, batches, replica_batch):
        self.events.append(("spread", batches, replica_batch))
        return "spread", batches

    @contextlib.contextmanager
    def fitting(self):
        self.is_fitting = True
        yield
        self.is_fitting = False


class RecordingTrainee:
    """Records the arguments of `fit`."""

    def __init__(self, strategy):
        self.strategy, self.calls = strategy, []

    def fit(self, data, **options):
        assert self.strategy.is_fitting
        self.calls.append((data, options))


@pytest.mark.parametrize("verbose", [0, 1])
def test_each_segment_is_one_fit_on_spread_data(verbose):
    strategy = RecordingStrategy()
    trainee = RecordingTrainee(strategy)
    eval_data = tf.data.Dataset.from_tensor_slices((IMAGES[:2], LABELS[:2], WEIGHTS[:2]))
    plan = FitPlan(first_epoch=4, first_step=3, epochs=9, steps_per_epoch=10, replica_batch=2)
    train_data = "data from {} {}".format
    fit_from(trainee, train_data, eval_data, strategy, plan, callbacks=["a callback"], verbose=verbose)
    assert strategy.events == [
        ("build", trainee, 2),
        ("spread", eval_data, 2),
        ("spread", "data from 4 3", 2),
        ("spread", "data from 5 0", 2),
    ]
    options = {"validation_data": ("spread", eval_data), "validation_steps": 2, "callbacks": ["a callback"]}
    options |= {"shuffle": False, "verbose": verbose}
    assert trainee.calls == [
        (("spread", "data from 4 3"), {"initial_epoch": 4, "epochs": 5, "steps_per_epoch": 7, **options}),
        (("spread", "data from 5 0"), {"initial_epoch": 5, "epochs": 9, "steps_per_epoch": 10, **options}),
    ]
    assert not strategy.is_fitting


@pytest.mark.parametrize(
    ("first_epoch", "first_step", "segments"),
    [
        (0, 0, [(0, 0, 9)]),
        (3, 0, [(3, 0, 9)]),
        (3, 1, [(3, 1, 4), (4, 0, 9)]),
        (3, 10, [(3, 10, 4), (4, 0, 9)]),
        (8, 10, [(8, 10, 9)]),
        (9, 0, []),
    ],
)
def test_the_segments_of_a_training(first_epoch, first_step, segments):
    plan = FitPlan(first_epoch, first_step, epochs=9, steps_per_epoch=10, replica_batch=1)
    assert plan.segments() == segments
