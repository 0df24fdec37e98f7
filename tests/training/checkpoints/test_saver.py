"""The saver writes the run's state at the right steps, restores metric state, and ends the run after SIGTERM."""

import os
import signal
import threading
import types

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_bot.errors import Terminated
from keras_bot.recipe import Recipe
from keras_bot.training.checkpoints.saver import Saver, handle_sigterm
from keras_bot.training.distributed.selection import build_strategy

STEPS, EPOCHS = 4, 2
rng = np.random.default_rng(0)
DATA = rng.standard_normal((STEPS, 2, 3), dtype="float32"), rng.standard_normal((STEPS, 2, 1), dtype="float32")


class FakeCheckpoints:
    """Keeps the saved progress in a list."""

    def __init__(self):
        self.saved = []

    def save(self, progress):
        self.saved.append(progress)


class FakeRecorder:
    """The parts of RunRecorder that the saver uses."""

    def __init__(self):
        self.history = [{"epoch": 1}]
        self.corrupt = types.SimpleNamespace(names=["broken.jpg"])
        self.facts = {"dataset": {"name": "test"}}
        self.seconds_before = 0.0

    def seconds(self):
        return self.seconds_before + 1.5


class SendSigterm(keras.callbacks.Callback):
    """Sends SIGTERM to this process during a training or evaluation step."""

    def __init__(self, event, step):
        super().__init__()
        self._step = step
        setattr(self, event, self._send)

    def _send(self, batch, logs=None):
        if batch == self._step:
            os.kill(os.getpid(), signal.SIGTERM)


def build(every=0, progress=None, checkpoints=None):
    """Returns a compiled model and its saver."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.0), "mse", metrics=["mae"], jit_compile=False)
    strategy = build_strategy(Recipe(strategy="one_device", batch_size=2))
    strategy.build_from_spec(model, tf.data.Dataset.from_tensor_slices(DATA))
    return model, Saver(checkpoints, strategy, FakeRecorder(), STEPS, every, progress or {})


def fit(model, saver, callbacks=(), first_step=0, epochs=EPOCHS):
    data, rest = (
        tf.data.Dataset.from_tensor_slices(tuple(array[start:] for array in DATA)) for start in (0, first_step)
    )
    with handle_sigterm(saver):
        model.fit(
            rest.concatenate(data.repeat()),
            epochs=epochs,
            steps_per_epoch=STEPS - first_step,
            validation_data=data,
            shuffle=False,
            callbacks=[*callbacks, saver],
            verbose=0,
        )


def positions(checkpoints):
    """Returns the saved (total steps, whole epochs, steps in the next epoch)."""
    return [(progress["steps"], progress["epochs"], progress["step"]) for progress in checkpoints.saved]


def test_saves_after_epochs_and_every_few_steps():
    checkpoints = FakeCheckpoints()
    fit(*build(every=3, checkpoints=checkpoints))
    assert positions(checkpoints) == [(3, 0, 3), (4, 1, 0), (6, 1, 2), (8, 2, 0)]
    within_epoch, after_epoch = checkpoints.saved[:2]
    assert within_epoch["seconds"] == 1.5 and after_epoch["seconds"] == 0.0
    assert after_epoch["metrics"] == [] and len(within_epoch["metrics"]) == 1  # one replica
    assert within_epoch["history"] == [{"epoch": 1}] and within_epoch["corrupt_images"] == ["broken.jpg"]
    assert within_epoch["dataset"] == {"name": "test"}


def test_a_step_that_ends_an_epoch_is_saved_once():
    checkpoints = FakeCheckpoints()
    fit(*build(every=4, checkpoints=checkpoints))
    assert positions(checkpoints) == [(4, 1, 0), (8, 2, 0)]


def test_workers_other_than_the_chief_do_not_save():
    model, saver = build(every=1)
    fit(model, saver)
    saver.stop_requested = True
    with pytest.raises(Terminated):
        fit(model, saver)


def test_metrics_of_a_resumed_epoch_cover_all_its_steps():
    checkpoints = FakeCheckpoints()
    model, saver = build(every=3, checkpoints=checkpoints)
    fit(model, saver, epochs=1)
    expected = model.history.history
    model, saver = build(progress=checkpoints.saved[0])
    fit(model, saver, first_step=3, epochs=1)
    assert saver._recorder.seconds_before == 1.5
    for name in ("loss", "mae"):
        np.testing.assert_allclose(model.history.history[name], expected[name], rtol=1e-6)


@pytest.mark.parametrize(
    ("event", "step", "position"),
    [
        ("on_train_batch_end", 1, (2, 0, 2)),
        ("on_train_batch_end", STEPS - 1, (4, 0, 4)),
        ("on_test_batch_end", 0, (4, 0, 4)),
    ],
)
def test_sigterm_saves_the_state_and_ends_the_run(event, step, position):
    checkpoints = FakeCheckpoints()
    model, saver = build(checkpoints=checkpoints)
    previous = signal.getsignal(signal.SIGTERM)
    message = f"the state after step {position[0]} is saved. Continue with --resume"
    with pytest.raises(Terminated, match=message):
        fit(model, saver, [SendSigterm(event, step)])
    assert positions(checkpoints) == [position]
    assert checkpoints.saved[0]["metrics"]  # also in the evaluation, for which Keras resets the metrics
    assert signal.getsignal(signal.SIGTERM) is previous


def test_threads_other_than_the_main_one_do_not_handle_sigterm():
    _, saver = build()
    handlers = []

    def run():
        with handle_sigterm(saver):
            handlers.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert handlers == [signal.getsignal(signal.SIGTERM)]


class FakeStrategy:
    """Records the order of calls; `stop` is the answer of all workers together."""

    def __init__(self, stop=False):
        self.stop, self.events = stop, []

    def per_replica_values(self, variables):
        self.events.append(("metrics of", len(variables)))
        return self

    def read(self):
        return [[float(len(self.events))]]

    def write(self, values):
        self.events.append(("restore", values))

    def any_worker(self, flag):
        self.events.append(("any", flag))
        return self.stop

    def sync_state(self, model):
        self.events.append(("sync", model))


class OrderedCheckpoints(FakeCheckpoints):
    """Also records the saves among the strategy's events."""

    def __init__(self, strategy):
        super().__init__()
        self._strategy = strategy

    def save(self, progress):
        super().save(progress)
        self._strategy.events.append(("save", progress["steps"]))


