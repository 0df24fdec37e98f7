"""Semantic segmentation task of the trainer: the paper's FCN, or DeepLabV3+, on a trained backbone (section 6.2)."""

import functools
import pathlib
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from keras_bot.atomic_files import write_atomically
from keras_bot.data.augment import color
from keras_bot.data.corrupt import CorruptLog
from keras_bot.errors import MisuseError
from keras_bot.recipe import Recipe
from keras_bot.tasks.backbone import build_backbone, check_recipe
from keras_bot.tasks.base import Task
from keras_bot.tasks.classification import save_float32
from keras_bot.tasks.drawing import draw_mask, picture_grid, spread
from keras_bot.tasks.segmentation import metrics
from keras_bot.tasks.segmentation.data.factory import open_segmentation
from keras_bot.tasks.segmentation.data.pipeline import (
    SegmentationEvalConfig,
    SegmentationTrainConfig,
    segmentation_eval_pipeline,
    segmentation_train_pipeline,
)
from keras_bot.tasks.segmentation.data.source import SegmentationSource
from keras_bot.tasks.segmentation.deeplab import deeplabv3plus
from keras_bot.tasks.segmentation.fcn import PixelCrossentropy, Segmenter, fcn
from keras_bot.tasks.segmentation.labels import IGNORE
from keras_bot.tasks.serving import load_trained
from keras_bot.training import batches
from keras_bot.training.distributed.strategy import Strategy

SHOWN = 8


@keras.saving.register_keras_serializable(package="keras_bot")
class PixelEntropy(keras.metrics.Mean):
    """Mean cross-entropy over all valid pixels of a set; weights (B,) of 0 exclude padding."""

    def __init__(self, name: str = "cross_entropy") -> None:
        super().__init__(name=name, dtype="float32")

    def update_state(  # noqa: D102
        self, y_true: tf.Tensor, y_pred: tf.Tensor, sample_weight: tf.Tensor | None = None
    ) -> None:
        masks = ops.cast(y_true, "int32")
        valid = ops.cast(masks != IGNORE, "float32")
        if sample_weight is not None:
            valid = valid * ops.reshape(ops.cast(sample_weight, "float32"), (-1, 1, 1))
        classes = ops.where(masks != IGNORE, masks, 0)
        losses = keras.losses.sparse_categorical_crossentropy(classes, ops.cast(y_pred, "float32"), from_logits=True)
        super().update_state(losses, valid)

    def get_config(self) -> dict[str, Any]:  # noqa: D102
        return {"name": self.name}


class Segmentation(Task):
    """Semantic segmentation with a head on a trained backbone."""

    name = "segmentation"
    metrics = ("mean_iou", "pixel_accuracy")

    def open_source(
        self, recipe: Recipe, split: str, strategy: Strategy | None = None, class_names: tuple[str, ...] = ()
    ) -> SegmentationSource:
        """Opens the recipe's images and masks, with labels in the order of `class_names` if given."""
        check_recipe(recipe, ("fcn", "deeplabv3plus"))
        name = (recipe.train_split or "train") if split == "train" else (recipe.eval_split or "eval")
        options: dict[str, Any] = {"data_dir": recipe.data_dir or None, "class_names": class_names or None}
        return open_segmentation(recipe.dataset, name, num_classes=recipe.num_classes, **options)

    def build_network(self, recipe: Recipe, source: SegmentationSource) -> keras.Model:
        """Builds the network with its head and auxiliary head."""
        channels: dict[str, Any] = {"channels": recipe.head_channels} if recipe.head_channels else {}
        if recipe.head == "deeplabv3plus":
            return deeplabv3plus(build_backbone(recipe, 16), source.num_classes, **channels)
        return fcn(build_backbone(recipe, 8), source.num_classes, **channels)

    def build_losses(self, source: SegmentationSource) -> dict[str, Any]:
        """Returns the pixels' cross-entropy, mean IoU and pixel accuracy."""
        counts = [metrics.MeanIoU(source.num_classes), metrics.PixelAccuracy(source.num_classes), PixelEntropy()]
        return {"loss": PixelCrossentropy(), "weighted_metrics": counts}

    def build_trainee(self, recipe: Recipe, network: keras.Model, teacher: keras.Model | None) -> keras.Model:
        """Returns a Segmenter, which adds the auxiliary loss."""
        return Segmenter(network)

    def training_data(
        self,
        recipe: Recipe,
        source: SegmentationSource,
        corrupt: CorruptLog,
        strategy: Strategy | None = None,
        first_epoch: int = 0,
        first_step: int = 0,
    ) -> tf.data.Dataset:
        """Returns batches of crops of `recipe.image_size` and their masks."""
        config = SegmentationTrainConfig(
            **batches.stream_options(recipe, corrupt, first_epoch, first_step, strategy),
            crop_size=recipe.image_size,
            scale=(recipe.min_zoom, recipe.max_zoom),
            base_size=recipe.base_size,
        )
        return segmentation_train_pipeline(source, config)

    def evaluation_data(
        self, recipe: Recipe, source: SegmentationSource, corrupt: CorruptLog, strategy: Strategy | None = None
    ) -> tf.data.Dataset:
        """Returns batches of whole images and masks, padded to the largest."""
        config = SegmentationEvalConfig(
            batch_size=recipe.batch_size,
            corrupt=corrupt,
            ram_budget=recipe.ram_budget,
            **batches.sharing(strategy),
        )
        return segmentation_eval_pipeline(source, config)

    def build_evaluator(
        self, recipe: Recipe, source: SegmentationSource, corrupt: CorruptLog
    ) -> keras.callbacks.Callback:
        """Returns the callback that keeps the metrics for the final table."""
        return KeepFigures(source, functools.partial(self.evaluation_data, recipe, source, corrupt))

    def save(self, network: keras.Model, path: pathlib.Path) -> None:
        """Saves the network that outputs logits (B, H, W, K), in float32."""
        save_float32(inference(network), path)

    def evaluate(
        self, recipe: Recipe, path: pathlib.Path, source: SegmentationSource, corrupt: CorruptLog
    ) -> dict[str, Any]:
        """Evaluates a saved network."""
        network = load_trained(path, recipe.task)
        if network.output_shape[-1] != source.num_classes:
            raise MisuseError(
                f"The network in {path} has {network.output_shape[-1]} classes, but {source.name} has "
                f"{source.num_classes}. Evaluate it on the data set that it was trained on."
            )
        predict = tf.function(lambda images: network(images, training=False))
        return measure(predict, source, self.evaluation_data(recipe, source, corrupt))


