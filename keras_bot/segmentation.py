"""Semantic segmentation in your own code: FCN and DeepLabV3+ on keras_bot backbones, input pipelines, mIoU and drawing.

    from keras_bot import segmentation

    train = segmentation.open_segmentation("path/to/scenes", "train")  # images, masks and lists, or a TFDS name
    val = segmentation.open_segmentation("path/to/scenes", "val", class_names=train.class_names)
    backbone = segmentation.load_backbone("resnet50_d", output_stride=8)  # random weights; or a path to a network
    network = segmentation.fcn(backbone, train.num_classes)
    segmenter = segmentation.Segmenter(network)  # adds the auxiliary loss
    metrics = [segmentation.MeanIoU(train.num_classes), segmentation.PixelAccuracy(train.num_classes)]
    segmenter.compile("adam", segmentation.PixelCrossentropy(), weighted_metrics=metrics)
    config = segmentation.SegmentationTrainConfig(batch_size=8, crop_size=480, epochs=30)
    batches = segmentation.segmentation_train_pipeline(train, config)
    held_out = segmentation.segmentation_eval_pipeline(val, segmentation.SegmentationEvalConfig(batch_size=8))
    segmenter.fit(batches, epochs=30, steps_per_epoch=train.size // 8, validation_data=held_out)

    images, masks, _ = next(iter(held_out))
    predicted = segmenter.predict(images).argmax(axis=-1)
    picture = segmentation.draw_mask(segmentation.denormalise(images[0].numpy()), predicted[0], val.class_names)
    segmenter.save("segmenter.keras")  # load it with keras.saving.load_model after importing this module

Masks are integers (B, H, W): classes 0 … K - 1, or `IGNORE` for pixels that loss and metrics exclude. Networks also
train in other models and on other batches. The input pipelines and metrics need TensorFlow.
"""

from keras_bot.data.augment.color import denormalise
from keras_bot.data.corrupt import CorruptLog
from keras_bot.tasks.backbone import load_backbone
from keras_bot.tasks.drawing import class_colors, draw_legend, draw_mask, picture_grid
from keras_bot.tasks.segmentation.data.factory import open_segmentation
from keras_bot.tasks.segmentation.data.pipeline import (
    SegmentationEvalConfig,
    SegmentationTrainConfig,
    segmentation_eval_pipeline,
    segmentation_train_pipeline,
)
from keras_bot.tasks.segmentation.data.source import SegmentationSource
from keras_bot.tasks.segmentation.deeplab import deeplabv3plus, keras_cv_deeplabv3plus
from keras_bot.tasks.segmentation.fcn import PixelCrossentropy, Segmenter, fcn
from keras_bot.tasks.segmentation.labels import IGNORE
from keras_bot.tasks.segmentation.metrics import MeanIoU, PixelAccuracy, figures, table
from keras_bot.tasks.serving import load_trained

__all__ = [
    "IGNORE",
    "CorruptLog",
    "MeanIoU",
    "PixelAccuracy",
    "PixelCrossentropy",
    "SegmentationEvalConfig",
    "SegmentationSource",
    "SegmentationTrainConfig",
    "Segmenter",
    "class_colors",
    "deeplabv3plus",
    "denormalise",
    "draw_legend",
    "draw_mask",
    "fcn",
    "figures",
    "keras_cv_deeplabv3plus",
    "load_backbone",
    "load_trained",
    "open_segmentation",
    "picture_grid",
    "segmentation_eval_pipeline",
    "segmentation_train_pipeline",
    "table",
]
