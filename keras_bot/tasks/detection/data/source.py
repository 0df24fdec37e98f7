"""Detection data: images with boxes behind one interface, from files or from TFDS.

Boxes are y0, x0, y1, x1 in pixels of their image, cleaned as described in `annotations`.
"""

import dataclasses
import hashlib
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from keras_bot.data.sources.base import sample
from keras_bot.tasks.detection.data.annotations import Annotations


@dataclasses.dataclass(frozen=True)
class DetectionSource:
    """One split of a data set, with the part of `Source` that the handling of broken images in `keras_bot.data` needs.

    Attributes:
        name: the data set as the user named it, with the split.
        class_names: one name per class.
        size: number of images.
        annotations: boxes of the images in natural order.
        keys: as `Source.keys`: `keys(seed, buffer, first=0)` -> data set of tuples of scalars.
        read: function from the parts of a key to {"image": encoded bytes, "index": int64 in natural order, "boxes":
            float32 (n, 4), "classes": int32 (n,), "difficult": bool (n,)}. Runs in parallel, in a graph.
        record_name: function from the parts of a key, or of a batch of keys, to a name; works for unreadable images.
        dropped: one line per box without an area inside its image.
        clipped: one line per box that extended more than one pixel beyond its image.
        train_on_difficult: whether boxes marked difficult are used in training: VOC's are single objects, COCO's
            crowds are not.
    """

    name: str
    class_names: tuple[str, ...]
    size: int
    annotations: Annotations
    keys: Callable[..., tf.data.Dataset]
    read: Callable[..., dict[str, tf.Tensor]]
    record_name: Callable[..., tf.Tensor]
    dropped: tuple[str, ...] = ()
    clipped: tuple[str, ...] = ()
    train_on_difficult: bool = True

    @property
    def num_classes(self) -> int:
        """Number of classes; class ids are 0..num_classes-1."""
        return len(self.class_names)

    @property
    def max_boxes(self) -> int:
        """Maximum number of boxes per image."""
        return int(np.diff(self.annotations.offsets).max(initial=0))

    def fingerprint(self, samples: int = 16) -> str:
        """Returns a checksum of all boxes and of `samples` encoded images, as in `Source.fingerprint`."""
        digest = hashlib.sha256()
        for name in ("offsets", "classes", "boxes"):
            digest.update(getattr(self.annotations, name).tobytes())
        for record in sample(self, samples):
            digest.update(record["image"].numpy() if record else b"unreadable")
        return digest.hexdigest()[:16]
