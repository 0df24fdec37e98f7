"""Object detection in your own code: detectors on keras_bot backbones, input pipelines, mAP and drawing.

    from keras_bot import detection

    train = detection.open_detection("path/to/voc", "train")  # Pascal VOC's or COCO's layout, or a TFDS name
    val = detection.open_detection("path/to/voc", "val", class_names=train.class_names)
    backbone = detection.load_backbone("resnet50_d")  # random weights; or a path to an exported or trained network
    detector = detection.RetinaNet(backbone, train.num_classes)
    detector.compile("adam")
    config = detection.DetectionTrainConfig(batch_size=8, image_size=512, epochs=12)
    batches = detection.detection_train_pipeline(train, config)
    detector.fit(batches, epochs=12, steps_per_epoch=train.size // 8)

    metric = detection.VocMap(val.class_names)
    config = detection.DetectionEvalConfig(batch_size=8, image_size=512)
    for images, targets, weights in detection.detection_eval_pipeline(val, config):
        found = {name: value.numpy() for name, value in detector.predict_boxes(images).items()}
        for row in weights.numpy().nonzero()[0]:  # rows of weight 0 are padding
            truth = val.annotations.of(targets["index"][row])  # boxes in pixels of the original image
            boxes = found["boxes"][row] / [*targets["scale"][row], *targets["scale"][row]]
            metric.add(*truth, boxes, found["scores"][row], found["classes"][row])
    print(detection.table(metric.result()))
    detector.save("detector.keras")  # load it with detection.load_trained("detector.keras", "detection")

Boxes are y0, x0, y1, x1 in pixels. Detectors also train on other batches of {"images", "boxes", "classes"}, see
`RetinaNet`. Only the TensorFlow backend is supported.
"""

from keras_bot.data.augment.color import denormalise
from keras_bot.data.corrupt import CorruptLog
from keras_bot.tasks.backbone import load_backbone
from keras_bot.tasks.detection.data.annotations import Example
from keras_bot.tasks.detection.data.factory import file_source, open_detection
from keras_bot.tasks.detection.data.pipeline import (
    DetectionEvalConfig,
    DetectionTrainConfig,
    detection_eval_pipeline,
    detection_train_pipeline,
)
from keras_bot.tasks.detection.data.source import DetectionSource
from keras_bot.tasks.detection.data.view import preprocess_detection
from keras_bot.tasks.detection.faster_rcnn import FasterRCNN
from keras_bot.tasks.detection.metrics import CocoMap, VocMap, table
from keras_bot.tasks.detection.retinanet import RetinaNet
from keras_bot.tasks.drawing import class_colors, draw_boxes, picture_grid
from keras_bot.tasks.serving import load_trained

__all__ = [
    "CocoMap",
    "CorruptLog",
    "DetectionEvalConfig",
    "DetectionSource",
    "DetectionTrainConfig",
    "Example",
    "FasterRCNN",
    "RetinaNet",
    "VocMap",
    "class_colors",
    "denormalise",
    "detection_eval_pipeline",
    "detection_train_pipeline",
    "draw_boxes",
    "file_source",
    "load_backbone",
    "load_trained",
    "open_detection",
    "picture_grid",
    "preprocess_detection",
    "table",
]
