"""The contract of callbacks: they run in `keras.Model.fit` without changing training, order or later runs."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

from contracts.callbacks import BATCH, BOX, EPOCHS, RATE, ROWS, STEPS
from contracts.checks import assert_equal, check_defaults, check_refusal, each, each_refusal
from keras_bot.tasks.segmentation.fcn import PixelCrossentropy
from keras_bot.tasks.segmentation.metrics import MeanIoU
from keras_bot.tasks.segmentation.task import PixelEntropy
from keras_bot.training.evaluate import ExactLoss

LOGS = {"loss", "mean_iou", "cross_entropy", "val_loss", "val_mean_iou", "val_cross_entropy"}


class TinyModel(keras.Model):
    """A functional model that can also detect boxes, so that every callback finds what it needs."""

    def predict_boxes(self, images):
        batch = tf.shape(images)[0]
        found = {"boxes": tf.constant([BOX]), "scores": tf.constant([[0.9]]), "classes": tf.constant([[0]])}
        repeated = {name: tf.repeat(value, batch, axis=0) for name, value in found.items()}
        return {**repeated, "count": tf.ones([batch], tf.int32)}


@pytest.fixture(scope="session")
def tiny():
    """A compiled model, its initial weights, and its training and validation data."""
    keras.utils.set_random_seed(0)
    draw = np.random.default_rng(0)
    images = draw.normal(size=(STEPS * BATCH, 4, 4, 3)).astype("float32")
    masks = (images.mean(-1) > 0).astype("int32")
    data = tf.data.Dataset.from_tensor_slices((images, masks)).batch(BATCH)
    validation = tf.data.Dataset.from_tensors((images[:2], masks[:2], np.array([1, 0], "float32")))
    image = keras.Input((4, 4, 3))
    model = TinyModel(image, keras.layers.Conv2D(2, 1)(image))
    metrics = [MeanIoU(2), PixelEntropy()]
    model.compile(keras.optimizers.SGD(RATE), PixelCrossentropy(), weighted_metrics=metrics, jit_compile=False)
    return model, model.get_weights(), data, validation


class Events(keras.callbacks.Callback):
    """Records the events and logs that callbacks at its place receive."""

    def __init__(self):
        super().__init__()
        self.events, self.logs = [], []

    def on_epoch_begin(self, epoch, logs=None):
        self.events.append(("begin", epoch))

    def on_train_batch_end(self, batch, logs=None):
        self.events.append(("step", batch, logs["loss"]))

    def on_test_end(self, logs=None):
        self.events.append(("test", logs["loss"]))

    def on_epoch_end(self, epoch, logs=None):
        self.events.append(("end", epoch))
        self.logs.append(dict(logs))


def fit(tiny, *callbacks):
    """Trains the model from its initial weights: its final weights, and what callbacks before and after them saw."""
    model, weights, data, validation = tiny
    model.set_weights(weights)
    before, after = Events(), Events()
    model.fit(
        data,
        epochs=EPOCHS,
        validation_data=validation,
        shuffle=False,
        verbose=0,
        callbacks=[before, *callbacks, after],
    )
    return model.get_weights(), before, after


@pytest.fixture(scope="session")
def plain(tiny):
    """The training without a callback."""
    return fit(tiny)


@each(ROWS)
def test_training_order_and_logs_are_those_without_the_callback(row, tiny, plain, tmp_path, capsys):
    callback = row.make(**row.arguments(tmp_path))
    for _ in range(1 if row.one_run else 2):  # the second training shows that the first has left nothing
        weights, before, after = fit(tiny, callback)
        assert_equal(weights, plain[0])
        assert before.events == after.events == plain[1].events
        for epoch, (logs, usual) in enumerate(zip(after.logs, plain[2].logs, strict=True)):
            assert set(usual) == LOGS
            expected = {name: value for name, value in usual.items() if name not in row.removed}
            if row.make is ExactLoss:
                expected["val_loss"] = usual["val_cross_entropy"]
            assert logs == expected | row.logs, f"epoch {epoch + 1}"
        row.check(callback, tmp_path, capsys.readouterr().out)


def test_callbacks_do_not_disturb_each_other(tiny, plain, tmp_path):
    callbacks = [row.make(**row.arguments(tmp_path)) for row in ROWS if row.make is not ExactLoss]
    weights, _, after = fit(tiny, *callbacks)
    assert_equal(weights, plain[0])
    added = {name: value for row in ROWS for name, value in row.logs.items()}
    assert after.logs == [{**usual, **added} for usual in plain[2].logs]


@each(ROWS)
def test_defaults(row):
    check_defaults(row)


@each_refusal(ROWS)
def test_bad_arguments_are_refused(row, refusal, tmp_path):
    check_refusal(dataclasses.replace(row, arguments=lambda: row.arguments(tmp_path)), refusal)
