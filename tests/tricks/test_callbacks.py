import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_bot.errors import RunError
from keras_bot.tricks import (
    NAG,
    CosineDecay,
    LearningRateLog,
    MixUp,
    MixUpOff,
    NonFiniteLoss,
    StopOnNonFinite,
    Warmup,
)

STEPS, BATCH = 3, 4


class MixingModel(keras.Sequential):
    """A net that holds the mixup itself: the other of the two ways to use the layer."""

    mixer = None

    def train_step(self, data):
        return super().train_step(self.mixer(data))


class SoftRows(keras.metrics.Metric):
    """The part of label rows that aren't one-hot, so that an epoch's log shows whether mixup was on."""

    def __init__(self):
        super().__init__(name="soft")
        self.soft = self.add_weight(name="count", initializer="zeros")
        self.rows = self.add_weight(name="rows", initializer="zeros")

    def update_state(self, y_true, y_pred, sample_weight=None):
        self.soft.assign_add(tf.reduce_sum(tf.cast(tf.reduce_max(y_true, axis=-1) < 0.999, "float32")))
        self.rows.assign_add(tf.cast(tf.shape(y_true)[0], "float32"))

    def result(self):
        return self.soft / self.rows


def make_dataset():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(STEPS * BATCH, 5)).astype("float32")
    y = np.tile(np.eye(2, dtype="float32")[[0, 1, 0, 1]], (STEPS, 1))  # a mirrored pair never agrees
    return tf.data.Dataset.from_tensor_slices((x, y)).batch(BATCH)


def make_model(cls=keras.Sequential, optimizer="sgd", metrics=()):
    model = cls([keras.Input((5,)), keras.layers.Dense(2)])
    loss = keras.losses.CategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, metrics=list(metrics))
    return model


@pytest.mark.parametrize("in_model", [False, True])
def test_the_last_epochs_of_a_real_fit_are_unmixed(in_model):
    mixer = MixUp(1.0, seed=0)
    dataset = make_dataset()
    model = make_model(MixingModel if in_model else keras.Sequential, metrics=[SoftRows()])
    if in_model:
        model.mixer = mixer
    else:
        dataset = dataset.map(lambda x, y: mixer((x, y))).prefetch(2)
    history = model.fit(dataset, epochs=5, verbose=0, callbacks=[MixUpOff(mixer, 2)]).history
    assert history["soft"] == [1, 1, 1, 0, 0]


def test_fit_that_starts_late_is_right_from_its_first_epoch():
    mixer = MixUp(1.0, seed=0)
    dataset = make_dataset().map(lambda x, y: mixer((x, y)))
    model = make_model(metrics=[SoftRows()])
    history = model.fit(dataset, epochs=5, initial_epoch=2, verbose=0, callbacks=[MixUpOff(mixer, 2)]).history
    assert history["soft"] == [1, 0, 0]
    history = model.fit(dataset, epochs=5, initial_epoch=4, verbose=0, callbacks=[MixUpOff(mixer, 2)]).history
    assert history["soft"] == [0]
    history = model.fit(dataset, epochs=3, verbose=0, callbacks=[MixUpOff(mixer, 1)]).history
    assert history["soft"] == [1, 1, 0]
    assert model.fit(dataset, verbose=0).history["soft"] == [1]  # without the callback, mixup is on again


def test_more_epochs_without_mixup_than_there_are_are_refused():
    with pytest.raises(ValueError, match="exceeds the epochs=2"):
        make_model().fit(make_dataset(), epochs=2, verbose=0, callbacks=[MixUpOff(MixUp(), 3)])


@pytest.mark.parametrize("is_scaled", [False, True])
def test_the_learning_rate_is_in_the_history(is_scaled, tmp_path):
    optimizer = NAG(Warmup(CosineDecay(0.4, 6), STEPS))
    if is_scaled:
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    callbacks = [LearningRateLog(), keras.callbacks.CSVLogger(tmp_path / "log.csv")]
    history = make_model(optimizer=optimizer).fit(make_dataset(), epochs=3, verbose=0, callbacks=callbacks)
    expected = [0.4, 0.2, 0.0]  # the peak, half way down the cosine, its end
    np.testing.assert_allclose(history.history["learning_rate"], expected, atol=1e-6)
    assert "learning_rate" in (tmp_path / "log.csv").read_text().splitlines()[0]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_the_first_loss_that_is_not_finite_stops_the_run(value):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2 * STEPS * BATCH, 5)).astype("float32")
    x[(STEPS + 1) * BATCH] = value
    dataset = tf.data.Dataset.from_tensor_slices((x, np.ones((len(x), 2), "float32"))).batch(BATCH)
    steps = []
    count = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: steps.append(batch))
    with pytest.raises(NonFiniteLoss) as caught:
        make_model().fit(
            dataset.repeat(), epochs=3, steps_per_epoch=STEPS, verbose=0, callbacks=[count, StopOnNonFinite()]
        )
    assert (caught.value.epoch, caught.value.step) == (1, 1)
    assert steps == [0, 1, 2, 0, 1]
    assert isinstance(caught.value, RunError)
    assert "in epoch 2, step 2" in str(caught.value)


def test_a_resumed_evaluation_that_is_not_finite_is_reported_without_a_step():
    callback = StopOnNonFinite()
    callback.on_epoch_begin(4)
    with pytest.raises(NonFiniteLoss, match="in epoch 5"):
        callback.on_epoch_end(4, {"val_loss": np.nan})
