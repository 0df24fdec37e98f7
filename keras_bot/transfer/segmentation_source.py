"""Images with a mask each, from a folder: `open_segmentation` -> `SegmentationSource`.

Two layouts are known, each with a list of names for every split:

    images/NAME.jpg      masks/NAME.png               train.txt, val.txt
    JPEGImages/NAME.jpg  SegmentationClass/NAME.png   ImageSets/Segmentation/train.txt, val.txt     (Pascal VOC)

A list holds one name a line, with or without the image's suffix. `classes.csv` beside them has a header, then a line
for each id of the masks: id, name, and perhaps the colour as r, g, b. Masks are PNG, grey, or with a
palette whose indices are the ids. Classes are numbered 0..K-1 in the order of their ids; an ignored id becomes 255.
"""

import csv
import dataclasses
import hashlib
import os
import pathlib
import struct
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import tensorflow as tf

from keras_bot.data.folder import SUFFIXES
from keras_bot.data.source import cpu_constant, indices
from keras_bot.errors import MisuseError, RunError, first_few
from keras_bot.transfer.pictures import class_colors

IGNORE = 255
UNKNOWN = 256  # of a pixel that is no id: 16 bits, or a colour

_IGNORED_NAMES = ("unlabelled", "unlabeled", "void", "ignore", "ignored")
_LAYOUTS = (("images", "masks", "."), ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"))
_EVAL_LISTS = ("val", "validation", "test")
_EXPECTED = "expected images/NAME.jpg, masks/NAME.png and lists train.txt and val.txt, or Pascal VOC's layout"
_FORM = "expected a header, then a line for each id: id, name, and perhaps r, g, b"


@dataclasses.dataclass(frozen=True)
class SegmentationSource:
    """A split of images and masks.

    Attributes:
        name: of the folder, with the split.
        class_names: of the classes that aren't ignored.
        class_ids: the id of each class in the masks, ascending.
        palette: a colour for each class, uint8 (K, 3): that of `classes.csv`, else one of `pictures.class_colors`.
        ignored: ids in the masks that count as unlabelled.
        image_files, mask_files: their paths, in the order of the list.
    """

    name: str
    class_names: tuple[str, ...]
    class_ids: tuple[int, ...]
    palette: np.ndarray
    ignored: tuple[int, ...]
    image_files: tuple[str, ...]
    mask_files: tuple[str, ...]

    @property
    def size(self) -> int:
        """The number of images."""
        return len(self.image_files)

    @property
    def num_classes(self) -> int:
        """K; masks hold 0..K-1 and 255."""
        return len(self.class_ids)

    @property
    def keys(self) -> Callable[..., tf.data.Dataset]:
        """The order of a pass; see `data.source.Source.keys`."""
        return indices(self.size)

    def class_table(self) -> np.ndarray:
        """The class of every id in a mask, int32 (257,): 0..K-1, 255 where ignored, -1 for an unknown id."""
        table = np.full(UNKNOWN + 1, -1, np.int32)
        table[list(self.ignored)] = IGNORE
        table[list(self.class_ids)] = np.arange(self.num_classes)
        return table

    def read(self, index: tf.Tensor) -> dict[str, tf.Tensor]:
        """In a graph: the files' bytes, {"image", "mask": string}."""
        files = {"image": self.image_files, "mask": self.mask_files}
        paths = {kind: cpu_constant(list(map(os.fsencode, names))) for kind, names in files.items()}
        return {kind: tf.io.read_file(tf.gather(names, index)) for kind, names in paths.items()}

    def fingerprint(self, samples: int = 16) -> str:
        """A checksum of the classes and of so many pairs as they are stored, as `data.source.Source.fingerprint`."""
        digest = hashlib.sha256(repr((self.class_names, self.class_ids, self.ignored, self.size)).encode())
        for place in np.unique(np.linspace(0, self.size - 1, samples, dtype=np.int64)):
            for path in (self.image_files[place], self.mask_files[place]):
                digest.update(pathlib.Path(path).read_bytes())
        return digest.hexdigest()[:16]

    def record_name(self, index: tf.Tensor) -> tf.Tensor:
        """Index or indices -> path of the image and of its mask, in a graph."""
        pairs = [f"{image}, {mask}" for image, mask in zip(self.image_files, self.mask_files, strict=True)]
        return tf.gather(cpu_constant(list(map(os.fsencode, pairs))), index)

    def largest(self) -> tuple[int, int]:
        """The greatest height and the greatest width of all masks, by their files' headers.

        Raises:
            RunError: a mask is no PNG.
        """
        sizes = np.array([png_size(path) for path in self.mask_files])
        return int(sizes[:, 0].max()), int(sizes[:, 1].max())


def open_segmentation(
    dataset: str | os.PathLike, split: str = "train", *, num_classes: int = 0, ignore: Sequence[int] | None = None
) -> SegmentationSource:
    """Open one split; files are looked up, but not read.

    Args:
        dataset: a folder; see the module.
        split: the name of a list; "eval" is the first there is of val, validation and test.
        num_classes: 0, or what is expected. Without `classes.csv` it must be given: the classes are then the ids from
            0 on that aren't ignored.
        ignore: ids that count as unlabelled, as 255 does unless `classes.csv` has it. None: those that it calls
            unlabelled, void or ignore.

    Raises:
        MisuseError: the folder has another layout, a list is missing or empty, an image or a mask is missing,
            `classes.csv` has another form, or the number of classes differs.
    """
    root = pathlib.Path(dataset).expanduser()
    images, masks, lists = _layout(root)
    path = _list_file(lists, split)
    names = _names(path)
    classes = _classes(root, num_classes, ignore or ())
    ignored = _ignored(root, classes, ignore)
    ids = tuple(i for i in classes if i not in ignored)
    if len(ids) != (num_classes or len(ids)) or not 0 < len(ids) <= IGNORE:
        raise MisuseError(
            f"Expected {num_classes or '1 to 255'} classes, but {root} has {len(ids)} beside the ignored ids "
            f"{', '.join(map(str, ignored))}. Set num_classes to that, or name other ids to ignore."
        )
    colours = zip(ids, class_colors(len(ids)), strict=True)
    return SegmentationSource(
        name=f"{root} {split}",
        class_names=tuple(classes[i][0] for i in ids),
        class_ids=ids,
        palette=np.array([classes[i][1] or colour for i, colour in colours], np.uint8),
        ignored=ignored,
        image_files=_find(path, names, images, SUFFIXES, "image"),
        mask_files=_find(path, map(_stem, names), masks, (".png",), "mask"),
    )


def png_size(path: str) -> tuple[int, int]:
    """Height and width by a PNG's header. Raises RunError for another file."""
    with open(path, "rb") as file:
        header = file.read(24)
    if header[:8] != b"\x89PNG\r\n\x1a\n" or len(header) < 24:
        raise RunError(f"Expected a PNG, received {path}, which is none. Save the mask as PNG; JPEG changes ids.")
    return struct.unpack(">II", header[16:24])[::-1]


def _layout(root: pathlib.Path) -> tuple[pathlib.Path, pathlib.Path, pathlib.Path]:
    if not root.is_dir():
        raise MisuseError(f"No folder {str(root)!r}: {_EXPECTED}. Check the path.")
    for images, masks, lists in _LAYOUTS:
        if (root / images).is_dir() and (root / masks).is_dir():
            return root / images, root / masks, root / lists
    raise MisuseError(f"{root} has no folders images and masks: {_EXPECTED}. Sort the files so.")


def _list_file(lists: pathlib.Path, split: str) -> pathlib.Path:
    tried = [lists / f"{name}.txt" for name in (_EVAL_LISTS if split == "eval" else (split,))]
    for path in filter(pathlib.Path.is_file, tried):
        return path
    told = " or ".join(map(str, tried))
    raise MisuseError(f"No list for the split {split!r}: expected {told}. Write one, a name a line.")


def _names(path: pathlib.Path) -> list[str]:
    try:
        names = [line.strip() for line in path.read_text("utf-8-sig").splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise MisuseError(f"Expected {path} in UTF-8, received other bytes ({error.reason}). Save it so.") from None
    if not names:
        raise MisuseError(f"Expected names in {path}, a name a line, received an empty list. Fill it.")
    return names


def _stem(name: str) -> str:
    return os.path.splitext(name)[0] if name.lower().endswith(SUFFIXES) else name


def _find(
    path: pathlib.Path, names: Iterable[str], folder: pathlib.Path, suffixes: tuple[str, ...], kind: str
) -> tuple[str, ...]:
    """The file of each name, which may lack its suffix and may have folders in front."""
    known: dict[str, dict[str, str]] = {}

    def files(parent: str) -> dict[str, str]:
        if parent not in known:
            where = folder / parent
            entries = sorted(os.listdir(where), reverse=True) if where.is_dir() else []
            right = [e for e in entries if e.lower().endswith(suffixes)]
            known[parent] = {os.path.splitext(e)[0]: e for e in right} | {e: e for e in right}
        return known[parent]

    found, missing = [], []
    for name in names:
        parent, base = os.path.split(name)
        file = files(parent).get(base)
        missing += [] if file else [name]
        found.append(os.path.join(folder, parent, file or ""))
    if missing:
        raise MisuseError(
            f"{path} names {len(missing)} of which there is no {kind} in {folder}: {first_few(missing)}. "
            f"Expected {', '.join(suffixes)} files. Add them, or take the names out."
        )
    return tuple(found)


def _classes(root: pathlib.Path, num_classes: int, ignore: Sequence[int]) -> dict[int, tuple[str, tuple | None]]:
    """id -> (name, colour or None), ascending."""
    path = root / "classes.csv"
    if not path.is_file():
        if num_classes < 1:
            raise MisuseError(f"Expected {path}: {_FORM}. Write it, or say num_classes for ids from 0 on.")
        return {i: (f"class{i}", None) for i in [i for i in range(UNKNOWN) if i not in ignore][:num_classes]}
    classes = {}
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            rows = [row for row in csv.reader(file, strict=True) if any(cell.strip() for cell in row)][1:]
        for row in rows:
            index, colour = int(row[0]), tuple(int(cell) for cell in row[2:5])
            if not 0 <= index < UNKNOWN or index in classes or len(colour) not in (0, 3) or not row[1].strip():
                raise ValueError(",".join(row))
            np.array(colour, np.uint8)
            classes[index] = (row[1].strip(), colour or None)
    except (ValueError, OverflowError, IndexError, csv.Error) as error:
        raise MisuseError(
            f"{path} has another form, see {str(error)!r}: {_FORM}, each id once in 0..255. Mend it."
        ) from None
    return dict(sorted(classes.items()))


def _ignored(root: pathlib.Path, classes: dict, ignore: Sequence[int] | None) -> tuple[int, ...]:
    if ignore is None:
        ignore = [i for i, (name, _) in classes.items() if name.lower() in _IGNORED_NAMES]
    wrong = [str(i) for i in ignore if not 0 <= i < UNKNOWN]
    if wrong:
        raise MisuseError(f"Expected ids to ignore in 0..255 for {root}, received {', '.join(wrong)}. Mend them.")
    return tuple(sorted({*ignore, *(() if IGNORE in classes else (IGNORE,))}))
