"""Detectors and segmenters in .keras files of version 0.1.0 load with their settings, weights and outputs.

`models/` was written by that version: tiny networks with random weights, and what they computed (every eighth value).
"""

import pathlib

import keras
import numpy as np
import pytest

from keras_bot.tasks.detection.faster_rcnn import FasterRCNN
from keras_bot.tasks.detection.retinanet import RetinaNet
from keras_bot.tasks.segmentation.fcn import PixelCrossentropy, Segmenter
from keras_bot.tasks.segmentation.metrics import MeanIoU, PixelAccuracy
from keras_bot.tasks.serving import load_trained

FOLDER = pathlib.Path(__file__).parent / "models"
IMAGES = np.sin(np.arange(64 * 64 * 3, dtype="float32")).reshape(1, 64, 64, 3)
MASKS = np.arange(64 * 64).reshape(1, 64, 64) % 3
SHARED = {
    "num_classes": 2,
    "channels": 4,
    "ratios": [0.5, 1.5],
    "score_threshold": 0.1,
    "iou_threshold": 0.4,
    "max_detections": 5,
    "candidates": 20,
}
SETTINGS = {
    "retinanet": {"head_convs": 1, "anchor_scale": 2.0, "octaves": 2, "box_weight": 0.5},
    "faster_rcnn": {
        "neck": "fpn",
        "head_units": 8,
        "anchor_sizes": [[3.0 * 2**level] for level in range(2, 7)],
        "rpn_samples": 16,
        "roi_samples": 8,
        "proposals": 6,
        "seed": 3,
    },
    "faster_rcnn_c4": {
        "neck": "c4",
        "head_units": 1024,
        "anchor_sizes": [16, 32],
        "rpn_samples": 256,
        "roi_samples": 128,
        "proposals": 6,
        "seed": 0,
    },
}


def expected(name):
    with np.load(FOLDER / "expected.npz") as file:
        return {key.split("/")[1]: file[key] for key in file.files if key.split("/")[0] == name}


@pytest.mark.parametrize("name", SETTINGS)
def test_a_detector_has_its_settings_and_outputs(name):
    detector = load_trained(FOLDER / f"{name}.keras", "detection")
    assert type(detector) is (RetinaNet if name == "retinanet" else FasterRCNN)
    assert detector.name == {"retinanet": "boxes"}.get(name, detector.name)
    assert detector.settings == {**SHARED, **SETTINGS[name]}
    computed = {key: np.asarray(value)[:, ::8] for key, value in detector(IMAGES).items()}
    computed |= {key: value.numpy() for key, value in detector.predict_boxes(IMAGES).items()}
    for key, value in expected(name).items():
        np.testing.assert_allclose(computed[key], value, rtol=1e-3, atol=1e-3, err_msg=key)


def test_a_segmenters_network_has_its_outputs():
    network = load_trained(FOLDER / "fcn.keras", "segmentation")
    np.testing.assert_allclose(network(IMAGES)[:, ::8, ::8], expected("fcn")["logits"], rtol=1e-3, atol=1e-3)


def test_a_compiled_segmenter_is_evaluated_with_its_loss_and_metrics():
    segmenter = keras.saving.load_model(FOLDER / "segmenter.keras")
    assert type(segmenter) is Segmenter and segmenter.aux_weight == 0.4
    assert type(segmenter.loss) is PixelCrossentropy and segmenter.loss.ignore == 9
    figures = segmenter.evaluate(IMAGES, MASKS, verbose=0)
    np.testing.assert_allclose(figures, expected("segmenter")["evaluate"], rtol=1e-3)
    assert [type(metric) for metric in segmenter.metrics[1].metrics] == [MeanIoU, PixelAccuracy]
