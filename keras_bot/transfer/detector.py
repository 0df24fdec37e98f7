"""What all detectors have in common: how they are asked for boxes, saved and loaded."""

import keras
import tensorflow as tf

from keras_bot.transfer import box_coding as coding
from keras_bot.transfer.boxes import clip


class Detector(keras.Model):
    """A backbone with what finds boxes on it.

    A subclass sets these attributes, and computes its loss and its candidates.

    Attributes:
        backbone: the Keras model that it was given.
        settings: its other arguments by name; candidates, score_threshold, iou_threshold, max_detections among them.
        network: functional, from images.
    """

    def call(self, inputs, training=False):
        """What the network gives; `inputs` is images or a batch's dictionary."""
        images = inputs["images"] if isinstance(inputs, dict) else inputs
        return self.network(images, training=training)

    def candidates(self, outputs, height: tf.Tensor, width: tf.Tensor, threshold) -> tuple[tf.Tensor, ...]:
        """Likely boxes (B, N, 4) of what `call` gave for images of that size, their scores and classes (B, N)."""
        raise NotImplementedError

    def predict_boxes(
        self,
        images: tf.Tensor,
        score_threshold: float | None = None,
        iou_threshold: float | None = None,
        max_detections: int | None = None,
    ) -> dict[str, tf.Tensor]:
        """Detections of normalised images (B, H, W, 3), after non-maximum suppression within each class.

        It can be traced with any of B, H and W unknown. Arguments that are None are those of the constructor.

        Returns:
            boxes float32 (B, K, 4) in pixels of these images, scores float32 (B, K) falling, classes int32 (B, K) and
            count int32 (B,), K being `max_detections`; behind `count`, boxes and classes are -1 and scores 0.
        """
        chosen = self.settings
        threshold = chosen["score_threshold"] if score_threshold is None else score_threshold
        height, width = tf.shape(images)[1], tf.shape(images)[2]
        boxes, scores, classes = self.candidates(self(images, training=False), height, width, threshold)
        return coding.best_detections(
            clip(boxes, [0, 0, height, width]),
            scores,
            classes,
            iou=chosen["iou_threshold"] if iou_threshold is None else iou_threshold,
            limit=max_detections or chosen["max_detections"],
        )

    def get_config(self):
        """What `from_config` takes, the backbone among it."""
        return {**super().get_config(), **self.settings, "backbone": keras.saving.serialize_keras_object(self.backbone)}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        """A network with fresh heads on the backbone of the config."""
        backbone = keras.saving.deserialize_keras_object(config["backbone"], custom_objects=custom_objects)
        return cls(**{**config, "backbone": backbone})
