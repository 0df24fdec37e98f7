"""Evaluation returns exact means over the images, also with a padded or smaller last batch."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_bot.data.corrupt import CorruptLog
from keras_bot.errors import RunError
from keras_bot.training.evaluate import ExactLoss, build_losses, evaluate

CLASSES = 7
rng = np.random.default_rng(0)
LOGITS = (3 * rng.standard_normal((10, CLASSES))).astype("float32")
LABELS = rng.integers(0, CLASSES, 10)
ONE_HOT = np.eye(CLASSES, dtype="float32")[LABELS]


@pytest.fixture(scope="module")
def model():
    """A network whose logits are its inputs. Functions run eagerly: tracing them would take most of the time."""
    tf.config.run_functions_eagerly(True)
    yield keras.Sequential([keras.Input((CLASSES,)), keras.layers.Identity()])
    tf.config.run_functions_eagerly(False)


def expected(count):
    """Returns loss, top-1 and top-5 of the first images, computed in NumPy."""
    logits = LOGITS[:count].astype("float64")
    log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    ranks = (logits > logits[np.arange(count), LABELS[:count]][:, None]).sum(1)
    return {"loss": -(log_p * ONE_HOT[:count]).sum(1).mean(), "top1": (ranks < 1).mean(), "top5": (ranks < 5).mean()}


def padded(count, batch_size):
    """Returns full batches of images, labels and weights; padding has a label and the weight 0."""
    rows = -(-count // batch_size) * batch_size
    index = np.minimum(np.arange(rows), 9)
    weights = (np.arange(rows) < count).astype("float32")
    return tf.data.Dataset.from_tensor_slices((LOGITS[index], ONE_HOT[index], weights)).batch(batch_size)


@pytest.mark.parametrize(("count", "batch_size"), [(10, 10), (10, 4), (7, 4), (5, 1), (3, 8)])
def test_the_means_are_exact_for_any_batch_size(count, batch_size, model):
    figures = evaluate(model, padded(count, batch_size))
    assert figures.keys() == {"loss", "top1", "top5"}
    assert 0 < expected(count)["top1"] < expected(count)["top5"]
    assert figures == pytest.approx(expected(count), rel=1e-5)


def test_a_smaller_last_batch_is_exact_too(model):
    weights = np.ones(10, "float32")
    data = tf.data.Dataset.from_tensor_slices((LOGITS, ONE_HOT, weights)).batch(4)
    assert evaluate(model, data) == pytest.approx(expected(10), rel=1e-5)


@pytest.mark.filterwarnings("ignore:Even though")  # the map of the data set is traced all the same
def test_corrupt_images_have_the_error_of_their_log(model):
    corrupt = CorruptLog(0)

    def fail(weights):
        corrupt.report("broken.jpg")

    def broken(images, labels, weights):
        return images, labels, tf.ensure_shape(tf.numpy_function(fail, [weights], tf.float32), [None])

    data = padded(4, 2).map(broken)
    with pytest.raises(RunError, match=r"broken\.jpg"):
        evaluate(model, data, corrupt=corrupt)


def test_verbose_prints_kerass_progress_and_0_prints_nothing(model, capsys):
    evaluate(model, padded(4, 2))
    assert capsys.readouterr().out == ""
    evaluate(model, padded(4, 2), verbose=2)
    assert "cross_entropy" in capsys.readouterr().out


def test_the_losses_compute_in_float32():
    losses = build_losses()
    metrics = losses["weighted_metrics"]
    assert [metric.name for metric in metrics] == ["top1", "top5", "cross_entropy"]
    assert {each.dtype for each in (losses["loss"], *metrics)} == {"float32"}
    half = LOGITS.astype("float16")
    wide = half.astype("float64")
    reference = -((wide - np.log(np.exp(wide).sum(1, keepdims=True))) * ONE_HOT).sum(1).mean()
    assert float(losses["loss"](ONE_HOT, half)) == pytest.approx(reference, rel=1e-6)


@pytest.mark.parametrize(("logs", "exact"), [({"val_cross_entropy": 1.0, "val_loss": 0.5}, 1.0), ({}, None)])
def test_the_exact_loss_replaces_the_padded_one(logs, exact):
    logs = {"loss": 2.0, "cross_entropy": 1.9, **logs}
    ExactLoss().on_epoch_end(0, logs)
    assert logs == {"loss": 2.0, **({"val_loss": exact} if exact else {})}


def test_a_loss_without_the_metric_is_kept():
    logs = {"loss": 2.0, "val_loss": 3.0}
    ExactLoss().on_epoch_end(0, logs)
    assert logs == {"loss": 2.0, "val_loss": 3.0}