def direct(stop=False, every=0, progress=None):
    """Returns a saver that began epoch 2 of 4 steps each, its strategy and its checkpoints."""
    strategy = FakeStrategy(stop)
    checkpoints = OrderedCheckpoints(strategy)
    saver = Saver(checkpoints, strategy, FakeRecorder(), STEPS, every, progress or {})
    metric = types.SimpleNamespace(variables=["total", "count"])
    saver.set_model(types.SimpleNamespace(metrics=[metric, metric]))
    saver.on_train_begin()
    saver.on_epoch_begin(2)
    return saver, strategy, checkpoints


def test_the_state_is_synchronised_before_it_is_saved_within_an_epoch():
    saver, strategy, _ = direct(every=2)
    assert strategy.events == [("metrics of", 4)]
    strategy.events.clear()
    saver.on_train_batch_end(0)
    assert strategy.events == [("any", False)]
    saver.on_train_batch_end(1)
    assert strategy.events[1:] == [("any", False), ("sync", saver.model), ("save", 10)]


def test_every_worker_asks_for_a_stop_after_each_step_and_stops_if_any_does():
    saver, strategy, checkpoints = direct(stop=True)
    saver.stop_requested = False  # another worker received the signal
    with pytest.raises(Terminated, match="the state after step 9 is saved"):
        saver.on_train_batch_end(0)
    assert strategy.events[1:] == [("any", False), ("sync", saver.model), ("save", 9)]
    assert positions(checkpoints) == [(9, 2, 1)]


def test_a_stop_in_the_evaluation_saves_the_training_metrics():
    saver, strategy, checkpoints = direct()
    saver.on_train_batch_end(3)
    saver.on_test_begin()
    metrics = strategy.read()
    strategy.stop = saver.stop_requested = True
    with pytest.raises(Terminated, match="the state after step 12 is saved"):
        saver.on_test_batch_end(0)
    assert strategy.events[-3:] == [("any", True), ("sync", saver.model), ("save", 12)]
    assert positions(checkpoints) == [(12, 2, 4)] and checkpoints.saved[0]["metrics"] == metrics
    assert checkpoints.saved[0]["seconds"] == 1.5


def test_a_stop_at_the_end_of_an_epoch_saves_once():
    saver, strategy, checkpoints = direct()
    strategy.stop = True
    with pytest.raises(Terminated, match="the state after step 12 is saved"):
        saver.on_epoch_end(2)
    assert positions(checkpoints) == [(12, 3, 0)]
    assert checkpoints.saved[0]["metrics"] == [] and checkpoints.saved[0]["seconds"] == 0.0


def test_a_resumed_epoch_continues_its_steps_metrics_and_seconds_once():
    progress = {"step": 2, "metrics": [[7.0]], "seconds": 30.0}
    saver, strategy, checkpoints = direct(every=3, progress=progress)
    assert strategy.events == [("metrics of", 4), ("restore", [[7.0]])] and saver._recorder.seconds_before == 30.0
    saver.on_train_batch_end(0)  # the third step of the epoch: 8 + 3 = 11
    assert not checkpoints.saved
    saver.on_epoch_end(2)
    strategy.events.clear()
    saver.on_epoch_begin(3)
    saver.on_train_batch_end(0)
    saver.on_train_batch_end(1)
    saver.on_train_batch_end(2)
    assert ("restore", [[7.0]]) not in strategy.events
    assert positions(checkpoints) == [(12, 3, 0), (15, 3, 3)]


def test_a_resumed_epoch_that_ended_starts_the_next_one():
    saver, strategy, checkpoints = direct(every=1, progress={"step": 0, "metrics": [], "seconds": 9.0})
    assert strategy.events == [("metrics of", 4)] and saver._recorder.seconds_before == 0.0
    saver.on_train_batch_end(0)
    assert positions(checkpoints) == [(9, 2, 1)]
