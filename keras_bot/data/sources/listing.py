"""Listing of the images in the class folders of one split, and a report of skipped entries.

Folders inside a class folder belong to it, and symbolic links are followed. Files without an image suffix, hidden
files and anything that is not a regular file are skipped.

A listing of millions of files is one byte string and an array of offsets, about 30 bytes per file.
"""

import dataclasses
import os
import pathlib
from collections import Counter
from collections.abc import Iterable, Iterator

import numpy as np

from keras_bot.data.decode import SUFFIXES
from keras_bot.errors import SHOWN, MisuseError, first_few, one_line

_LITTER = (".DS_Store", "Thumbs.db", "desktop.ini")  # left by file managers, not reported
_SUFFIXES = tuple(suffix.encode() for suffix in SUFFIXES)


@dataclasses.dataclass(frozen=True)
class Listing:
    """The images of one split, ordered by label and then by name.

    Attributes:
        directory: directory of the split.
        folders: names of the class folders, one per label.
        starts: index of each class's first image, int64 (K,).
        names: the file names relative to their class folders, concatenated.
        offsets: start of each name in `names`, and the end; int64 (N + 1,).
        skipped: a sentence on the skipped files, or "".
    """

    directory: pathlib.Path
    folders: tuple[str, ...]
    starts: np.ndarray
    names: bytes
    offsets: np.ndarray
    skipped: str = ""

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def label(self, index: int) -> int:
        """Returns the label of one image."""
        return int(np.searchsorted(self.starts, index, side="right")) - 1

    def path(self, index: int) -> bytes:
        """Returns the path of one image, as raw file system bytes."""
        name = self.names[self.offsets[index] : self.offsets[index + 1]]
        return os.path.join(os.fsencode(self.directory / self.folders[self.label(index)]), name)


def subfolders(directory: pathlib.Path) -> list[str]:
    """Returns the sorted names of the non-hidden folders in a directory; [] if it does not exist."""
    if not directory.is_dir():
        return []
    with os.scandir(directory) as entries:
        return sorted(e.name for e in entries if e.is_dir() and not e.name.startswith("."))


def list_images(directory: pathlib.Path, folders: tuple[str, ...]) -> Listing:
    """Lists the images of one split.

    Args:
        directory: directory of the split.
        folders: names of the class folders, one per label; some may be missing.

    Raises:
        MisuseError: a class folder has no images or is not in `folders`, or there are no class folders.
        OSError: a folder cannot be read.
    """
    present = subfolders(directory)
    for name in present:
        if name not in folders:
            raise MisuseError(
                f"Class {name!r} is in {directory} but not in {directory.parent / 'train'}. Remove it, or add its "
                "training images."
            )
    if not present:
        raise MisuseError(f"{directory} has no class folders. Add those of train: {', '.join(folders[:5])}.")
    skipped = _Skipped()
    with os.scandir(os.fsencode(directory)) as entries:
        others = (entry for entry in entries if not entry.is_dir() or entry.name.startswith(b"."))
        skipped.extend(others, images="outside a class folder")
    names, lengths, counts = [], [], []
    for folder in folders:
        files = _image_files(directory, folder, skipped) if folder in present else []
        names.append(b"".join(files))
        lengths.append(np.fromiter(map(len, files), np.int64, len(files)))
        counts.append(len(files))
    offsets = np.concatenate([[0], *lengths]).astype(np.int64, copy=False)
    return Listing(
        directory=directory,
        folders=folders,
        starts=np.cumsum([0, *counts[:-1]], dtype=np.int64),
        names=b"".join(names),
        offsets=np.cumsum(offsets, out=offsets),
        skipped=skipped.sentence(directory),
    )


def _image_files(directory: pathlib.Path, folder: str, skipped: "_Skipped") -> list[bytes]:
    """Returns the sorted paths of the images, relative to their class folder."""
    path, before = os.fsencode(directory / folder), skipped.count
    files = sorted(_walk(path, b"", skipped, ()))
    if not files:
        others = f" but {skipped.count - before} other files" if skipped.count > before else ""
        raise MisuseError(
            f"Class folder {directory / folder} contains no images{others}. Add {', '.join(SUFFIXES)} files, "
            "or remove the folder."
        )
    return files


def _walk(path: bytes, prefix: bytes, skipped: "_Skipped", parents: tuple) -> Iterator[bytes]:
    """Yields the images below a folder, as paths relative to the class folder; skips links to a parent folder."""
    status = os.stat(path)
    parents = (*parents, (status.st_dev, status.st_ino))
    with os.scandir(path) as entries:
        for entry in entries:
            is_hidden = entry.name.startswith(b".")
            if not is_hidden and entry.is_dir():
                below = os.stat(entry.path)
                if (below.st_dev, below.st_ino) in parents:
                    skipped.extend([entry])
                else:
                    yield from _walk(entry.path, prefix + entry.name + b"/", skipped, parents)
            elif not is_hidden and entry.name.lower().endswith(_SUFFIXES) and _is_readable(entry):
                yield prefix + entry.name
            else:
                skipped.extend([entry])


def _is_readable(entry: os.DirEntry) -> bool:
    """Returns whether it is a file or a dangling link, which counts as a corrupt image. Reading a pipe would block."""
    return entry.is_file() or not os.path.exists(entry.path)


class _Skipped:
    """Counter of entries that are not images, with the first few paths."""

    def __init__(self):
        self.count = 0
        self._kinds: Counter[str] = Counter()
        self._paths: list[bytes] = []

    def extend(self, entries: Iterable[os.DirEntry], images: str = "not regular files") -> None:
        """Counts entries not left by file managers; `images` is the reason reported for those with an image suffix."""
        for entry in entries:
            name = printable(os.fsdecode(entry.name))
            if name in _LITTER or name.startswith("._"):
                continue
            is_folder = entry.is_dir()
            is_named_so = name.lower().endswith(SUFFIXES)
            kind = "folders" if is_folder else images if is_named_so else pathlib.PurePath(name).suffix
            self._kinds["hidden" if name.startswith(".") else kind or "no suffix"] += 1
            self.count += 1
            if len(self._paths) < SHOWN:
                self._paths.append(entry.path + b"/" * is_folder)

    def sentence(self, directory: pathlib.Path) -> str:
        """Returns a summary of the skipped entries by kind, with the first few names; "" if there are none."""
        if not self.count:
            return ""
        kinds = ", ".join(f"{kind}: {count}" for kind, count in self._kinds.most_common(5))
        root = os.fsencode(directory) + b"/"
        names = [one_line(printable(os.fsdecode(path.removeprefix(root)))) for path in self._paths]
        count = "1 entry" if self.count == 1 else f"{self.count} entries"
        return f"skipped {count} of {directory}, not images ({kinds}): {first_few(names, self.count)}"


def printable(name: str) -> str:
    """Returns a file name as valid Unicode text: bytes that are not UTF-8 are replaced."""
    return os.fsencode(name).decode("utf-8", "replace")
