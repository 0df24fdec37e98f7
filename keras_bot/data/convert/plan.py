"""Planning of a conversion, and detection of an earlier, unfinished run of it in the output folder."""

import hashlib
import json
import os
import pathlib
import stat
from typing import Any

from keras_bot.atomic_files import is_partial
from keras_bot.data.sources.folder import ImageFolder
from keras_bot.data.sources.listing import Listing, printable
from keras_bot.data.sources.manifest import FORMAT, MANIFEST, UNFINISHED
from keras_bot.errors import SHOWN, MisuseError, first_few

_SHARD_BYTES = 128 << 20
_MOST_SHARDS = 1024
_MOST_NUMBERED = 99_999


def survey(layout: ImageFolder, listings: dict[str, Listing]) -> tuple[dict[str, int], str]:
    """Checks every file and collects sizes and modification times.

    Returns:
        Bytes of each split's images, and a hex fingerprint of classes, names, sizes and modification times.

    Raises:
        MisuseError: files are empty or cannot be read; reports their number and the first few.
    """
    digest = hashlib.sha256(json.dumps([layout.folders, layout.class_names]).encode())
    root, sizes, count = os.fsencode(layout.root), dict.fromkeys(listings, 0), 0
    bad: list[str] = []
    for split, listing in listings.items():
        for index in range(len(listing)):
            path = listing.path(index)
            status, fault = _inspect(path)
            if status is None or fault:
                count += 1
                bad += [f"{printable(os.fsdecode(path))} ({fault})"] if count <= SHOWN else []
                continue
            sizes[split] += status.st_size
            digest.update(b"%s\0%d %d\n" % (path.removeprefix(root), status.st_size, status.st_mtime_ns))
    if bad:
        raise MisuseError(
            f"{count} files are not images: {first_few(bad, count)}. Fix or remove them, then run the same command "
            "again."
        )
    return sizes, digest.hexdigest()


def _inspect(path: bytes) -> tuple[os.stat_result | None, str]:
    """Returns a file's status, and the reason why it cannot be copied, or ""."""
    try:
        status = os.stat(path)
    except OSError as error:
        return None, error.strerror or str(error)
    if not stat.S_ISREG(status.st_mode):
        return status, "not a regular file"
    if not status.st_size:
        return status, "empty"
    return status, "" if os.access(path, os.R_OK) else "unreadable"


def plan_split(name: str, size: int, total_bytes: int, shards: int) -> dict:
    """Returns one split's section of the manifest, its shards still without size and checksum.

    Args:
        name: "train" or "validation".
        size: number of images.
        total_bytes: total size of the images.
        shards: number of shards; 0 is one per 128 MiB, at most 1024.

    Raises:
        MisuseError: `shards` is negative, or above the number of images or 99,999.
    """
    flag, most = "shards" if name == "train" else "validation_shards", min(size, _MOST_NUMBERED)
    if not 0 <= shards <= most:
        raise MisuseError(
            f"{flag} must be from 1 to {most} for {size} {name} images, received {shards}. 0 chooses it by size."
        )
    shards = shards or min(max(-(-total_bytes // _SHARD_BYTES), 1), _MOST_SHARDS, size)
    bounds = [i * size // shards for i in range(shards + 1)]
    entries = [{"file": f"{name}-{i:05}-of-{shards:05}", "records": bounds[i + 1] - bounds[i]} for i in range(shards)]
    return {"records": size, "shards": entries}


def read_earlier(out: pathlib.Path, layout: ImageFolder) -> dict:
    """Reads the manifest of an output folder, finished or not; returns {} if the folder is empty or missing.

    Raises:
        MisuseError: it is not a folder, contains other files, or is inside the image folder's splits.
    """
    image_folders = [layout.directory(split).resolve() for split in ("train", "eval")]
    if any(out.resolve().is_relative_to(folder) for folder in image_folders):
        raise MisuseError(f"{out} is inside the folders of images. Choose another output folder.")
    if out.exists() and not out.is_dir():
        raise MisuseError(f"{out} is a file. Choose a folder to write the shards to.")
    for name in (MANIFEST, UNFINISHED):
        if (out / name).is_file():
            return _read(out / name)
    others = [name for name in os.listdir(out) if not is_partial(name)] if out.is_dir() else []
    if others:
        raise MisuseError(
            f"{out} contains other files ({printable(min(others))!r}). Choose an empty folder, or one with an earlier "
            "run of this conversion."
        )
    return {}


def _read(path: pathlib.Path) -> dict:
    try:
        manifest = json.loads(path.read_bytes())
        if manifest["format"] == FORMAT and _without_checksums(manifest):
            return manifest
    except (ValueError, KeyError, TypeError, AttributeError):
        pass
    raise MisuseError(f"{path} is not a manifest of `keras-bot data convert` ({FORMAT}). Choose another folder.")


def check_same(out: pathlib.Path, earlier: dict, plan: dict) -> None:
    """Raises MisuseError if `earlier` is the manifest of another conversion than the one planned."""
    if not earlier or _without_checksums(earlier) == _without_checksums(plan):
        return
    splits = {"shards": "train", "validation_shards": "validation"}
    pairs: list[tuple[str, Any, Any]] = [("seed", earlier["conversion"].get("seed"), plan["conversion"]["seed"])]
    pairs += [("first_label", earlier.get("first_label"), plan["first_label"])]
    if earlier["conversion"].get("fingerprint") == plan["conversion"]["fingerprint"]:
        for flag, name in splits.items():
            old, new = (len(manifest["splits"][name]["shards"]) for manifest in (earlier, plan))
            pairs.append((flag, old, new))
    changes = [f"{name} was {old}, now it is {new}" for name, old, new in pairs if old != new]
    reason = "; ".join(changes) or "the image folder's classes, names, sizes or modification times have changed"
    raise MisuseError(f"{out} contains another conversion: {reason}. Choose another folder, or empty it.")


def _without_checksums(manifest: dict) -> dict:
    splits = {
        name: {**split, "shards": [{"file": s["file"], "records": s["records"]} for s in split["shards"]]}
        for name, split in manifest["splits"].items()
    }
    return {**manifest, "conversion": dict(manifest["conversion"]), "splits": splits}
