"""Segmentation figures equal a plain NumPy count to 1e-6: in batches, with padding, in `fit`, on two replicas."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_bot.errors import MisuseError, RunError
from keras_bot.tasks.segmentation.metrics import MeanIoU, PixelAccuracy, figures, table

CLASSES = 5  # the last one occurs nowhere
NAMES = ["sky", "road", "car", "pole", "never"]


def random_set(seed, images=10, high=12, wide=9):
    """Masks with ignored pixels and logits that are right now and then; int32 and float32."""
    rng = np.random.default_rng(seed)
    masks = rng.integers(0, CLASSES - 1, (images, high, wide)).astype("int32")
    logits = rng.normal(size=(images, high, wide, CLASSES)).astype("float32")
    logits += 1.5 * np.eye(CLASSES, dtype="float32")[masks]
    logits[..., -1] = -9
    masks[rng.random(masks.shape) < 0.2] = 255
    return masks, logits


def plain(masks, classes):
    """Mean IoU and accuracy in NumPy, class by class."""
    counted = masks != 255
    ious = []
    for place in range(CLASSES):
        true, called = (masks == place) & counted, (classes == place) & counted
        if (true | called).any():
            ious.append((true & called).sum() / (true | called).sum())
    return np.mean(ious), (masks == classes)[counted].mean()


def both():
    return [MeanIoU(CLASSES), PixelAccuracy(CLASSES)]


@pytest.mark.parametrize("batch", [1, 3, 10])
def test_figures_are_numpy_s(batch):
    masks, logits = random_set(0)
    expected = plain(masks, logits.argmax(-1))
    for metric, figure in zip(both(), expected, strict=True):
        for start in range(0, len(masks), batch):
            metric.update_state(masks[start : start + batch], logits[start : start + batch])
        assert float(metric.result()) == pytest.approx(figure, abs=1e-6)
        metric.reset_state()
        metric.update_state(masks[..., None], logits.argmax(-1))  # a channel, and class ids
        assert float(metric.result()) == pytest.approx(figure, abs=1e-6)
    assert expected[0] < 0.7 and expected[1] < 0.9


def test_the_table_has_every_class():
    masks, logits = random_set(1)
    metric = MeanIoU(CLASSES)
    metric.update_state(masks, logits)
    result = figures(metric.confusion(), NAMES)
    assert (result["mean_iou"], result["pixel_accuracy"]) == pytest.approx(plain(masks, logits.argmax(-1)), abs=1e-12)
    assert np.isnan(result["per_class"]["never"])
    assert result["mean_iou"] == pytest.approx(np.mean([result["per_class"][name] for name in NAMES[:4]]))
    assert sum(result["pixels"].values()) == (masks != 255).sum()
    lines = table(result).splitlines()
    assert len(lines) == 1 + CLASSES + 2
    assert lines[5].split() == ["never", "-", "0.00%"]
    assert lines[6].split() == ["mean", "IoU", f"{result['mean_iou']:.4f}"]


def test_a_class_that_is_only_predicted_counts_as_zero():
    metric = MeanIoU(CLASSES)
    metric.update_state([[[0, 0]]], [[[0, 4]]])
    assert float(metric.result()) == pytest.approx((0.5 + 0) / 2)


@pytest.mark.parametrize("shape", [(10,), (10, 1), (10, 1, 1), (10, 12, 9)])
def test_weight_zero_leaves_out(shape):
    masks, logits = random_set(2)
    weights = (np.arange(10) < 7).astype("float32")
    weights = np.broadcast_to(weights.reshape((10,) + (1,) * (len(shape) - 1)), shape)
    for metric, figure in zip(both(), plain(masks[:7], logits[:7].argmax(-1)), strict=True):
        metric.update_state(masks, logits, weights)
        assert float(metric.result()) == pytest.approx(figure, abs=1e-6)


def test_weights_weigh():
    masks, logits = random_set(3)
    weights = np.array([3] + [1] * 9, "float32")
    heavy, thrice = MeanIoU(CLASSES), MeanIoU(CLASSES)
    heavy.update_state(masks, logits, weights)
    thrice.update_state(np.concatenate([masks, masks[:1], masks[:1]]), np.concatenate([logits, *[logits[:1]] * 2]))
    assert np.array_equal(heavy.confusion(), thrice.confusion())


def test_no_pixel_is_lost_beyond_2_to_the_24():
    """After 2^24 pixels float32 can't count one more."""
    many, one = np.zeros((1, 4096, 4096), "uint8"), np.ones((1, 1, 1), "uint8")
    metrics = both()
    for metric in metrics:
        metric.update_state(many, many)
        for _ in range(3):
            metric.update_state(one, 0 * one)
    assert metrics[0].confusion()[:2, :2].tolist() == [[2**24, 0], [3, 0]]
    assert float(metrics[0].result()) == 2**24 / (2**24 + 3) / 2
    assert float(metrics[1].result()) == 2**24 / (2**24 + 3)


