"""The table of model classes with a config of their own."""

import dataclasses
import functools
from collections.abc import Callable

import keras
import numpy as np
from detectors import coloured_boxes

from contracts.checks import (
    Row,
    refuse,
)
from keras_bot.errors import MisuseError
from keras_bot.tasks.backbone import ImageEncoder
from keras_bot.tasks.detection.faster_rcnn import FasterRCNN
from keras_bot.tasks.detection.retinanet import RetinaNet
from keras_bot.tasks.segmentation.deeplab import deeplabv3plus
from keras_bot.tasks.segmentation.fcn import PixelCrossentropy, Segmenter, fcn
from keras_bot.tricks import DistillationModel, SoftCrossentropy

SIZE, CLASSES = 64, 3
misuse = functools.partial(refuse, error=MisuseError)


def images(size):
    return np.random.default_rng(0).normal(size=(size, SIZE, SIZE, 3)).astype("float32")


def backbone(levels=("C2", "C3", "C4", "C5")):
    """C2 … C5 in four convolutions."""
    image = x = keras.Input((None, None, 3))
    outputs = {}
    for level, strides in zip(("C2", "C3", "C4", "C5"), (4, 2, 2, 2), strict=True):
        x = outputs[level] = keras.layers.Conv2D(6, 3, strides, "same", activation="relu", name=level)(x)
    return keras.Model(image, {level: outputs[level] for level in levels}, name="backbone")


def classifier(filters, name, classes=CLASSES, activation=None):
    image = keras.Input((None, None, 3))
    x = keras.layers.BatchNormalization()(keras.layers.Conv2D(filters, 3, 4, activation="relu")(image))
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(image, keras.layers.Dense(classes, activation, dtype="float32")(x), name=name)


def detection_loss(detector):
    batch = coloured_boxes(images=2, size=SIZE)
    return detector.compute_loss(batch, None, detector(batch["images"], training=True))


def distillation_loss(model):
    model.compile("sgd", keras.losses.CategoricalCrossentropy(from_logits=True))
    labels = np.eye(CLASSES, dtype="float32")[:2]
    return model.compute_loss(images(2), labels, model(images(2), training=True))


def segmentation_loss(model):
    model.compile("sgd", PixelCrossentropy())
    masks = np.random.default_rng(1).integers(0, CLASSES, (2, SIZE, SIZE)).astype("int32")
    return model.compute_loss(images(2), masks, model(images(2), training=True))


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class ModelRow(Row):
    """A model class.

    Attributes:
        loss: model -> its training loss on a batch; None if it has none of its own.
        heads: outputs that are float32 under every policy; None means all of them.
        saved: the part that `save` writes.
        is_functional: whether Keras makes the config.
    """

    loss: Callable | None
    heads: tuple[str, ...] | None = None
    saved: Callable = lambda model: model
    is_functional: bool = False


DETECTOR = {
    "score_threshold": 0.05,
    "iou_threshold": 0.5,
    "max_detections": 100,
    "candidates": 1000,
    "ratios": (0.5, 1.0, 2.0),
    "channels": 256,
}


def detector(**own):
    few = {"score_threshold": 0.1, "iou_threshold": 0.4, "max_detections": 7, "candidates": 30}
    return {"backbone": backbone(), "num_classes": 2, "channels": 8, "ratios": [0.5, 2.0], **few, **own}


def faster_rcnn(neck, **own):
    counts = {"head_units": 8, "rpn_samples": 16, "roi_samples": 8, "proposals": 10, "seed": 3}
    return detector(neck=neck, **counts, **own)


def nested_backbone():
    """A backbone that cannot be split at C4, because all its layers are in one."""
    image = keras.Input((None, None, 3))
    return keras.Model(image, backbone()(image), name="nested")


