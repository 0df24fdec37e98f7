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

        It is not marked `in_memory`, so that the images are checked for corruption like images from files.
        """
        images, labels = cpu_constant(list(self.images)), cpu_constant(np.array(self.labels, np.int64))
        names = cpu_constant([str(path) for path in self.paths])

        def record_name(index: tf.Tensor) -> tf.Tensor:
            return tf.gather(names, index % len(self.paths))

        def read(index: tf.Tensor) -> dict[str, tf.Tensor]:
            photo = index % len(self.paths)
            return {
                "image": tf.gather(images, photo),
                "label": tf.gather(labels, photo),
                "name": tf.gather(names, photo),
            }

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
        raise MisuseError("--images is required: a folder of JPEGs.")
    root = pathlib.Path(folder).expanduser().absolute()
    if not root.is_dir():
        raise MisuseError(f"--images={folder} is not a folder.")
    files = (pathlib.Path(parent, name) for parent, _, names in os.walk(root) for name in names)
    paths = tuple(sorted(path for path in files if path.suffix.lower() in SUFFIXES))
    if not paths:
        raise MisuseError(f"--images={folder} contains no {' or '.join(SUFFIXES)} files.")
    class_names = tuple(sorted({path.parent.name for path in paths}))
    number = {name: i for i, name in enumerate(class_names)}
    labels = tuple(number[path.parent.name] for path in paths)
    return Jpegs(paths, tuple(path.read_bytes() for path in paths), labels, class_names)
