import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_bot import models
from keras_bot.errors import MisuseError
from keras_bot.tasks.segmentation.fcn import PixelCrossentropy, ResizeLike, Segmenter, fcn
from keras_bot.tasks.segmentation.metrics import MeanIoU, PixelAccuracy
from keras_bot.tasks.segmentation.task import inference


def _resnet(width=0.1):
    return models.features(models.create_model("resnet10_d", include_top=False, width=width))


def _backbone():
    """Four convolutions: builds and compiles in no time."""
    image = x = keras.Input((None, None, 3))
    outputs = {}
    for level, strides in zip(("C2", "C3", "C4", "C5"), (4, 2, 1, 1), strict=True):
        x = outputs[level] = keras.layers.Conv2D(12, 3, strides, "same", activation="relu", name=level)(x)
    return keras.Model(image, outputs)


def _data(count=4, height=40, width=56, classes=3):
    draw = np.random.default_rng(0)
    masks = draw.integers(0, classes, (count, height, width)).astype(np.int32)
    masks[:, :5] = 255
    return draw.normal(size=(count, height, width, 3)).astype(np.float32), masks


def _crossentropy(masks, logits):
    """The mean over valid pixels, in float64, written down anew."""
    logits = np.asarray(logits, np.float64)
    logp = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    valid = masks != 255
    return -np.take_along_axis(logp, np.where(valid, masks, 0)[..., None], -1)[..., 0][valid].mean()


def test_logits_have_the_images_size():
    network = fcn(_resnet(), 5)
    for height, width in ((64, 64), (33, 50), (1, 7)):
        outputs = network(np.zeros((2, height, width, 3), np.float32))
        assert {name: (o.shape, o.dtype) for name, o in outputs.items()} == dict.fromkeys(
            ("logits", "aux"), ((2, height, width, 5), tf.float32)
        )
    assert network.output["logits"].shape == (None, None, None, 5)
    assert set(fcn(_backbone(), 5, aux=False).output) == {"logits"}


