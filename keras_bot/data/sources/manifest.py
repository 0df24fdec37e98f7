"""Reading and validation of the `manifest.json` that `keras-bot data convert` writes for TFRecord shards."""

import json
import os
import pathlib
from typing import Any

from keras_bot.data.sources.record_files import Records, measure, truncation
from keras_bot.errors import MisuseError, RunError

FORMAT = "keras_bot tfrecord 1"
MANIFEST = "manifest.json"
UNFINISHED = "manifest.partial.json"


def read_manifest(root: pathlib.Path, split: str) -> tuple[list[Records], tuple[str, ...], int]:
    """Returns the shards with their records, the class names and the first label, after checking the file sizes."""
    name = "train" if split == "train" else "validation"
    try:
        manifest = json.loads((root / MANIFEST).read_bytes())
        if manifest["format"] != FORMAT:
            raise ValueError(f"format {manifest['format']!r}")
        names, first_label = tuple(manifest["class_names"]), int(manifest["first_label"])
        part = manifest["splits"].get(name, {"shards": [], "records": 0})
        shards = [(root / shard["file"], int(shard["records"]), int(shard["bytes"])) for shard in part["shards"]]
        _check_manifest(manifest["class_names"], first_label, part, shards)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise MisuseError(
            f"{root / MANIFEST} can't be read as a manifest of `keras-bot data convert` ({FORMAT}): "
            f"{type(error).__name__}: {error}. Convert again."
        ) from error
    if not shards:
        raise MisuseError(f"{root / MANIFEST} lists no {name} shards. Convert a folder that has {name} images.")
    for path, _, size in shards:
        if not path.is_file():
            raise MisuseError(f"{path} is missing: {MANIFEST} lists {len(shards)} shards. Copy it again.")
        received = path.stat().st_size
        if received < size:
            raise RunError(truncation(str(path), measure(str(path))[1], size))
        if received > size:
            raise RunError(f"{path} has {received} bytes, but {MANIFEST} lists {size}. Copy it again.")
    return [Records(str(path), 0, records) for path, records, _ in shards], names, first_label


def _check_manifest(names: Any, first_label: int, part: dict, shards: list[tuple[pathlib.Path, int, int]]) -> None:
    """Raises ValueError for contents that `convert` never writes."""
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError("class_names is not a list of names")
    files = [shard["file"] for shard in part["shards"]]
    if len(set(files)) < len(files) or any(file != os.path.basename(file) for file in files):
        raise ValueError("a shard is listed twice, or is in another folder")
    if first_label not in (0, 1) or any(records < 1 for _, records, _ in shards):
        raise ValueError("first_label is neither 0 nor 1, or a shard has no records")
    if part["records"] != sum(records for _, records, _ in shards):
        raise ValueError(f"the shards do not have {part['records']} records in total")
