"""Base class of detectors: settings, prediction, saving and loading."""

import dataclasses
import inspect
from typing import Any, Self

import keras
import tensorflow as tf

from keras_bot.errors import MisuseError
from keras_bot.tasks.detection.box_coding import best_detections
from keras_bot.tasks.detection.box_ops import clip


@dataclasses.dataclass(frozen=True, kw_only=True)
class DetectorSettings:
    """Keyword arguments of every detector; subclasses add those of one detector.

    Attributes:
        score_threshold, iou_threshold, max_detections: defaults of `Detector.predict_boxes`.
        candidates: maximum number of boxes before non-maximum suppression.
    """

    score_threshold: float = 0.05
    iou_threshold: float = 0.5
    max_detections: int = 100
    candidates: int = 1000


class Detector(keras.Model):
    """A backbone with a detection head.

    Subclasses set `settings_class`, build `network` in their constructor, and implement the loss and `candidates`.

    Args:
        backbone: Keras model of normalised images whose outputs are a dict of feature maps.
        num_classes: number of classes, without a background class.
        **options: fields of `settings_class`, or arguments of `keras.Model` such as `name` and `dtype`.

    Attributes:
        settings_class: dataclass of the detector's keyword arguments.
        options: instance of `settings_class` with this detector's values.
        network: functional model that takes images.

    Raises:
        MisuseError: `num_classes` is less than 1.
    """

    settings_class: type[DetectorSettings] = DetectorSettings
    options: DetectorSettings

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Shows the fields of `settings_class` in the constructor's signature."""
        super().__init_subclass__(**kwargs)
        cls.__signature__ = None  # that of the class's own constructor
        if "settings_class" in vars(cls):
            _, backbone, num_classes, options = inspect.signature(Detector.__init__).parameters.values()
            settings = inspect.signature(cls.settings_class).parameters.values()
            cls.__signature__ = inspect.Signature([backbone, num_classes, *settings, options])

    def __init__(self, backbone: keras.Model, num_classes: int, **options: Any) -> None:
        names = {field.name for field in dataclasses.fields(self.settings_class)}
        super().__init__(**{name: value for name, value in options.items() if name not in names})
        if num_classes < 1:
            raise MisuseError(f"num_classes must be at least 1, received {num_classes}.")
        self.backbone = backbone
        self.num_classes = num_classes
        self.options = self.settings_class(**{name: value for name, value in options.items() if name in names})

    @property
    def settings(self) -> dict[str, Any]:
        """Constructor arguments by name, without the backbone and those of `keras.Model`."""
        return {"num_classes": self.num_classes, **dataclasses.asdict(self.options)}

    def call(self, inputs: tf.Tensor | dict[str, tf.Tensor], training: bool | None = False) -> dict[str, tf.Tensor]:
        """Returns the network's outputs; `inputs` is images or a batch dictionary."""
        images = inputs["images"] if isinstance(inputs, dict) else inputs
        return self.network(images, training=training)

    def candidates(
        self, outputs: dict[str, tf.Tensor], height: tf.Tensor, width: tf.Tensor, threshold: float
    ) -> tuple[tf.Tensor, ...]:
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
        threshold = self.options.score_threshold if score_threshold is None else score_threshold
        height, width = tf.shape(images)[1], tf.shape(images)[2]
        boxes, scores, classes = self.candidates(self(images, training=False), height, width, threshold)
        return best_detections(
            clip(boxes, [0, 0, height, width]),
            scores,
            classes,
            iou=self.options.iou_threshold if iou_threshold is None else iou_threshold,
            limit=max_detections or self.options.max_detections,
        )

    def get_config(self) -> dict[str, Any]:
        """Returns the config for `from_config`, including the backbone."""
        return {**super().get_config(), **self.settings, "backbone": keras.saving.serialize_keras_object(self.backbone)}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: dict[str, Any] | None = None) -> Self:
        """Creates a detector with fresh heads on the backbone of the config."""
        backbone = keras.saving.deserialize_keras_object(config["backbone"], custom_objects=custom_objects)
        return cls(**{**config, "backbone": backbone})
