"""Classes of masks: legends that map mask ids to names, and the class numbers derived from them.

`classes.csv` has a header, then one line per mask id: id, name, and optionally the colour as r, g, b.
ADE20K's `objectInfo150.txt` has tab-separated columns: the id first, the names last. The first name is used.
"""

import csv
import pathlib
from collections.abc import Callable, Sequence

import numpy as np

from keras_bot.errors import MisuseError, first_few
from keras_bot.tasks.drawing import class_colors
from keras_bot.tasks.segmentation.labels import IGNORE, UNKNOWN

FORMAT = "It needs a header, then one line per id: id, name, and optionally r, g, b"
UNLABELLED = "unlabelled"

_IGNORED_NAMES = (UNLABELLED, "unlabeled", "void", "ignore", "ignored")

Legend = dict[int, tuple[str, tuple[int, ...]]]  # id -> name, and its colour or ()


def read_class_file(path: pathlib.Path) -> Legend:
    """Reads the legend in a `classes.csv`. Raises MisuseError if it is malformed."""
    return _read(path, ",", lambda row: (row[1].strip(), tuple(int(cell) for cell in row[2:5])), FORMAT)


def read_object_info(path: pathlib.Path) -> Legend:
    """Reads the legend in ADE20K's `objectInfo150.txt`; 0 is unlabelled. Raises MisuseError if it is malformed."""
    form = "It needs a header, then one line per id: columns separated by tabs, the id first and the names last"
    return {0: (UNLABELLED, ()), **_read(path, "\t", lambda row: (row[1:][-1].split(",")[0].strip(), ()), form)}


def numbered_classes(num_classes: int, ignore: Sequence[int], first: int = 0) -> Legend:
    """Returns a legend for unnamed classes: the lowest `num_classes` ids >= `first` that aren't ignored."""
    ids = [index for index in range(first, UNKNOWN) if index not in ignore][:num_classes]
    return {index: (f"class{index}", ()) for index in ids}


def build_classes(
    where: str,
    legend: Legend,
    num_classes: int,
    ignore: Sequence[int] | None,
    class_names: Sequence[str] | None,
) -> dict:
    """Returns `class_names`, `class_ids`, `palette` and `ignored` of a `SegmentationSource`.

    Args:
        where: origin of the legend, for messages.
        legend: all ids that masks may contain, except 255 and those in `ignore`.
        num_classes, ignore, class_names: see `open_segmentation`.

    Raises:
        MisuseError: If the classes differ from `num_classes` or `class_names`, or an id is out of range.
    """
    ignored = _ignored(where, legend, ignore)
    ids = sorted(index for index in legend if index not in ignored)
    if len(ids) != (num_classes or len(ids)) or not 0 < len(ids) <= IGNORE:
        raise MisuseError(
            f"{where} has {len(ids)} classes and the ignored ids {', '.join(map(str, ignored))}. The number of classes "
            f"must be {num_classes or '1 to 255'}. Change num_classes or the ids to ignore."
        )
    names = [legend[index][0] for index in ids]
    if class_names is not None and list(class_names) != names:
        ids = _ids_in_order(where, dict(zip(names, ids, strict=True)), names, class_names)
    colours = zip(ids, class_colors(len(ids)), strict=True)
    return {
        "class_names": tuple(legend[index][0] for index in ids),
        "class_ids": tuple(ids),
        "palette": np.array([legend[index][1] or colour for index, colour in colours], np.uint8),
        "ignored": ignored,
    }


def _ids_in_order(where: str, ids: dict[str, int], names: Sequence[str], class_names: Sequence[str]) -> list[int]:
    """Returns the ids in the order of `class_names`. Raises MisuseError if the names differ."""
    if sorted(names) != sorted(class_names) or len(ids) < len(names):
        missing = [name for name in class_names if name not in ids]
        others = [name for name in names if name not in class_names]
        lists = ((missing, "lacks"), (others, "has"))
        difference = " and ".join(f"{verb} {first_few(group)}" for group, verb in lists if group)
        raise MisuseError(
            f"{where} must have the {len(class_names)} classes {first_few(class_names)}, but it "
            f"{difference or 'contains a name twice'}. Use the same names, or data with these classes."
        )
    return [ids[name] for name in class_names]


def _ignored(where: str, legend: Legend, ignore: Sequence[int] | None) -> tuple[int, ...]:
    if ignore is None:
        ignore = [index for index, (name, _) in legend.items() if name.lower() in _IGNORED_NAMES]
    wrong = [str(index) for index in ignore if not 0 <= index < UNKNOWN]
    if wrong:
        raise MisuseError(f"Ids to ignore must be in 0..255, received {', '.join(wrong)} for {where}.")
    return tuple(sorted({*ignore, *(() if IGNORE in legend else (IGNORE,))}))


def _read(path: pathlib.Path, delimiter: str, entry: Callable[[list[str]], tuple], form: str) -> Legend:
    legend: Legend = {}
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            lines = csv.reader(file, delimiter=delimiter, strict=True)
            rows = [row for row in lines if any(cell.strip() for cell in row)]
        if rows and rows[0][0].strip().isdecimal():  # no header; skipping the first row would lose a class
            raise ValueError(delimiter.join(rows[0]))
        for row in rows[1:]:
            index, (name, colour) = int(row[0]), entry(row)
            if not 0 <= index < UNKNOWN or index in legend or len(colour) not in (0, 3) or not name:
                raise ValueError(delimiter.join(row))
            np.array(colour, np.uint8)
            legend[index] = name, colour
    except (ValueError, OverflowError, IndexError, csv.Error) as error:
        raise MisuseError(
            f"{path} cannot be read at {str(error)!r}. {form}. Each id occurs once and is in 0..255."
        ) from None
    return legend
