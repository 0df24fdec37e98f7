"""In-memory sources: an .npz file, and synthetic noise for smoke tests and benchmarks."""

import os
import zipfile
import zlib

import numpy as np
import tensorflow as tf

from keras_bot.data.sources.base import Source, check_num_classes, cpu_constant, indices
from keras_bot.errors import MisuseError

_KEYS = ("x_train", "y_train", "x_test", "y_test")


def open_npz(path: str, split: str, num_classes: int) -> Source:
    """Opens one split of an .npz file with `x_train`, `y_train`, `x_test`, `y_test` and optionally `class_names`.

    Images are uint8 (N, H, W), (N, H, W, 1) or (N, H, W, 3); labels are integers (N,) or (N, 1). The images are
    kept once, in host memory, and never become part of a graph.

    Args:
        path: path of the file.
        split: "train" or "eval" (`x_test`, `y_test`).
        num_classes: 0 uses the number of `class_names`, or else the largest training label + 1.

    Raises:
        MisuseError: the file does not exist or is not an .npz, a key is missing, or an array has the wrong shape,
            dtype or values.
    """
    path = os.path.expanduser(path)
    part = "train" if split == "train" else "test"
    with _load(path) as arrays:
        missing = [key for key in _KEYS if key not in arrays]
        if missing:
            raise MisuseError(
                f"{path} lacks {', '.join(missing)}; it contains {', '.join(arrays.files) or 'nothing'}. Save the "
                f"arrays as {', '.join(_KEYS)} and optionally class_names."
            )
        labels = _labels(path, f"y_{part}", arrays)
        class_names = _class_names(path, arrays)
        if not class_names:
            count = num_classes or int(_labels(path, "y_train", arrays).max()) + 1
            class_names = tuple(str(i) for i in range(count))
        check_num_classes(path, num_classes, len(class_names))
        images = _images(path, f"x_{part}", arrays)
    if len(images) != len(labels):
        raise MisuseError(
            f"{path} has {len(images)} images in x_{part}, but {len(labels)} labels in y_{part}. Save both again from "
            "the same records."
        )
    if labels.max() >= len(class_names):
        raise MisuseError(
            f"{path}: labels in y_{part} must be from 0 to {len(class_names) - 1} for {len(class_names)} classes, "
            f"received {labels.max()}. Number the labels from 0, or correct num_classes."
        )
    return _source(path, part, images, labels, class_names)


def open_synthetic(split: str, num_classes: int, size: int, image_size: int) -> Source:
    """Returns a source of `size` uniform noise images with random labels, generated on read; the same in every run.

    Args:
        split: "train" or "eval", which have different images.
        num_classes: 0 means 1000, as in ImageNet.
        size: number of images.
        image_size: height and width.
    """
    if size < 1:
        raise MisuseError(f"synthetic_images must be at least 1, received {size}.")
    num_classes = num_classes or 1000
    stream = 0 if split == "train" else 1
    words = -(-image_size * image_size * 3 // 4)

    def record_name(index: tf.Tensor) -> tf.Tensor:
        return tf.strings.join(["synthetic[", tf.strings.as_string(index), "]"])

    def read(index: tf.Tensor) -> dict[str, tf.Tensor]:
        seed = tf.stack([tf.constant(2 + stream, tf.int64), index])
        label = tf.random.stateless_uniform([], seed, 0, num_classes, tf.int64)
        seed = tf.stack([tf.constant(stream, tf.int64), index])
        noise = tf.random.stateless_uniform([words], seed, None, None, tf.int32)
        pixels = tf.reshape(tf.bitcast(noise, tf.uint8), [-1])[: image_size * image_size * 3]
        image = tf.reshape(pixels, [image_size, image_size, 3])
        return {"image": image, "label": label, "name": record_name(index)}

    return Source(
        name=f"synthetic {split}",
        num_classes=num_classes,
        class_names=tuple(str(i) for i in range(num_classes)),
        size=size,
        keys=indices(size),
        read=read,
        record_name=record_name,
        in_memory=True,
    )


def _source(path: str, part: str, images: np.ndarray, labels: np.ndarray, class_names: tuple[str, ...]) -> Source:
    pixels, classes = cpu_constant(images), cpu_constant(labels)

    def record_name(index: tf.Tensor) -> tf.Tensor:
        return tf.strings.join([f"{part}[", tf.strings.as_string(index), "]"])

    def read(index: tf.Tensor) -> dict[str, tf.Tensor]:
        label = tf.gather(classes, index)
        return {"image": tf.gather(pixels, index), "label": label, "name": record_name(index)}

    return Source(
        name=f"{path} {part}",
        num_classes=len(class_names),
        class_names=class_names,
        size=len(images),
        keys=indices(len(images)),
        read=read,
        record_name=record_name,
        in_memory=True,
    )


def _load(path: str) -> np.lib.npyio.NpzFile:
    if not os.path.isfile(path):
        raise MisuseError(f"No file {path!r}. Check the path of the .npz file.")
    try:
        arrays = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        # NumPy's own message for a ValueError suggests pickle.
        reason = "it has another format or is truncated" if isinstance(error, ValueError) else error
        raise MisuseError(f"{path} is not an .npz file ({reason}). Save it with numpy.savez.") from error
    if not isinstance(arrays, np.lib.npyio.NpzFile):
        raise MisuseError(f"{path} contains a single array instead of {', '.join(_KEYS)}. Use numpy.savez.")
    return arrays


def _array(path: str, key: str, arrays: np.lib.npyio.NpzFile) -> np.ndarray:
    try:
        return arrays[key]
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise MisuseError(f"{path}: {key} can't be read ({error}). Save it as a plain array.") from error


def _images(path: str, key: str, arrays: np.lib.npyio.NpzFile) -> np.ndarray:
    images = _array(path, key, arrays)
    is_valid = images.ndim == 3 or (images.ndim == 4 and images.shape[-1] in (1, 3))
    if images.dtype != np.uint8 or not is_valid or 0 in images.shape:
        raise MisuseError(
            f"{path}: {key} must be uint8 (N, H, W, 3), (N, H, W, 1) or (N, H, W), received "
            f"{images.dtype} {images.shape}. Scale it to 0..255 and save it as uint8."
        )
    return images[..., np.newaxis] if images.ndim == 3 else images


def _labels(path: str, key: str, arrays: np.lib.npyio.NpzFile) -> np.ndarray:
    labels = _array(path, key, arrays)
    is_valid = labels.ndim == 1 or (labels.ndim == 2 and labels.shape[1] == 1)
    if labels.dtype.kind not in "iu" or not is_valid or not len(labels):
        raise MisuseError(
            f"{path}: {key} must be integers (N,) or (N, 1), received {labels.dtype} {labels.shape}. "
            "Save class indices, not one-hot rows or names."
        )
    labels = labels.reshape(-1).astype(np.int64)
    if labels.min() < 0:
        raise MisuseError(f"{path}: labels in {key} must be at least 0, received {labels.min()}. Number them from 0.")
    return labels


def _class_names(path: str, arrays: np.lib.npyio.NpzFile) -> tuple[str, ...]:
    if "class_names" not in arrays:
        return ()
    names = _array(path, "class_names", arrays)
    if names.ndim != 1 or names.dtype.kind not in "US":
        raise MisuseError(
            f"{path}: class_names must be strings (K,), received {names.dtype} {names.shape}. "
            "Save them as a NumPy array of str."
        )
    return tuple(name.decode() if isinstance(name, bytes) else str(name) for name in names)
