"""Faster R-CNN's own; what it shares with the other detector is in `test_detectors.py`."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from detectors import coloured_boxes, faster_rcnn, loss_of

from keras_bot.tasks.detection.faster_rcnn import FasterRCNN


def test_c4_shares_the_backbones_last_stage_and_trains_it(tmp_path):
    network, batch = faster_rcnn("c4"), coloured_boxes(size=96)
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


@pytest.mark.thorough
def test_draws_follow_seed_and_step():
    batch = coloured_boxes()
    few = {"rpn_samples": 8, "roi_samples": 8}
    losses = [loss_of(faster_rcnn(**few), batch), loss_of(faster_rcnn(**few), batch)]
    other = loss_of(FasterRCNN.from_config({**faster_rcnn(**few).get_config(), "seed": 1}), batch)
    assert losses[0] == losses[1] != other
