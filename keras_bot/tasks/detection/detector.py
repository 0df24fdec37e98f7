"""Base class of detectors: prediction, saving and loading."""

import keras
import tensorflow as tf

from keras_bot.tasks.detection import box_coding as coding
from keras_bot.tasks.detection.boxes import clip


class Detector(keras.Model):
    """A backbone with a detection head.

    Subclasses set the attributes and implement the loss and `candidates`.

    Attributes:
        backbone: the Keras model passed to the constructor.
        settings: the other constructor arguments by name, including candidates, score_threshold, iou_threshold and
            max_detections.
        network: functional model that takes images.
    """

    def call(self, inputs, training=False):
        """Returns the network's outputs; `inputs` is images or a batch dictionary."""
        images = inputs["images"] if isinstance(inputs, dict) else inputs
        return self.network(images, training=training)

    def candidates(self, outputs, height: tf.Tensor, width: tf.Tensor, threshold) -> tuple[tf.Tensor, ...]:
        """Returns candidate boxes (B, N, 4), scores and classes (B, N) from outputs of `call` and the image size."""
        raise NotImplementedError

    def predict_boxes(
        self,
        images: tf.Tensor,
        score_threshold: float | None = None,
        iou_threshold: float | None = None,
        max_detections: int | None = None,
    ) -> dict[str, tf.Tensor]:
        """Detects objects in normalised images (B, H, W, 3), with non-maximum suppression within each class.

        B, H and W may be unknown when tracing. Arguments that are None default to the constructor's values.

        Returns:
            boxes float32 (B, K, 4) in pixels of these images, scores float32 (B, K) in descending order, classes int32
            (B, K) and count int32 (B,), where K is `max_detections`. Beyond `count`, boxes and classes are -1 and
            scores 0.
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
        """Returns the config for `from_config`, including the backbone."""
        return {**super().get_config(), **self.settings, "backbone": keras.saving.serialize_keras_object(self.backbone)}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        """Creates a detector with fresh heads on the backbone of the config."""
        backbone = keras.saving.deserialize_keras_object(config["backbone"], custom_objects=custom_objects)
        return cls(**{**config, "backbone": backbone})