COUNTS = ("channels", "head_units", "rpn_samples", "roi_samples", "proposals", "candidates", "max_detections")
BOX_REFUSALS = (misuse(num_classes=0), misuse(num_classes=-1))
ROWS = [
    ModelRow(
        make=RetinaNet,
        arguments=lambda: detector(head_convs=1, anchor_scale=2.0, octaves=2, box_weight=0.5),
        defaults={**DETECTOR, "head_convs": 4, "anchor_scale": 4.0, "octaves": 3, "box_weight": 1.0},
        loss=detection_loss,
        refused=(
            *BOX_REFUSALS,
            misuse("channels", "received 0 and 1", channels=0),
            misuse("head_convs", "received 8 and -1", head_convs=-1),
            misuse("outputs C3, C4, C5, but 'backbone' has C4, C5", built=lambda: {"backbone": backbone(("C4", "C5"))}),
            misuse("'name' has no dictionary of outputs", built=lambda: {"backbone": classifier(2, "name")}),
        ),
    ),
    ModelRow(
        make=FasterRCNN,
        arguments=lambda: faster_rcnn("c4", anchor_sizes=[16.0, 32.0]),
        defaults={
            **DETECTOR,
            "neck": "fpn",
            "head_units": 1024,
            "anchor_sizes": None,
            "rpn_samples": 256,
            "roi_samples": 128,
            "proposals": 300,
            "seed": 0,
        },
        loss=detection_loss,
        heads=("objectness", "deltas"),
        refused=(
            *BOX_REFUSALS,
            *(misuse(**{name: 0}) for name in COUNTS),
            misuse("Unknown neck 'c5'", neck="c5"),
            misuse("a sequence of numbers", "received ((8,), (16,))", anchor_sizes=((8,), (16,))),
            misuse("outputs C4, C5, but 'backbone' has C3", built=lambda: {"backbone": backbone(("C3",))}),
            misuse("'nested' cannot be split there", built=lambda: {"backbone": nested_backbone()}),
        ),
    ),
    ModelRow(
        make=FasterRCNN,
        name="FasterRCNN on a pyramid",
        arguments=lambda: faster_rcnn("fpn", anchor_sizes=[[4.0 * 2**level] for level in range(2, 7)]),
        loss=detection_loss,
        heads=("objectness", "deltas"),
        refused=(
            misuse("anchor_sizes", "5 levels", "received ((8,), (16,))", anchor_sizes=((8,), (16,))),
            misuse("one sequence of numbers per level", "received (8, 16)", anchor_sizes=(8, 16)),
            misuse("outputs C2, C3, C4, C5", "has C4, C5", built=lambda: {"backbone": backbone(("C4", "C5"))}),
        ),
    ),
    ModelRow(
        make=Segmenter,
        arguments=lambda: {"network": fcn(backbone(), CLASSES, dropout=0.0), "aux_weight": 0.2, "name": "mine"},
        defaults={"aux_weight": 0.5, "name": None},
        loss=segmentation_loss,
        refused=(
            misuse(aux_weight=-1),
            misuse(aux_weight=float("nan")),
            misuse("must have the outputs logits", "received {'C4'", built=lambda: {"network": backbone(("C4", "C5"))}),
            misuse("must have the outputs logits", "received <", built=lambda: {"network": classifier(2, "other")}),
        ),
    ),
    ModelRow(
        make=Segmenter,
        name="Segmenter of DeepLabV3+",
        arguments=lambda: {
            "network": deeplabv3plus(backbone(), CLASSES, channels=4, low_channels=4, dropout=0.0),
            "aux_weight": 0.0,
            "name": "mine",
        },
        loss=segmentation_loss,
    ),
    ModelRow(
        make=DistillationModel,
        arguments=lambda: {
            "student": classifier(4, "student"),
            "teacher": classifier(8, "teacher"),
            "temperature": 7.0,
            "hard_weight": 0.25,
            "teacher_inputs": keras.layers.UpSampling2D(name="upsampled"),
            "soft_loss": SoftCrossentropy(3.0),
            "name": "mine",
        },
        defaults={
            "teacher": None,
            "temperature": 20.0,
            "hard_weight": None,
            "teacher_inputs": None,
            "soft_loss": None,
            "name": None,
        },
        loss=distillation_loss,
        saved=lambda model: model.student,
        refused=(
            *(refuse(temperature=wrong) for wrong in (0.0, -1.0, float("nan"))),
            *(refuse(hard_weight=wrong) for wrong in (-0.1, 1.1, float("nan"))),
            refuse(
                "teacher has 5 classes, but the student has 3", built=lambda: {"teacher": classifier(8, "other", 5)}
            ),
            refuse(
                "teacher must return logits, but 'other'",
                built=lambda: {"teacher": classifier(8, "other", activation="softmax")},
            ),
            refuse(
                "student must be a functional", built=lambda: {"student": keras.Sequential([keras.layers.Dense(3)])}
            ),
        ),
    ),
    ModelRow(
        make=ImageEncoder,
        arguments=lambda: dict(zip(("inputs", "outputs"), (lambda m: (m.input, m.output))(backbone()), strict=True)),
        loss=None,
        heads=(),
        is_functional=True,
    ),
]
WITH_CONFIG = [row for row in ROWS if not row.is_functional and not row.name]