class KeepFigures(keras.callbacks.Callback):
    """Callback that keeps the metrics of the last epoch's evaluation for the final table."""

    def __init__(self, source: SegmentationSource, build_data: Callable[[], tf.data.Dataset]) -> None:
        super().__init__()
        self._source, self._build_data = source, build_data
        self._figures: dict[str, Any] | None = None

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:  # noqa: D102
        counted = next(metric for metric in self.model.metrics[1].metrics if type(metric) is metrics.MeanIoU)
        self._figures = metrics.figures(counted.confusion(), self._source.class_names)

    def report(self, trainee: Segmenter, folder: pathlib.Path) -> None:
        """Writes table.md (IoU per class) and predictions.png (true and predicted masks over images)."""
        predict = tf.function(lambda images: trainee(images, training=False))
        data = self._build_data()
        figures = self._figures or measure(predict, self._source, data)
        write_atomically(folder / "table.md", metrics.table(figures) + "\n")
        pictures = draw_masks(predict, data, self._source)
        titles = ["truth", "prediction"] * (len(pictures) // 2)
        if pictures:
            picture_grid(pictures, folder / "predictions.png", columns=4, titles=titles)


def draw_masks(
    predict: Callable[[tf.Tensor], tf.Tensor], data: tf.data.Dataset, source: SegmentationSource
) -> list[np.ndarray]:
    """Draws the true and predicted masks of up to 8 images, spread over batches of `Segmentation.evaluation_data`."""
    return [
        draw_mask(image, each, source.class_names, colors=source.palette)
        for images, masks, _ in spread(data, source.size, SHOWN)
        for image, mask, guess in zip(
            color.denormalise(images.numpy()), masks.numpy(), np.argmax(predict(images), -1), strict=True
        )
        for each in (mask, np.where(mask == IGNORE, IGNORE, guess))
    ]


def measure(
    predict: Callable[[tf.Tensor], tf.Tensor], source: SegmentationSource, data: tf.data.Dataset
) -> dict[str, Any]:
    """Computes mIoU, pixel accuracy and the IoU of each class; see `metrics.figures`.

    Args:
        predict: normalised images -> logits (B, H, W, K).
        source: source of the images and masks.
        data: batches from `Segmentation.evaluation_data`.
    """
    iou = metrics.MeanIoU(source.num_classes)
    for images, masks, weights in data:
        iou.update_state(masks, predict(images), weights)
    return metrics.figures(iou.confusion(), source.class_names)


def inference(network: keras.Model) -> keras.Model:
    """Returns the network from images to logits, without the auxiliary head; the layers are shared."""
    return keras.Model(network.input, network.output["logits"], name=f"{network.name}_logits")
