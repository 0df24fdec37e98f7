"""Small detectors and a batch that they learn, for the tests of detectors."""

import keras
import numpy as np

from keras_bot.models import create_model, features
from keras_bot.tasks.detection.faster_rcnn import FasterRCNN
from keras_bot.tasks.detection.retinanet import RetinaNet


def small_backbone(width=0.125):
    keras.utils.set_random_seed(0)
    return features(create_model("resnet10_d", include_top=False, width=width))


def retinanet(**options):
    return RetinaNet(small_backbone(), 2, **{"channels": 32, "head_convs": 1, **options})


def faster_rcnn(neck="fpn", **options):
    sizes = (16, 32, 64) if neck == "c4" else tuple((3.0 * 2**level,) for level in range(2, 7))
    small = {"channels": 32, "head_units": 64, "proposals": 40, "candidates": 60, "anchor_sizes": sizes}
    return FasterRCNN(small_backbone(), 2, neck=neck, **{**small, **options})


def without_chance(neck="fpn"):
    """A Faster R-CNN whose loss is over all anchors and regions."""
    return faster_rcnn(neck, rpn_samples=100_000, roi_samples=1000)


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


def loss_of(network, batch, **changes):
    batch = {**batch, **changes}
    return float(network.compute_loss(batch, None, network(batch["images"]), training=False))
