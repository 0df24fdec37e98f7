"""Pascal VOC's layout, which labelling tools also write:

    JPEGImages/NAME.jpg            (or another suffix of `keras_bot.data.decode`)
    Annotations/NAME.xml
    ImageSets/Main/SPLIT.txt       one NAME per line
    classes.txt                    optional: the classes in the order of their numbers, one per line

Without `classes.txt` the classes are all names in Annotations, sorted, which is VOC's own order. VOC counts pixels from
1 and includes the last one: xmin becomes xmin - 1, xmax is kept. A box whose corners coincide has no size.

A line of a list may also be a file name or path (NAME.jpg, JPEGImages/NAME.jpg). VOC's lists for single classes, such
as `aeroplane_train.txt`, have a second column of -1, 0 or 1. It is ignored: every image is in the split. The `<size>`
in an XML file must match the image, unless it is missing or 0.
"""

import collections
import pathlib
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Sequence

import numpy as np

from keras_bot.data.decode import SUFFIXES
from keras_bot.errors import MisuseError, first_few, unknown
from keras_bot.tasks.detection.data.annotation_checks import (
    SizeMismatch,
    files_of_other_types,
    image_size,
    refuse_mismatches,
    refuse_normalised,
)
from keras_bot.tasks.detection.data.annotations import Example, unknown_class
from keras_bot.tasks.detection.data.sets import EVAL_SPLITS, DetectionSet

CLASS_FILE = "classes.txt"

_FOLDERS = ("Annotations", "JPEGImages", "ImageSets/Main")
_FLAGGED = re.compile(r"(\S.*?)\s+(?:-1|0|1)")  # line of a single-class list: name and presence


def is_voc(folder: pathlib.Path) -> bool:
    """Returns whether a folder looks like this layout."""
    return (folder / "ImageSets").is_dir() or (folder / "JPEGImages").is_dir()


def read_voc(folder: pathlib.Path, split: str, class_names: Sequence[str] | None = None) -> DetectionSet:
    """Reads one split, or several joined by "+".

    Args:
        folder: a folder in the layout above.
        split: name of a list in ImageSets/Main, or several as in "train+val"; "eval" is the first existing one of
            EVAL_SPLITS.
        class_names: see `open_detection`.

    Raises:
        MisuseError: See `open_detection`.
    """
    for name in _FOLDERS:
        if not (folder / name).is_dir():
            raise MisuseError(f"{folder} has no folder {name}, which Pascal VOC's layout has. Add it.")
    splits = _splits(folder, split)
    images = _listed_images(folder, [folder / f"ImageSets/Main/{one}.txt" for one in splits])
    without = [image.stem for image in images if not (folder / f"Annotations/{image.stem}.xml").is_file()]
    if without:
        raise _missing(folder, splits, "XML file in Annotations", without)
    classes = _classes(folder) if class_names is None else tuple(class_names)
    numbers = {name: number for number, name in enumerate(classes)}
    examples = _examples(folder, images, numbers)
    name = f"{folder} {'+'.join(splits)}"
    boxes = np.concatenate([example.boxes for example in examples])
    sized = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
    refuse_normalised(name, boxes[sized, 2:], [(example.width, example.height) for example in examples])
    return DetectionSet(name, classes, examples)


def _missing(
    folder: pathlib.Path, splits: Sequence[str], kind: str, names: Sequence[str], more: str = ""
) -> MisuseError:
    lists = " and ".join(f"{split}.txt" for split in splits)
    return MisuseError(
        f"{folder} has no {kind} for {first_few(names)}, listed in ImageSets/Main/{lists}.{more} Add the files, or "
        "remove the lines."
    )


def _splits(folder: pathlib.Path, split: str) -> list[str]:
    """Returns the names of the lists that `split` selects."""
    known = [path.stem for path in folder.glob("ImageSets/Main/*.txt")]
    splits = [name for name in EVAL_SPLITS if name in known][:1] if split == "eval" else split.split("+")
    for name in splits or [split]:
        if name not in known:
            raise unknown(f"split of {folder}", name, known)
    return splits


def _listed_images(folder: pathlib.Path, lists: Sequence[pathlib.Path]) -> list[pathlib.Path]:
    """Returns the images in the lists of one or more splits."""
    names = " and ".join(map(str, lists))
    files = _image_files(folder / "JPEGImages")
    found = [(line, image) for path in lists for line, image in _lookup(folder, _lines(path), files)]
    if not found:
        raise MisuseError(f"{names} is empty. Write the name of one image per line.")
    missing = [line for line, images in found if not images]
    if missing:
        spellings = [name for line in missing for name in (line, pathlib.PurePath(line).name)]
        more = files_of_other_types(folder / "JPEGImages", spellings)
        raise _missing(folder, [path.stem for path in lists], "image in JPEGImages", missing, more)
    for line, images in found:
        if len(images) > 1:
            raise MisuseError(
                f"{names}: {line!r} is the name of {len(images)} files in {folder / 'JPEGImages'}: "
                f"{first_few([image.name for image in images])}. Write the suffix in the list, or keep one file."
            )
    images = [images[0] for _, images in found]
    twice = [name for name, count in collections.Counter(image.stem for image in images).items() if count > 1]
    if twice:
        raise MisuseError(f"{names} lists {first_few(twice)} more than once. Remove the repeated lines.")
    return images


def _image_files(folder: pathlib.Path) -> dict[str, list[pathlib.Path]]:
    """Maps names, with and without suffix, to images in a folder; several images may share a name without suffix."""
    images = [path for path in sorted(folder.iterdir()) if path.suffix.lower() in SUFFIXES and path.name[0] != "."]
    files: dict[str, list[pathlib.Path]] = {}
    for path in images:
        files.setdefault(path.stem, []).append(path)
    return files | {path.name: [path] for path in images}


