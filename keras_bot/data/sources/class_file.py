"""`classes.csv` of an image folder: the label order and a readable name per class."""

import csv
import pathlib

from keras_bot.errors import MisuseError, first_few

CLASS_FILE = "classes.csv"

_FORM = "It needs a header, then one line per class: its folder in train and optionally a readable name"


def read_class_file(path: pathlib.Path, folders: list[str]) -> dict[str, str]:
    """Reads the class folders in label order, with their readable names.

    Args:
        path: path of the file: UTF-8, comma-separated; columns after the second are ignored.
        folders: class folders of `train`.

    Returns:
        folder -> name, in label order; the name defaults to the folder's.

    Raises:
        MisuseError: the file is not valid CSV, lists a class twice, gives two classes the same name, or its classes
            differ from `folders`.
    """
    header, *rows = _rows(path) or [[]]
    names: dict[str, str] = {}
    for folder, *more in rows:
        if folder in names:
            raise MisuseError(f"{path} lists the class folder {folder!r} twice. {_FORM}. Remove one of the lines.")
        names[folder] = more[0].strip() if more and more[0].strip() else folder
    if not names:
        raise MisuseError(
            f"{path} lists no classes. {_FORM}. Add them, or remove the file to label the folders in sorted order."
        )
    if header[0] in folders and header[0] not in names:
        raise MisuseError(f"{path} begins with the class folder {header[0]!r}. {_FORM}. Insert 'folder,name' above it.")
    _check_same(path, list(names), folders)
    for name in names.values():
        same = [folder for folder, other in names.items() if other == name]
        if len(same) > 1:
            raise MisuseError(
                f"{path} gives the class folders {first_few([repr(folder) for folder in same])} the same name "
                f"{name!r}. Give each class a unique name, such as 'crane (bird)' and 'crane (machine)'."
            )
    return names


def _rows(path: pathlib.Path) -> list[list[str]]:
    """Returns all rows that are not blank. A byte order mark is skipped."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            return [row for row in csv.reader(file, strict=True) if any(cell.strip() for cell in row)]
    except OSError as error:
        raise MisuseError(f"{path} can't be read: {error.strerror}. Fix or remove it.") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise MisuseError(f"{path} is not a CSV file in UTF-8 ({error}). {_FORM}.") from None


def _check_same(path: pathlib.Path, listed: list[str], folders: list[str]) -> None:
    known, found = set(folders), set(listed)
    differences = [
        ("train has no folder for", [name for name in listed if name not in known]),
        ("it doesn't list train's folder", [name for name in folders if name not in found]),
    ]
    reasons = [f"{text} {first_few([repr(name) for name in names])}" for text, names in differences if names]
    if reasons:
        raise MisuseError(
            f"{path} and {path.parent / 'train'} disagree: {'; '.join(reasons)}. Both must have the same classes. "
            f"Fix the file, or remove it to label the folders in sorted order."
        )
