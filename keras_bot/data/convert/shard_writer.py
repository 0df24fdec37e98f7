"""Atomic writing of one TFRecord shard in the ImageNet layout from an image folder."""

import collections
import concurrent.futures
import contextlib
import hashlib
import io
import os
import pathlib
import warnings
from collections.abc import Callable, Iterable, Iterator

import tensorflow as tf

from keras_bot.atomic_files import sync_folder
from keras_bot.data.sources.listing import Listing, printable
from keras_bot.errors import RunError

PARTIAL = ".partial"

_READERS = 8
_READ_AHEAD = 16
_FORMATS = ("JPEG", "PNG", "GIF", "BMP")
_CHUNK = 1 << 20


def write_shard(
    path: pathlib.Path,
    listing: Listing,
    order: Iterable[int],
    class_names: tuple[str, ...],
    first_label: int,
    on_image: Callable[[], None],
) -> dict:
    """Writes one shard to a temporary file, syncs it, reads it back for its checksum, and renames it.

    Args:
        path: path of the shard.
        listing: the images.
        order: indices of the images to write, in this order.
        class_names: one per label.
        first_label: the number stored for label 0.
        on_image: called after each image.

    Returns:
        {"bytes": the size, "sha256": the checksum in hex}.

    Raises:
        RunError: an image cannot be read.
        OSError, tf.errors.OpError: the shard cannot be written; the temporary file is removed.
    """
    partial = path.with_name(path.name.split("-of-")[0] + PARTIAL)  # not a shard name
    try:
        with tf.io.TFRecordWriter(os.fsencode(partial)) as writer, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns about odd headers
            for index, data in _read_ahead(listing, order):
                writer.write(_example(listing, index, data, class_names, first_label))
                on_image()
        entry = checksum(partial, sync=True)
        os.replace(partial, path)
    except BaseException:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise
    sync_folder(path.parent)
    return entry


def checksum(path: pathlib.Path, sync: bool = False) -> dict:
    """Returns size and SHA-256 of a file; `sync` flushes it to disk first."""
    digest, size = hashlib.sha256(), 0
    with open(path, "rb") as file:
        if sync:
            os.fsync(file.fileno())
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            size += len(chunk)
    return {"bytes": size, "sha256": digest.hexdigest()}


def _read_ahead(listing: Listing, order: Iterable[int]) -> Iterator[tuple[int, bytes]]:
    """Yields index and bytes of each image in order, reading a few ahead in parallel."""
    with concurrent.futures.ThreadPoolExecutor(_READERS) as pool:
        waiting: collections.deque = collections.deque()
        for index in order:
            waiting.append((index, pool.submit(_read, listing.path(index))))
            if len(waiting) > _READ_AHEAD:
                first, data = waiting.popleft()
                yield first, data.result()
        while waiting:
            first, data = waiting.popleft()
            yield first, data.result()


def _read(path: bytes) -> bytes:
    try:
        with open(path, "rb") as file:
            data = file.read()
    except OSError as error:
        raise RunError(
            f"Can't read {printable(os.fsdecode(path))}: {error.strerror}. Fix it and run the same command again; "
            "finished shards are kept."
        ) from error
    if not data:
        raise RunError(f"{printable(os.fsdecode(path))} became empty during the conversion. Restore it; run again.")
    return data


def _example(listing: Listing, index: int, data: bytes, class_names: tuple[str, ...], first_label: int) -> bytes:
    """Returns a tf.train.Example, serialised deterministically: the same bytes in every run."""
    label = listing.label(index)
    kind, height, width = _header(data)
    example = tf.train.Example()
    features = example.features.feature
    for name, text in (
        ("image/encoded", data),
        ("image/class/synset", os.fsencode(listing.folders[label])),
        ("image/class/text", class_names[label].encode()),
        ("image/filename", os.path.basename(listing.path(index))),
        ("image/format", kind.encode()),
    ):
        features[name].bytes_list.value.append(text)
    for name, number in (
        ("image/class/label", first_label + label),
        ("image/height", height),
        ("image/width", width),
    ):
        features[name].int64_list.value.append(number)
    return example.SerializeToString(deterministic=True)


def _header(data: bytes) -> tuple[str, int, int]:
    """Returns format, height and width in pixels from the header alone; "", 0, 0 if it cannot be parsed."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            kind = "JPEG" if image.format == "MPO" else image.format or ""  # a JPEG with an appended preview
            return kind, image.height, image.width
    except Exception:  # Pillow raises many types for a broken header; the file is copied regardless
        return "", 0, 0