def _lookup(
    folder: pathlib.Path, lines: Sequence[str], files: dict[str, list[pathlib.Path]]
) -> Iterator[tuple[str, list[pathlib.Path]]]:
    """Yields each line of one list with the images that it names."""
    flagged = all(matches := [_FLAGGED.fullmatch(line) for line in lines])
    for line, match in zip(lines, matches, strict=True):
        spellings = [line, *(match.groups() if match and flagged else ())]
        spellings = [name for text in spellings for name in (text, _name_of_path(folder, text))]
        yield line, next((files[name] for name in spellings if name in files), [])


def _name_of_path(folder: pathlib.Path, text: str) -> str:
    """Returns the file name in a path into JPEGImages, as in JPEGImages/1.jpg or ./1.jpg; "" for other text."""
    images, path = folder / "JPEGImages", text.replace("\\", "/")
    if "/" not in path:
        return ""
    inside = any((start / path).parent.resolve() == images.resolve() for start in (images, folder))
    return pathlib.PurePath(path).name if inside else ""


def _classes(folder: pathlib.Path) -> tuple[str, ...]:
    """Returns the classes in `classes.txt`, or all names in the annotations, sorted."""
    path = folder / CLASS_FILE
    if not path.is_file():
        found = {name for file in _xml_files(folder) for name, _, _ in _objects(file, _parse(file))}
        if not found:
            raise MisuseError(
                f"No XML file in {folder / 'Annotations'} has an object. Write the class names to {path}."
            )
        return tuple(sorted(found))
    names = _lines(path)
    if not names or len(set(names)) < len(names):
        raise MisuseError(f"{path} is empty or contains a class twice. Write one class name per line.")
    return tuple(names)


def _xml_files(folder: pathlib.Path) -> list[pathlib.Path]:
    """Returns all annotation files, excluding macOS's hidden companions ("._1.xml")."""
    return [path for path in (folder / "Annotations").glob("*.xml") if path.name[0] != "."]


def _lines(path: pathlib.Path) -> list[str]:
    """Returns all non-blank lines, stripped."""
    try:
        text = path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise MisuseError(f"{path} cannot be read as UTF-8 text: {error}.") from None
    return [line.strip() for line in text.splitlines() if line.strip()]


def _parse(path: pathlib.Path) -> ElementTree.Element:
    try:
        return ElementTree.parse(path).getroot()
    except (OSError, ElementTree.ParseError) as error:
        raise MisuseError(f"{path} is not a readable XML file: {error}. Correct or remove it.") from None


def _objects(path: pathlib.Path, root: ElementTree.Element) -> list[tuple[str, list[float], bool]]:
    """Returns name, box and difficult flag of each object, without parts of objects such as VOC's heads and hands."""
    found = []
    for number, item in enumerate(root.findall("object"), 1):
        try:
            name = item.findtext("name", "").strip()
            x0, y0, x1, y1 = (float(item.findtext(f"bndbox/{edge}", "")) for edge in ("xmin", "ymin", "xmax", "ymax"))
            if not name or not np.isfinite([x0, y0, x1, y1]).all():
                raise ValueError
            mark = item.findtext("difficult", "").strip()
            difficult = mark.lower() not in ("", "unspecified") and bool(int(mark))
        except ValueError:
            raise MisuseError(
                f"{path}, object {number}: it needs a name and a bndbox of the numbers xmin, ymin, xmax, ymax; "
                "difficult, if present, is 0 or 1. Correct it."
            ) from None
        box = [y1 if y1 <= y0 else y0 - 1, x1 if x1 <= x0 else x0 - 1, y1, x1]
        found.append((name, box, difficult))
    return found


def _examples(folder: pathlib.Path, images: Sequence[pathlib.Path], numbers: dict[str, int]) -> tuple[Example, ...]:
    """Returns the images with their boxes. Raises MisuseError if a `<size>` does not match its image."""
    examples, mismatches = [], []
    for image in images:
        path = folder / f"Annotations/{image.stem}.xml"
        root = _parse(path)
        stated, actual = _stated_size(root), image_size(image)
        if stated and actual and stated != actual:
            mismatches.append(SizeMismatch(f"{path}: <size>", str(image), stated, actual))
        size = actual or stated
        if size is None:
            raise MisuseError(f"{image} is not a readable image, and {path} has no size. Correct or remove them.")
        examples.append(_example(path, root, image, size, numbers))
    refuse_mismatches(mismatches)
    return tuple(examples)


def _example(
    path: pathlib.Path, root: ElementTree.Element, image: pathlib.Path, size: tuple[int, int], numbers: dict[str, int]
) -> Example:
    objects = _objects(path, root)
    for name, _, _ in objects:
        if name not in numbers:
            raise unknown_class(str(path), name, numbers)
    return Example(
        name=image.stem,
        path=str(image),
        height=size[1],
        width=size[0],
        boxes=np.array([box for _, box, _ in objects], np.float32).reshape(-1, 4),
        classes=np.array([numbers[name] for name, _, _ in objects], np.int32),
        difficult=np.array([difficult for _, _, difficult in objects], bool),
    )


def _stated_size(root: ElementTree.Element) -> tuple[int, int] | None:
    """Returns width and height in the XML, or None if they are missing or 0, which many tools write."""
    try:
        width, height = (int(float(root.findtext(f"size/{name}", ""))) for name in ("width", "height"))
    except (ValueError, OverflowError):
        return None
    return (width, height) if width > 0 and height > 0 else None
