"""Both detectors: they learn, their losses count what they should, also on two devices; they predict and are saved."""

import detectors
import keras
import numpy as np
import pytest
import tensorflow as tf
from detectors import coloured_boxes, loss_of

from keras_bot.tasks.detection.box_ops import iou_matrix
from keras_bot.tasks.detection.faster_rcnn import PARTS


def fitted(network, rate, epochs):
    network.compile(keras.optimizers.Adam(rate))
    data = tf.data.Dataset.from_tensors(coloured_boxes()).repeat(30)
    return network, network.fit(data, epochs=epochs, verbose=0).history


@pytest.fixture(scope="module")
def retinanet():
    return *fitted(detectors.retinanet(), 2e-3, 3), ("class_loss", "box_loss")


@pytest.fixture(scope="module")
def faster_rcnn():
    return *fitted(detectors.faster_rcnn(channels=48, head_units=128), 5e-4, 6), PARTS


BOTH = pytest.mark.parametrize("kind", ["retinanet", "faster_rcnn"])
EACH = pytest.mark.parametrize(
    "make", [detectors.retinanet, detectors.without_chance, lambda: detectors.without_chance("c4")],
    ids=["retinanet", "fpn", "c4"],
)  # fmt: skip


@pytest.mark.thorough
@BOTH
def test_it_overfits_four_images(kind, request):
    network, history, parts = request.getfixturevalue(kind)
    batch = coloured_boxes()
    assert history["loss"][-1] < {"retinanet": 0.05, "faster_rcnn": 0.2}[kind] * history["loss"][0]
    np.testing.assert_allclose(history["loss"][-1], sum(history[part][-1] for part in parts), rtol=1e-4)
    threshold = {"retinanet": 0.3, "faster_rcnn": 0.5}[kind]
    found = network.predict_boxes(batch["images"], score_threshold=threshold)
    for i, box in enumerate(batch["boxes"][:-1, 0]):
        assert iou_matrix(found["boxes"][i, :1], box[None]).numpy() > 0.7
        assert found["classes"][i, 0] == batch["classes"][i, 0] and found["scores"][i, 0] > 0.5
    assert found["count"][-1] == 0


@pytest.mark.thorough
@BOTH
def test_predictions_are_the_same_traced_saved_and_loaded(kind, request, tmp_path):
    network, *_ = request.getfixturevalue(kind)
    images = tf.constant(coloured_boxes()["images"])
    eager = network.predict_boxes(images)
    traced = tf.function(network.predict_boxes, input_signature=[tf.TensorSpec([None, None, None, 3])])
    network.save(tmp_path / "net.keras")
    loaded = keras.saving.load_model(tmp_path / "net.keras", compile=False)
    for found in (traced(images), loaded.predict_boxes(images)):
        for key, value in eager.items():
            np.testing.assert_allclose(found[key], value, rtol=1e-3, atol=1e-3)
    assert traced(images[:1, :50, :35])["boxes"].shape == (1, 100, 4)
    archive = keras.export.ExportArchive()
    archive.track(network)
    archive.add_endpoint("serve", network.predict_boxes, [tf.TensorSpec([None, None, None, 3])])
    archive.write_out(str(tmp_path / "saved"), verbose=False)
    saved = tf.saved_model.load(str(tmp_path / "saved"))
    served = saved.serve(images[:2])
    np.testing.assert_allclose(served["boxes"], eager["boxes"][:2], rtol=1e-3, atol=1e-3)


@EACH
def test_images_without_boxes(make):
    network, batch = make(), coloured_boxes()
    empty = {"boxes": np.full((4, 0, 4), -1, "f"), "classes": np.full((4, 0), -1)}
    padded = {"boxes": np.full((4, 1, 4), -1, "f"), "classes": np.full((4, 1), -1)}
    with tf.GradientTape() as tape:
        loss = network.compute_loss({**batch, **padded}, None, network(batch["images"], training=True))
    gradients = tape.gradient(loss, network.trainable_variables)
    assert all(np.isfinite(tf.convert_to_tensor(g).numpy()).all() for g in gradients if g is not None)
    of_boxes = [float(metric.result()) for metric in network.metrics if "box_loss" in metric.name]
    assert of_boxes and not any(of_boxes) and float(loss) > 0
    assert np.isclose(loss_of(network, batch, **padded), loss_of(network, batch, **empty))


@EACH
def test_weight_0_counts_for_nothing_and_forms_agree(make):
    network, batch = make(), coloured_boxes()
    first = {key: value[:1] for key, value in batch.items()}
    weights = np.array([1, 0, 0, 0], "float32")
    assert np.isclose(loss_of(network, batch, weights=weights), loss_of(network, first), rtol=1e-4)
    y = {"boxes": batch["boxes"], "classes": batch["classes"]}
    loss = network.compute_loss(batch["images"], y, network(batch["images"]), training=False)
    assert np.isclose(float(loss), loss_of(network, batch))
    assert loss_of(network, batch, weights=0 * weights) == 0


@pytest.mark.thorough
@pytest.mark.parametrize("make", [detectors.retinanet, detectors.without_chance])
def test_two_replicas_train_as_one_device(two_replicas, make):
    """Two steps, one of the replicas poor in boxes."""
    results = []
    for strategy in (tf.distribute.get_strategy(), two_replicas):
        with strategy.scope():
            network = make()
            for layer in network.backbone.layers:
                layer.trainable = layer.trainable and "BatchNormalization" not in type(layer).__name__
            network.compile(keras.optimizers.SGD(0.02, momentum=0.9))
        data = tf.data.Dataset.from_tensor_slices(coloured_boxes()).batch(4).repeat(2)
        results.append((network.fit(data, verbose=0).history, network.get_weights()))
    (one, weights), (two, others) = results
    for key in one:
        np.testing.assert_allclose(one[key], two[key], rtol=1e-3, err_msg=key)
    for a, b in zip(weights, others, strict=True):
        np.testing.assert_allclose(a, b, atol=2e-5)
