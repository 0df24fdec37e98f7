"""RetinaNet: it learns, its loss counts what it should, on one device and on two; it predicts and is saved."""

import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_bot.errors import MisuseError
from keras_bot.models import create, features
from keras_bot.transfer.boxes import iou_matrix
from keras_bot.transfer.retinanet import RetinaNet


def small_network(num_classes=2, seed=0, **options):
    keras.utils.set_random_seed(seed)
    backbone = features(create("resnet18_d", include_top=False, width=0.125))
    return RetinaNet(backbone, num_classes, **{"channels": 32, "head_convs": 1, **options})


def coloured_boxes(images=4, size=64):
    """Noise with a red or green box each, and none on the last image."""
    draw = np.random.default_rng(0)
    pixels = draw.normal(size=(images, size, size, 3)).astype("float32") * 0.2
    boxes, classes = np.full((images, 3, 4), -1, "float32"), np.full((images, 3), -1, "int32")
    for i in range(images - 1):
        y, x = draw.integers(4, size // 2 - 4, 2)
        boxes[i, 0], classes[i, 0] = (y, x, y + 28, x + 24), i % 2
        pixels[i, y : y + 28, x : x + 24, i % 2] += 3
    return {"images": pixels, "boxes": boxes, "classes": classes}


def check_found(found, batch):
    """The first detection of each image is its box; the last image has none."""
    for i, box in enumerate(batch["boxes"][:-1, 0]):
        assert iou_matrix(found["boxes"][i, :1], box[None]).numpy() > 0.7
        assert found["classes"][i, 0] == batch["classes"][i, 0] and found["scores"][i, 0] > 0.5
    assert found["count"][-1] == 0


@pytest.fixture(scope="module")
def trained():
    network, batch = small_network(), coloured_boxes()
    network.compile(keras.optimizers.Adam(2e-3))
    history = network.fit(tf.data.Dataset.from_tensors(batch).repeat(30), epochs=3, verbose=0).history
    return network, batch, history


def test_it_overfits_four_images(trained):
    network, batch, history = trained
    assert history["loss"][-1] < 0.05 * history["loss"][0]
    np.testing.assert_allclose(history["loss"][-1], history["class_loss"][-1] + history["box_loss"][-1], rtol=1e-4)
    check_found(network.predict_boxes(batch["images"], score_threshold=0.3), batch)


def test_predictions_are_the_same_traced_saved_and_loaded(trained, tmp_path):
    network, batch, _ = trained
    images = tf.constant(batch["images"])
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


def test_anchors_fit_the_outputs_at_odd_sizes():
    network = small_network()
    for size in ((64, 64), (50, 131), (1, 1)):
        outputs = network(np.zeros((1, *size, 3), "float32"))
        count = len(network.anchors(*size))
        assert outputs["logits"].shape == (1, count, 2) and outputs["deltas"].shape == (1, count, 4)
    np.testing.assert_allclose(tf.sigmoid(outputs["logits"]), 0.01, atol=0.005)


def loss_of(network, batch, **changes):
    batch = {**batch, **changes}
    return float(network.compute_loss(batch, None, network(batch["images"]), training=False))


def test_images_without_boxes():
    network, batch = small_network(), coloured_boxes()
    empty = {"boxes": np.full((4, 0, 4), -1, "f"), "classes": np.full((4, 0), -1)}
    padded = {"boxes": np.full((4, 1, 4), -1, "f"), "classes": np.full((4, 1), -1)}
    with tf.GradientTape() as tape:
        outputs = network(batch["images"], training=True)
        loss = network.compute_loss({**batch, **padded}, None, outputs)
    gradients = tape.gradient(loss, network.trainable_variables)
    assert all(np.isfinite(tf.convert_to_tensor(g).numpy()).all() for g in gradients if g is not None)
    assert float(network.box_loss.result()) == 0 and float(loss) > 0
    assert np.isclose(loss_of(network, batch, **padded), loss_of(network, batch, **empty))


def test_weight_0_counts_for_nothing_and_forms_agree():
    network, batch = small_network(), coloured_boxes()
    first = {key: value[:1] for key, value in batch.items()}
    weights = np.array([1, 0, 0, 0], "float32")
    assert np.isclose(loss_of(network, batch, weights=weights), loss_of(network, first), rtol=1e-4)
    y = {"boxes": batch["boxes"], "classes": batch["classes"]}
    outputs = network(batch["images"])
    assert np.isclose(float(network.compute_loss(batch["images"], y, outputs)), loss_of(network, batch))
    assert loss_of(network, batch, weights=0 * weights) == 0


def test_mixed_precision_ends_in_float32():
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        network, batch = small_network(), coloured_boxes()
        with tf.GradientTape() as tape:
            loss = network.compute_loss(batch, None, network(batch["images"], training=True))
        assert loss.dtype == tf.float32 and np.isfinite(loss)
        assert all(gradient is not None for gradient in tape.gradient(loss, network.trainable_variables))
        assert {x.dtype for x in network(batch["images"]).values()} == {tf.float32}
    finally:
        keras.config.set_dtype_policy(before)


def test_misuse():
    backbone = features(create("resnet18_d", include_top=False, width=0.0625))
    with pytest.raises(MisuseError, match="num_classes"):
        RetinaNet(backbone, 0)
    with pytest.raises(MisuseError, match="C3, C4, C5"):
        RetinaNet(keras.Model(backbone.input, {"C5": backbone.output["C5"]}), 2)
    with pytest.raises(MisuseError, match="boxes, classes missing"):
        network = RetinaNet(backbone, 2, channels=8)
        network.compute_loss(np.zeros((1, 32, 32, 3), "f"), None, None)


TWO_REPLICAS = """
import sys

import numpy as np
import tensorflow as tf

sys.path.insert(0, {folder!r})
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
import keras

from {module} import coloured_boxes, small_network

batch = coloured_boxes()


def train(strategy):
    with strategy.scope():
        network = small_network({options})
        for layer in network.backbone.layers:
            layer.trainable = layer.trainable and "BatchNormalization" not in type(layer).__name__
        network.compile(keras.optimizers.SGD(0.02, momentum=0.9))
    data = tf.data.Dataset.from_tensor_slices(batch).batch(4).repeat(2)
    return network.fit(data, verbose=0).history, network.get_weights()


one, weights = train(tf.distribute.get_strategy())
two, others = train(tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]))
for key in one:
    np.testing.assert_allclose(one[key], two[key], rtol=1e-3, err_msg=key)
for a, b in zip(weights, others, strict=True):
    np.testing.assert_allclose(a, b, atol=2e-5)
"""


def compare_replicas(path, options=""):
    """In a fresh process, two steps on two CPU replicas, one of them poor in boxes, against one device."""
    module = path.rsplit("/", 1)[1].removesuffix(".py")
    code = TWO_REPLICAS.format(folder=path.rsplit("/", 1)[0], module=module, options=options)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.slow
def test_two_replicas_train_as_one_device():
    compare_replicas(__file__)
