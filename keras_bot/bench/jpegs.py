"""Photos for the input pipeline benchmarks: every JPEG below a folder, kept encoded in memory."""

import dataclasses
import os
import pathlib

import numpy as np
import tensorflow as tf

from keras_bot.data.sources.base import Source, cpu_constant, indices
from keras_bot.errors import MisuseError

SUFFIXES = (".jpg", ".jpeg")


@dataclasses.dataclass(frozen=True)
class Jpegs:
    """Encoded photos, sorted by path.

    Attributes:
        paths: file paths.
        images: file contents.
        labels: index of each file's folder in `class_names`.
        class_names: sorted names of the folders that contain the files.
    """

    paths: tuple[pathlib.Path, ...]
    images: tuple[bytes, ...]
    labels: tuple[int, ...]
    class_names: tuple[str, ...]

    def source(self, size: int) -> Source:
        """Returns a Source of `size` records, where record i is photo i % len(paths).

        It isn't `in_memory`: these images pass the guard against corrupt ones, as images from files do.
        """
        images, labels = cpu_constant(list(self.images)), cpu_constant(np.array(self.labels, np.int64))
        names = cpu_constant([str(path) for path in self.paths])

        def record_name(index: tf.Tensor) -> tf.Tensor:
            return tf.gather(names, index % len(self.paths))

        def read(index: tf.Tensor) -> dict[str, tf.Tensor]:
            at = index % len(self.paths)
            return {"image": tf.gather(images, at), "label": tf.gather(labels, at), "name": tf.gather(names, at)}

        return Source(
            name=f"{len(self.paths)} photos, repeated",
            num_classes=len(self.class_names),
            class_names=self.class_names,
            size=size,
            keys=indices(size),
            read=read,
            record_name=record_name,
        )


def read_jpegs(folder: str | pathlib.Path) -> Jpegs:
    """Reads every .jpg and .jpeg below a folder, at any depth.

    Raises:
        MisuseError: if the folder doesn't exist or contains no JPEG.
    """
    if not folder:
        raise MisuseError("Expected a folder of JPEGs, received none. Name one with --images=FOLDER.")
    root = pathlib.Path(folder).expanduser().absolute()
    if not root.is_dir():
        raise MisuseError(f"Expected a folder of JPEGs, received {folder}, which is none. Check --images.")
    found = (pathlib.Path(place, name) for place, _, names in os.walk(root) for name in names)
    paths = tuple(sorted(path for path in found if path.suffix.lower() in SUFFIXES))
    if not paths:
        raise MisuseError(f"Expected {' or '.join(SUFFIXES)} files below {folder}, received none. Check --images.")
    class_names = tuple(sorted({path.parent.name for path in paths}))
    number = {name: i for i, name in enumerate(class_names)}
    labels = tuple(number[path.parent.name] for path in paths)
    return Jpegs(paths, tuple(path.read_bytes() for path in paths), labels, class_names)
