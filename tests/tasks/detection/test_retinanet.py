"""RetinaNet's own; what it shares with the other detector is in `test_detectors.py`."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from detectors import retinanet, small_backbone

from keras_bot.errors import MisuseError
from keras_bot.tasks.detection.retinanet import RetinaNet


def test_anchors_fit_the_outputs_at_odd_sizes():
    network = retinanet()
    for size in ((64, 64), (50, 131), (1, 1)):
        outputs = network(np.zeros((1, *size, 3), "float32"))
        count = len(network.anchors(*size))
        assert outputs["logits"].shape == (1, count, 2) and outputs["deltas"].shape == (1, count, 4)
    np.testing.assert_allclose(tf.sigmoid(outputs["logits"]), 0.01, atol=0.005)


def test_misuse():
    backbone = small_backbone(width=0.0625)
    with pytest.raises(MisuseError, match="num_classes"):
        RetinaNet(backbone, 0)
    with pytest.raises(MisuseError, match="C3, C4, C5"):
        RetinaNet(keras.Model(backbone.input, {"C5": backbone.output["C5"]}), 2)
    with pytest.raises(MisuseError, match="no boxes and no classes"):
        network = RetinaNet(backbone, 2, channels=8)
        network.compute_loss(np.zeros((1, 32, 32, 3), "f"), None, None)
