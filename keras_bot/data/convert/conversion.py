"""Conversion of an image folder to TFRecord shards in the ImageNet layout, with a manifest of sizes and checksums.

    OUT/train-00000-of-00008 … OUT/validation-00000-of-00001 … OUT/manifest.json

Until all shards exist the manifest is `manifest.partial.json`, rewritten after each shard. A conversion that was killed
resumes from it and produces the same bytes as an uninterrupted one. Images are stored unchanged, even if they cannot be
decoded; empty and unreadable files are reported before anything is written.
"""

import concurrent.futures
import contextlib
import fcntl
import json
import os
import pathlib
import shutil
from collections.abc import Callable, Iterator

import numpy as np
import tensorflow as tf

from keras_bot.atomic_files import remove_partials, replacing, sync_folder
from keras_bot.data.convert.plan import check_same, plan_split, read_earlier, survey
from keras_bot.data.convert.shard_writer import checksum, write_shard
from keras_bot.data.sources.folder import open_layout
from keras_bot.data.sources.listing import Listing, printable
from keras_bot.data.sources.manifest import FORMAT, MANIFEST, UNFINISHED
from keras_bot.errors import MisuseError, RunError

_RECORD_BYTES = 400  # approximate size of a record without its image

Progress = Callable[[int, int, str], None]


def convert(
    folder: str,
    out: str,
    *,
    shards: int = 0,
    validation_shards: int = 0,
    seed: int = 0,
    first_label: int = 0,
    progress: Progress = lambda done, images, shard: None,
) -> dict:
    """Writes the shards that are missing or incomplete.

    Args:
        folder: an image folder, as for `open_folder`.
        out: output folder, created if necessary: empty, or with an earlier run of the same conversion.
        shards: number of training shards, over which all training images are shuffled; 0 is one per 128 MiB.
        validation_shards: number of evaluation shards, whose images stay in order; 0 is one per 128 MiB.
        seed: seed of the shuffle, 0..2**32-1.
        first_label: number stored for the first class, 0 or 1.
        progress: called with (images done, total images, name of the finished shard or "") after each image and
            each shard.

    Returns:
        The contents of the manifest.

    Raises:
        MisuseError: the folder has a different layout or contains empty or unreadable files, or `out` contains
            other files.
        RunError: there is too little space, a read or write fails, or another process is converting to `out`.
    """
    if not 0 <= seed < 2**32:
        raise MisuseError(f"seed must be from 0 to {2**32 - 1}, received {seed}.")
    if first_label not in (0, 1):
        raise MisuseError(f"first_label must be 0 or 1, received {first_label}.")
    layout, target = open_layout(folder), pathlib.Path(out).expanduser()
    read_earlier(target, layout)  # rejects an unsuitable folder before the files are checked
    listings = {"train": layout.listing("train"), "validation": layout.listing("eval")}
    sizes, fingerprint = survey(layout, listings)
    counts = {"train": shards, "validation": validation_shards}
    plan = {
        "format": FORMAT,
        "class_names": list(layout.class_names),
        "class_folders": [printable(name) for name in layout.folders],
        "first_label": first_label,
        "conversion": {"seed": seed, "fingerprint": fingerprint},
        "splits": {name: plan_split(name, len(listings[name]), sizes[name], counts[name]) for name in listings},
    }
    with _write_errors(target), _locked(target):
        earlier = read_earlier(target, layout)
        check_same(target, earlier, plan)
        _complete(target, plan, earlier, listings, sum(sizes.values()), progress)
    return plan


def _complete(
    out: pathlib.Path, plan: dict, earlier: dict, listings: dict[str, Listing], size: int, progress: Progress
) -> None:
    """Completes the plan's checksums: keeps shards of `earlier` that are still valid and writes the others."""
    entries = {s["file"]: s for split in plan["splits"].values() for s in split["shards"]}
    images, done = sum(s["records"] for s in entries.values()), 0
    for name in _keep_finished(out, entries, earlier):
        done += entries[name]["records"]
        progress(done, images, name)
    if all("sha256" in s for s in entries.values()) and (out / MANIFEST).exists():
        return
    remove_partials(out)
    _check_space(out, size + _RECORD_BYTES * images - sum(s.get("bytes", 0) for s in entries.values()))
    _save(out, plan)
    (out / MANIFEST).unlink(missing_ok=True)

    def on_image() -> None:
        nonlocal done
        done += 1
        progress(done, images, "")

    names, first_label = tuple(plan["class_names"]), plan["first_label"]
    for split, listing in listings.items():
        for entry, order in _parts(split, plan):
            if "sha256" not in entry:
                entry |= write_shard(out / entry["file"], listing, order, names, first_label, on_image)
                _save(out, plan)
                progress(done, images, entry["file"])
    os.replace(out / UNFINISHED, out / MANIFEST)
    sync_folder(out)


def _parts(split: str, plan: dict) -> Iterator[tuple[dict, Iterator[int]]]:
    """Yields each shard of a split with the indices of its images, in order."""
    size, shards = plan["splits"][split]["records"], plan["splits"][split]["shards"]
    order = np.arange(size)
    if split == "train":
        np.random.RandomState(plan["conversion"]["seed"]).shuffle(order)  # its stream is frozen across NumPy versions
    start = 0
    for entry in shards:
        yield entry, map(int, order[start : start + entry["records"]])
        start += entry["records"]


def _keep_finished(out: pathlib.Path, entries: dict[str, dict], earlier: dict) -> Iterator[str]:
    """Copies size and checksum of each earlier shard whose file still matches; yields its name."""
    known = [s for split in earlier.get("splits", {}).values() for s in split["shards"] if "sha256" in s]

    def is_whole(shard: dict) -> bool:
        path = out / shard["file"]
        if not path.is_file() or path.stat().st_size != shard.get("bytes"):
            return False
        return checksum(path)["sha256"] == shard["sha256"]

    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for shard, whole in zip(known, pool.map(is_whole, known), strict=True):
            if whole:
                entries[shard["file"]] |= shard
                yield shard["file"]


def _save(out: pathlib.Path, plan: dict) -> None:
    """Replaces the unfinished manifest atomically."""
    with replacing(out / UNFINISHED) as file:
        file.write(json.dumps(plan, indent=1).encode("ascii"))


def _check_space(out: pathlib.Path, needed: int) -> None:
    free = shutil.disk_usage(out).free
    if free < needed:
        raise RunError(
            f"{out} has {free / 1e6:,.0f} MB free, but the shards take about {needed / 1e6:,.0f} MB. "
            "Make room, or choose a folder on another disk."
        )


@contextlib.contextmanager
def _locked(out: pathlib.Path) -> Iterator[None]:
    """Creates the folder if necessary and locks it; the lock is released when the process ends."""
    out.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(out, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunError(f"Another process is converting to {out}. Wait for it, or choose another folder.") from None
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _write_errors(out: pathlib.Path) -> Iterator[None]:
    """Converts write failures to a RunError."""
    try:
        yield
    except BrokenPipeError:  # raised by `progress`, not by writing to the folder
        raise
    except (OSError, tf.errors.OpError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise RunError(
            f"Can't write to {out}: {reason}. Fix that and run the same command again; finished shards are kept."
        ) from error
