"""RetinaNet's own; what it shares with the other detector is in `test_detectors.py`."""

import numpy as np
import pytest
import tensorflow as tf
from detectors import retinanet

from keras_bot.errors import MisuseError


def test_anchors_fit_the_outputs_at_odd_sizes():
    network = retinanet()
    for size in ((64, 64), (50, 131), (1, 1)):
        outputs = network(np.zeros((1, *size, 3), "float32"))
        count = len(network.anchors(*size))
        assert outputs["logits"].shape == (1, count, 2) and outputs["deltas"].shape == (1, count, 4)
    np.testing.assert_allclose(tf.sigmoid(outputs["logits"]), 0.01, atol=0.005)


def test_a_batch_without_boxes_is_refused():
    network = retinanet(channels=8)
    with pytest.raises(MisuseError, match="no boxes and no classes"):
        network.compute_loss(np.zeros((1, 32, 32, 3), "f"), None, None)