def mean_square(masks, logits):
    """Any loss of one figure an image: Keras can't give weights (B,) to a loss of (B, H, W)."""
    return keras.ops.mean(keras.ops.square(logits), axis=(1, 2, 3))


def check_in_keras():
    """A network that gives its input back, so that its figures are known; the last batch is half padding."""
    masks, logits = random_set(4)
    weights = np.ones(len(masks), "float32")
    expected = plain(masks, logits.argmax(-1))
    masks = np.concatenate([masks, masks[:2]])
    logits = np.concatenate([logits, -logits[:2]])
    weights = np.concatenate([weights, [0, 0]]).astype("float32")
    batches = tf.data.Dataset.from_tensor_slices((logits, masks, weights)).batch(4, drop_remainder=True)
    image = keras.Input((None, None, CLASSES))
    model = keras.Model(image, keras.layers.Conv2D(CLASSES, 1, use_bias=False)(image))
    model.layers[-1].set_weights([np.eye(CLASSES, dtype="float32")[None, None]])
    model.compile("sgd", loss=mean_square, weighted_metrics=both(), jit_compile=False)
    model.optimizer.learning_rate = 0.0
    for _ in range(2):  # the counts begin anew
        logs = model.evaluate(batches, verbose=0, return_dict=True)
        np.testing.assert_allclose([logs["mean_iou"], logs["pixel_accuracy"]], expected, atol=1e-6)
    logs = model.fit(batches, validation_data=batches, epochs=2, shuffle=False, verbose=0).history
    for prefix in ("", "val_"):
        for name, figure in zip(("mean_iou", "pixel_accuracy"), expected, strict=True):
            np.testing.assert_allclose(logs[prefix + name], [figure] * 2, atol=1e-6)
    metric = next(metric for metric in model.metrics[-1].metrics if metric.name == "mean_iou")
    assert metric.confusion().sum() == (masks[:10] != 255).sum()


def test_in_fit_and_evaluate():
    check_in_keras()


def test_on_two_replicas(two_replicas):
    with two_replicas.scope():
        check_in_keras()


def test_unknown_labels_are_reported_and_not_counted():
    metric = MeanIoU(CLASSES)
    metric.update_state([[[0, 7, -3, 1]]], [[[0, 0, 0, 1]]])
    assert np.isnan(metric.result())
    with pytest.raises(RunError, match="2 pixels have labels other than 0 to 4 and 255"):
        metric.confusion()
    metric.reset_state()
    assert np.isnan(metric.result())  # nothing was counted
    metric.update_state([[[0, 255]]], [[[0, 9]]])  # where the label is ignored the prediction is, too
    assert float(metric.result()) == 1.0


def test_bad_input_is_reported():
    with pytest.raises(MisuseError, match=r"shape \(2, 2\), but there are 3 class names"):
        figures(np.ones((2, 2)), ["a", "b", "c"])
    with pytest.raises(MisuseError, match="no labelled pixels"):
        figures(np.zeros((2, 2)), ["a", "b"])


def test_repeated_class_names_are_numbered():
    result = figures(np.diag([1, 2, 3]), ["screen", "wall", "screen"])
    assert result["pixels"] == {"screen": 1.0, "wall": 2.0, "screen (2)": 3.0}
    assert "screen (2)" in table(result)
