"""Faster R-CNN over C4 and a pyramid: it learns, its losses count what they should; it predicts and is saved."""

import importlib.util
import pathlib

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_bot.errors import MisuseError
from keras_bot.models import create, features
from keras_bot.transfer.faster_rcnn import PARTS, FasterRCNN

_spec = importlib.util.spec_from_file_location("retinanet_tests", pathlib.Path(__file__).with_name("test_retinanet.py"))
shared = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(shared)
coloured_boxes = shared.coloured_boxes

ALL = {"rpn_samples": 100_000, "roi_samples": 1000}  # nothing is left to chance


def small_network(neck="fpn", seed=0, **options):
    keras.utils.set_random_seed(seed)
    backbone = features(create("resnet18_d", include_top=False, width=0.125))
    sizes = (16, 32, 64) if neck == "c4" else tuple((3.0 * 2**level,) for level in range(2, 7))
    small = {"channels": 32, "head_units": 64, "proposals": 40, "candidates": 60, "anchor_sizes": sizes}
    return FasterRCNN(backbone, 2, neck=neck, **{**small, **options})


@pytest.fixture(scope="module")
def trained():
    network, batch = small_network(channels=48, head_units=128), coloured_boxes()
    network.compile(keras.optimizers.Adam(5e-4))
    history = network.fit(tf.data.Dataset.from_tensors(batch).repeat(30), epochs=4, verbose=0).history
    return network, batch, history


def test_it_overfits_four_images(trained):
    network, batch, history = trained
    assert history["loss"][-1] < 0.2 * history["loss"][0]
    np.testing.assert_allclose(history["loss"][-1], sum(history[part][-1] for part in PARTS), rtol=1e-4)
    shared.check_found(network.predict_boxes(batch["images"], score_threshold=0.5), batch)


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


def test_c4_shares_the_backbones_last_stage_and_trains_it(tmp_path):
    network, batch = small_network("c4"), coloured_boxes(size=96)
    own = {id(variable) for variable in network.backbone.variables}
    assert own <= {id(variable) for variable in network.variables}
    before = [variable.numpy() for variable in network.trainable_variables]
    network.compile(keras.optimizers.SGD(0.1))
    history = network.fit(tf.data.Dataset.from_tensors(batch).repeat(4), epochs=2, verbose=0).history
    assert history["loss"][1] < history["loss"][0]
    for variable, old in zip(network.trainable_variables, before, strict=True):
        assert (variable.numpy() != old).any(), variable.path
    assert network.predict_boxes(batch["images"][:1, :50, :70])["boxes"].shape == (1, 100, 4)
    network.save(tmp_path / "net.keras")
    loaded = keras.saving.load_model(tmp_path / "net.keras", compile=False)
    for one, other in zip(network.weights, loaded.weights, strict=True):
        np.testing.assert_array_equal(one, other)


def loss_of(network, batch, **changes):
    batch = {**batch, **changes}
    return float(network.compute_loss(batch, None, network(batch["images"]), training=False))


@pytest.mark.parametrize("neck", ["fpn", "c4"])
def test_images_without_boxes(neck):
    network, batch = small_network(neck), coloured_boxes()
    padded = {"boxes": np.full((4, 1, 4), -1, "f"), "classes": np.full((4, 1), -1)}
    empty = {"boxes": np.full((4, 0, 4), -1, "f"), "classes": np.full((4, 0), -1)}
    with tf.GradientTape() as tape:
        outputs = network(batch["images"], training=True)
        loss = network.compute_loss({**batch, **padded}, None, outputs)
    gradients = tape.gradient(loss, network.trainable_variables)
    assert all(np.isfinite(tf.convert_to_tensor(g).numpy()).all() for g in gradients if g is not None)
    assert float(network.trackers["box_loss"].result()) == float(network.trackers["rpn_box_loss"].result()) == 0
    assert np.isfinite(loss_of(network, batch, **empty))


def test_weight_0_counts_for_nothing_and_forms_agree():
    network, batch = small_network(**ALL), coloured_boxes()
    first = {key: value[:1] for key, value in batch.items()}
    weights = np.array([1, 0, 0, 0], "float32")
    assert np.isclose(loss_of(network, batch, weights=weights), loss_of(network, first), rtol=1e-4)
    y = {"boxes": batch["boxes"], "classes": batch["classes"]}
    loss = network.compute_loss(batch["images"], y, network(batch["images"]), training=False)
    assert np.isclose(float(loss), loss_of(network, batch))
    assert loss_of(network, batch, weights=0 * weights) == 0


def test_draws_follow_seed_and_step():
    batch = coloured_boxes()
    few = {"rpn_samples": 8, "roi_samples": 8}
    losses = [loss_of(small_network(**few), batch), loss_of(small_network(**few), batch)]
    other = loss_of(FasterRCNN.from_config({**small_network(**few).get_config(), "seed": 1}), batch)
    assert losses[0] == losses[1] != other


def test_mixed_precision():
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        network, batch = small_network(), coloured_boxes()
        with tf.GradientTape() as tape:
            loss = network.compute_loss(batch, None, network(batch["images"], training=True))
        assert loss.dtype == tf.float32 and np.isfinite(loss)
        assert all(gradient is not None for gradient in tape.gradient(loss, network.trainable_variables))
        assert network.predict_boxes(batch["images"])["scores"].dtype == tf.float32
    finally:
        keras.config.set_dtype_policy(before)


def test_misuse():
    backbone = features(create("resnet18_d", include_top=False, width=0.0625))
    with pytest.raises(MisuseError, match="neck"):
        FasterRCNN(backbone, 2, neck="c5")
    with pytest.raises(MisuseError, match="from 1 on"):
        FasterRCNN(backbone, 0)
    with pytest.raises(MisuseError, match="C2, C3"):
        FasterRCNN(keras.Model(backbone.input, {k: backbone.output[k] for k in ("C4", "C5")}), 2)
    with pytest.raises(MisuseError, match="5 levels"):
        FasterRCNN(backbone, 2, anchor_sizes=((8,), (16,)))
    image = keras.Input((None, None, 3))
    whole = keras.Model(image, backbone(image))
    with pytest.raises(MisuseError, match="can't be cut"):
        FasterRCNN(whole, 2, neck="c4")


@pytest.mark.slow
def test_two_replicas_train_as_one_device():
    shared.compare_replicas(__file__, "**" + repr(ALL))