def test_heads_are_gluoncvs():
    backbone = _resnet(0.5)
    network = fcn(backbone, 21)
    own = [layer for layer in network.layers if layer not in backbone.layers]
    weights = {layer.name: [tuple(w.shape) for w in layer.weights] for layer in own if layer.weights}
    c5, c4 = 256, 128
    for name, channels in (("logits_head", c5), ("aux_head", c4)):
        assert weights[f"{name}_conv"] == [(3, 3, channels, channels // 4)]
        assert weights[f"{name}_classes"] == [(1, 1, channels // 4, 21), (21,)]
        assert network.get_layer(f"{name}_dropout").rate == 0.1
    assert len(weights) == 6
    assert fcn(backbone, 21, channels=8).get_layer("aux_head_conv").filters == 8


def test_resize_is_bilinear_with_half_pixel_centres():
    draw = np.random.default_rng(0)
    x = draw.normal(size=(2, 3, 4, 5)).astype(np.float32)
    got = ResizeLike()([x, np.zeros((2, 7, 9, 1), np.float32)])
    np.testing.assert_allclose(got, tf.image.resize(x, (7, 9)), atol=1e-6)
    np.testing.assert_array_equal(ResizeLike()([x, x]), x)


def test_loss_is_the_mean_over_valid_pixels():
    _, masks = _data()
    masks[1, 5:] = 255
    masks[2, 20:] = 255
    logits = np.random.default_rng(1).normal(size=(*masks.shape, 3)).astype(np.float32) * 4
    assert float(PixelCrossentropy()(masks, logits)) == pytest.approx(_crossentropy(masks, logits), rel=1e-5)
    assert float(PixelCrossentropy()(masks[..., None], logits)) == pytest.approx(_crossentropy(masks, logits), rel=1e-5)
    # A batch padded for evaluation has the same.
    padded = np.concatenate([masks, np.full_like(masks[:1], 255)]), np.concatenate([logits, logits[:1]])
    weights = np.array([1, 1, 1, 1, 0], np.float32)
    assert float(PixelCrossentropy()(*padded, weights)) == pytest.approx(_crossentropy(masks, logits), rel=1e-5)
    assert float(PixelCrossentropy()(np.full_like(masks, 255), logits)) == 0
    other = np.where(masks == 255, 7, masks)
    assert float(PixelCrossentropy(ignore=7)(other, logits)) == pytest.approx(_crossentropy(masks, logits), rel=1e-5)


def test_ignored_pixels_have_no_gradient():
    _, masks = _data(count=2)
    logits = tf.Variable(np.random.default_rng(1).normal(size=(*masks.shape, 3)).astype(np.float32))
    with tf.GradientTape() as tape:
        loss = PixelCrossentropy()(masks, logits)
    gradient = np.abs(tape.gradient(loss, logits)).sum(-1)
    assert (gradient[masks == 255] == 0).all() and (gradient[masks != 255] > 0).all()


def test_training_counts_the_auxiliary_loss_and_evaluation_does_not():
    images, masks = _data()
    segmenter = Segmenter(fcn(_backbone(), 3, dropout=0.0), aux_weight=0.3)
    segmenter.compile(keras.optimizers.SGD(0.0), PixelCrossentropy())
    outputs = segmenter(images, training=True)
    losses = [_crossentropy(masks, outputs[name]) for name in ("logits", "aux")]
    trained = segmenter.compute_loss(images, masks, outputs, None, training=True)
    assert float(trained) == pytest.approx(losses[0] + 0.3 * losses[1], rel=1e-5)
    logits = segmenter.predict(images, verbose=0)
    assert logits.shape == (4, 40, 56, 3)
    assert segmenter.evaluate(images, masks, verbose=0) == pytest.approx(_crossentropy(masks, logits), rel=1e-5)


@pytest.mark.parametrize("aux", [True, pytest.param(False, marks=pytest.mark.thorough)])
def test_fit_lowers_the_loss(aux):
    keras.utils.set_random_seed(0)
    images, _ = _data(height=32, width=32)
    masks = np.where(images.mean(-1) > 0, 1, 0).astype(np.int32)
    masks[:, 16:] = 2
    segmenter = Segmenter(fcn(_backbone(), 3, aux=aux))
    segmenter.compile(keras.optimizers.Adam(1e-2), PixelCrossentropy(), weighted_metrics=[])
    before = [np.array(w) for w in segmenter.trainable_weights]
    losses = segmenter.fit(images, masks, epochs=12, verbose=0, batch_size=4).history["loss"]
    assert losses[-1] < 0.8 * losses[0]
    assert all(not np.array_equal(b, w) for b, w in zip(before, segmenter.trainable_weights, strict=True))


@pytest.mark.thorough
def test_two_replicas_train_as_one(two_replicas):
    images, masks = _data(height=8, width=8)
    results = []
    for strategy in (tf.distribute.get_strategy(), two_replicas):
        keras.utils.set_random_seed(0)
        with strategy.scope():
            image = keras.Input((8, 8, 3))
            x = keras.layers.Conv2D(4, 3, 4, "same")(image)
            network = fcn(keras.Model(image, {"C4": x, "C5": x}), 3, dropout=0.0)
            for layer in network.layers:  # its statistics would be each replica's own
                layer.trainable = not isinstance(layer, keras.layers.BatchNormalization)
            segmenter = Segmenter(network)
            metrics = [MeanIoU(3), PixelAccuracy(3)]
            segmenter.compile(keras.optimizers.SGD(0.5), PixelCrossentropy(), weighted_metrics=metrics)
        data = tf.data.Dataset.from_tensor_slices((images, masks)).batch(4)
        history = segmenter.fit(data, epochs=3, verbose=0).history
        figures = [np.array(history[name]) for name in ("loss", "mean_iou", "pixel_accuracy")]
        results.append(figures + [w.numpy() for w in segmenter.weights])
    for one, two in zip(*results, strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-6)
    losses = results[0][0]
    assert losses[-1] < losses[0]


def test_an_exported_network_has_no_auxiliary_head(tmp_path):
    images, _ = _data(count=2)
    segmenter = Segmenter(fcn(_backbone(), 3))
    expected = segmenter.predict(images, verbose=0)
    served = inference(segmenter.network)
    assert "aux_head_conv" not in {layer.name for layer in served.layers}
    served.export(tmp_path / "exported", verbose=False)
    exported = tf.saved_model.load(tmp_path / "exported")
    np.testing.assert_allclose(exported.serve(images), expected, atol=1e-5)
    assert exported.serve(np.zeros((1, 50, 30, 3), np.float32)).shape == (1, 50, 30, 3)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: fcn(models.create_model("resnet10_d", include_top=False, width=0.1), 3), "dict with C4, C5"),
        (
            lambda: fcn(models.features(models.create_model("cifar_resnet8_d", include_top=False)), 3),
            "it returns C0, C1, C2",
        ),
        (lambda: fcn(_backbone(), 1), "num_classes"),
        (lambda: fcn(_backbone(), 3, dropout=1.0), "dropout"),
        (lambda: fcn(_backbone(), 3, channels=0), "channels"),
    ],
)
def test_wrong_arguments(make, message):
    with pytest.raises(MisuseError, match=message):
        make()
