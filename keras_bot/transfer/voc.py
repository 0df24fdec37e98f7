"""Pascal VOC's layout, as labelling tools write it too:

    JPEGImages/NAME.jpg            (or .jpeg, .png, .bmp, .gif)
    Annotations/NAME.xml
    ImageSets/Main/SPLIT.txt       a NAME in each line
    classes.txt                    optional: the classes in the order of their numbers, one in each line

Without `classes.txt` the classes are all names in Annotations, sorted, which is VOC's own order. VOC counts pixels from
1 and includes the last: xmin becomes xmin - 1, xmax stays. A box whose corners coincide has no size.
"""

import collections
import pathlib
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence

import numpy as np
from PIL import Image

from keras_bot.errors import MisuseError, first_few, unknown
from keras_bot.transfer.annotations import Example, unknown_class
from keras_bot.transfer.detection_sets import EVAL_SPLITS, DetectionSet

CLASS_FILE = "classes.txt"
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif")

_FOLDERS = ("Annotations", "JPEGImages", "ImageSets/Main")


def is_voc(folder: pathlib.Path) -> bool:
    """Whether a folder means to have this layout."""
    return (folder / "ImageSets").is_dir() or (folder / "JPEGImages").is_dir()


def read_voc(folder: pathlib.Path, split: str, class_names: Sequence[str] | None = None) -> DetectionSet:
    """Read one split, or several joined by "+".

    Args:
        folder: with the layout above.
        split: the name of a list in ImageSets/Main, or names as in "train+val"; "eval" is the first of EVAL_SPLITS.
        class_names: see `open_detection`.

    Raises:
        MisuseError: see `open_detection`.
    """
    for name in _FOLDERS:
        if not (folder / name).is_dir():
            raise MisuseError(f"Expected a folder {name} in {folder}, as in Pascal VOC's layout. Add it.")
    splits = _splits(folder, split)
    names = _names([folder / f"ImageSets/Main/{one}.txt" for one in splits])
    files = {path.stem: path for path in sorted((folder / "JPEGImages").iterdir()) if path.suffix.lower() in SUFFIXES}
    for kind, missing in (
        ("image in JPEGImages", [name for name in names if name not in files]),
        ("XML file in Annotations", [name for name in names if not (folder / f"Annotations/{name}.xml").is_file()]),
    ):
        if missing:
            raise MisuseError(
                f"Expected an {kind} of {folder} for each line of ImageSets/Main/{{{','.join(splits)}}}.txt, received "
                f"none for {first_few(missing)}. Add the files or take the lines out."
            )
    classes = _classes(folder) if class_names is None else tuple(class_names)
    numbers = {name: number for number, name in enumerate(classes)}
    examples = tuple(_example(folder / f"Annotations/{name}.xml", files[name], numbers) for name in names)
    return DetectionSet(f"{folder} {'+'.join(splits)}", classes, examples)


def _splits(folder: pathlib.Path, split: str) -> list[str]:
    """The names of the lists that `split` means."""
    known = [path.stem for path in folder.glob("ImageSets/Main/*.txt")]
    splits = [name for name in EVAL_SPLITS if name in known][:1] if split == "eval" else split.split("+")
    for name in splits or [split]:
        if name not in known:
            raise unknown(f"split of {folder}", name, known)
    return splits


def _names(lists: Sequence[pathlib.Path]) -> list[str]:
    """The names in the lists of one split or more."""
    told = " and ".join(map(str, lists))
    names = [name for path in lists for name in _lines(path)]
    if not names:
        raise MisuseError(f"{told} is empty: expected the name of an image in each line. Fill it.")
    twice = [name for name, count in collections.Counter(names).items() if count > 1]
    if twice:
        raise MisuseError(f"{told} names {first_few(twice)} more than once: expected each image once. Mend it.")
    return names


def _classes(folder: pathlib.Path) -> tuple[str, ...]:
    """Those of `classes.txt`, or all that occur."""
    path = folder / CLASS_FILE
    if not path.is_file():
        found = {name for file in (folder / "Annotations").glob("*.xml") for name, _, _ in _objects(file, _parse(file))}
        if not found:
            raise MisuseError(f"No XML file in {folder / 'Annotations'} has an object. Name the classes in {path}.")
        return tuple(sorted(found))
    names = _lines(path)
    if not names or len(set(names)) < len(names):
        raise MisuseError(f"{path} is empty or names a class twice: expected a class in each line. Mend it.")
    return tuple(names)


def _lines(path: pathlib.Path) -> list[str]:
    """All lines that aren't blank, without the blanks around them."""
    try:
        text = path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise MisuseError(f"{path} can't be read as text: {error}. Mend it.") from None
    return [line.strip() for line in text.splitlines() if line.strip()]


def _parse(path: pathlib.Path) -> ElementTree.Element:
    try:
        return ElementTree.parse(path).getroot()
    except (OSError, ElementTree.ParseError) as error:
        raise MisuseError(f"{path} is no XML file that can be read: {error}. Mend it, or take it out.") from None


def _objects(path: pathlib.Path, root: ElementTree.Element) -> list[tuple[str, list[float], bool]]:
    """Name, box and difficulty of each object; parts of objects, as VOC's heads and hands, are passed over."""
    found = []
    for number, item in enumerate(root.findall("object"), 1):
        try:
            name = item.findtext("name", "").strip()
            x0, y0, x1, y1 = (float(item.findtext(f"bndbox/{edge}")) for edge in ("xmin", "ymin", "xmax", "ymax"))
            if not name or not np.isfinite([x0, y0, x1, y1]).all():
                raise ValueError
            difficult = bool(int(item.findtext("difficult") or 0))
        except (TypeError, ValueError):
            raise MisuseError(
                f"{path}, object {number}: expected a name and a bndbox of the numbers xmin, ymin, xmax, ymax. Mend it."
            ) from None
        box = [y1 if y1 <= y0 else y0 - 1, x1 if x1 <= x0 else x0 - 1, y1, x1]
        found.append((name, box, difficult))
    return found


def _example(path: pathlib.Path, image: pathlib.Path, numbers: dict[str, int]) -> Example:
    root = _parse(path)
    objects = _objects(path, root)
    for name, _, _ in objects:
        if name not in numbers:
            raise unknown_class(str(path), name, numbers)
    height, width = _shape(path, image, root)
    return Example(
        name=image.stem,
        path=str(image),
        height=height,
        width=width,
        boxes=np.array([box for _, box, _ in objects], np.float32).reshape(-1, 4),
        classes=np.array([numbers[name] for name, _, _ in objects], np.int32),
        difficult=np.array([difficult for _, _, difficult in objects], bool),
    )


def _shape(path: pathlib.Path, image: pathlib.Path, root: ElementTree.Element) -> tuple[int, int]:
    """Height and width of the image itself; what the XML says of a broken one, which the pipeline will meet."""
    try:
        with Image.open(image) as picture:
            return picture.height, picture.width
    except (OSError, ValueError, Image.DecompressionBombError):
        pass
    try:
        height, width = (int(root.findtext(f"size/{name}")) for name in ("height", "width"))
    except (TypeError, ValueError):
        height = width = 0
    if height < 1 or width < 1:
        raise MisuseError(f"{image} is no image that can be read, and {path} has no size. Mend or remove them.")
    return height, width
