"""`classes.csv` of an image folder: the label order and a readable name per class."""

import csv
import pathlib

from keras_bot.errors import MisuseError, first_few

CLASS_FILE = "classes.csv"

_FORM = "expected a header, then a line for each class: its folder in train, and perhaps a readable name"


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
            raise MisuseError(f"{path} names the class folder {folder!r} twice: {_FORM}. Take one line out.")
        names[folder] = more[0].strip() if more and more[0].strip() else folder
    if not names:
        raise MisuseError(
            f"{path} names no class: {_FORM}. Fill it, or remove it to label the folders in sorted order."
        )
    if header[0] in folders and header[0] not in names:
        raise MisuseError(f"{path} begins with the class folder {header[0]!r}: {_FORM}. Put 'folder,name' above it.")
    _check_same(path, list(names), folders)
    for name in names.values():
        alike = [folder for folder, other in names.items() if other == name]
        if len(alike) > 1:
            raise MisuseError(
                f"{path} gives the class folders {first_few([repr(folder) for folder in alike])} the same name "
                f"{name!r}. Give each class a name of its own, such as 'crane (bird)' and 'crane (machine)'."
            )
    return names


def _rows(path: pathlib.Path) -> list[list[str]]:
    """Returns all rows that are not blank. A byte order mark is skipped."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            return [row for row in csv.reader(file, strict=True) if any(cell.strip() for cell in row)]
    except OSError as error:
        raise MisuseError(f"{path} can't be read ({error.strerror}): {_FORM}. Mend or remove it.") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise MisuseError(f"{path} is no CSV file in UTF-8 ({error}): {_FORM}. Save it as one.") from None


def _check_same(path: pathlib.Path, named: list[str], folders: list[str]) -> None:
    known, found = set(folders), set(named)
    differences = [
        ("train has no folder for", [name for name in named if name not in known]),
        ("it doesn't name train's folder", [name for name in folders if name not in found]),
    ]
    told = [f"{what} {first_few([repr(name) for name in names])}" for what, names in differences if names]
    if told:
        raise MisuseError(
            f"{path} and {path.parent / 'train'} disagree: {'; '.join(told)}. Expected the same classes in both. "
            f"Mend the file, or remove it to label the folders in sorted order."
        )
