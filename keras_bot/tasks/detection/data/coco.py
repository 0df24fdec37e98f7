"""COCO annotation files: a JSON object with `images`, `annotations` and `categories`, plus a folder of images.

In a folder, the split's file is the first of annotations/instances_SPLIT.json, annotations/SPLIT.json,
SPLIT/_annotations.coco.json, SPLIT.json, and annotations/instances_SPLITYEAR.json if only one year exists. Classes are
the categories in the order of their ids. Boxes are [x, y, width, height]; the image's top-left corner is 0, 0. Crowds
count as difficult.

Ids are integers or strings and are compared as strings, so 12 and "12" are the same id. Categories are sorted by number
if all their ids are whole numbers, otherwise as strings.
"""

import collections
import concurrent.futures
import json
import os
import pathlib
import re
from collections.abc import Sequence

import numpy as np

from keras_bot.errors import MisuseError, first_few
from keras_bot.tasks.detection.data.annotation_checks import (
    SizeMismatch,
    image_size,
    refuse_mismatches,
    refuse_normalised,
)
from keras_bot.tasks.detection.data.annotations import Example, unknown_class
from keras_bot.tasks.detection.data.sets import EVAL_SPLITS, DetectionSet

_PARTS = ("images", "annotations", "categories")
_READERS = 16  # threads that read image headers, to hide the latency of network drives


def read_coco(
    path: pathlib.Path,
    split: str,
    images: str | os.PathLike | None = None,
    class_names: Sequence[str] | None = None,
) -> DetectionSet:
    """Reads one split.

    Args:
        path: an annotation file, or a folder of annotation files.
        split: the split to read; "eval" is the first existing of EVAL_SPLITS. For a file it only names the set in
            messages.
        images: the folder that `file_name`s are relative to; None searches for it near the annotation file.
        class_names: see `open_detection`; must include every category that occurs.

    Raises:
        MisuseError: see `open_detection`.
    """
    split, file = (split, path) if path.is_file() else _annotation_file(path, split)
    content = _load(file)
    records = _table(file, content, "images", {"id": (int, str), "file_name": str, "height": int, "width": int})
    categories = _in_order(_table(file, content, "categories", {"id": (int, str), "name": str}))
    if not records or not categories:
        raise MisuseError(f"{file} has no {'images' if not records else 'categories'}. Choose another file.")
    names = [category["name"] for category in categories.values()]
    if len(set(names)) < len(names):
        raise MisuseError(f"{file}: two categories have the same name. Rename one.")
    classes = names if class_names is None else list(class_names)
    numbers = {key: classes.index(name) if name in classes else -1 for key, name in zip(categories, names, strict=True)}
    paths = _image_paths(file, images, split, records)
    _check_sizes(file, records, paths)
    boxes = _boxes(file, content["annotations"], records, numbers, categories, classes)
    _refuse_normalised(file, records, boxes)
    examples = tuple(
        Example(record["file_name"], paths[key], record["height"], record["width"], *boxes[key])
        for key, record in records.items()
    )
    return DetectionSet(f"{path} {split}", tuple(classes), examples, train_on_difficult=False)


def _annotation_file(folder: pathlib.Path, split: str) -> tuple[str, pathlib.Path]:
    """Returns the resolved split name and its annotation file in a folder."""
    for name in EVAL_SPLITS if split == "eval" else (split,):
        files = [folder / "annotations" / f"instances_{name}.json", folder / "annotations" / f"{name}.json"]
        files += [folder / name / "_annotations.coco.json", folder / f"{name}.json"]
        with_year = re.compile(rf"instances_{re.escape(name)}[0-9]{{4}}\.json")
        dated = sorted(path for path in folder.glob("annotations/*.json") if with_year.fullmatch(path.name))
        for file in [*files, *(dated if len(dated) == 1 else ())]:
            if file.is_file():
                return name, file
    raise MisuseError(
        f"{folder} has no COCO annotation file for the split {split!r}, such as annotations/instances_{split}.json, "
        "nor Pascal VOC's layout. It contains: "
        f"{first_few(sorted(path.name for path in folder.iterdir())) or 'nothing (an empty folder)'}. "
        "Pass the path of the annotation file, or another split."
    )


def _load(file: pathlib.Path) -> dict:
    try:
        content = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise MisuseError(f"{file} is not a readable JSON file: {error}. Use another file, or save it again.") from None
    if not isinstance(content, dict) or not all(isinstance(content.get(part), list) for part in _PARTS):
        raise MisuseError(
            f"{file} is not a COCO annotation file, which has lists of {', '.join(_PARTS)}. Use another file."
        )
    return content


def _table(file: pathlib.Path, content: dict, part: str, fields: dict[str, type | tuple[type, ...]]) -> dict[str, dict]:
    """Returns the entries of one list, keyed by their id as a string."""
    table: dict[str, dict] = {}
    for index, entry in enumerate(content[part]):
        values = entry if isinstance(entry, dict) else {}
        wrong = [name for name, kind in fields.items() if not _is_a(values.get(name), kind)]
        wrong += [name for name in ("height", "width") if name in fields and name not in wrong and values[name] < 1]
        if wrong:
            received = first_few(
                [f"{name} {json.dumps(values[name])}" if name in values else f"no {name}" for name in wrong]
            )
            raise MisuseError(
                f"{file}, {part}[{index}]: it needs the fields {', '.join(fields)}, received {received}. Correct it."
            )
        if str(entry["id"]) in table:
            raise MisuseError(f"{file}, {part}[{index}]: the id {entry['id']} occurs twice. Ids must be unique.")
        table[str(entry["id"])] = entry
    return table


def _is_a(value: object, kind: type | tuple[type, ...]) -> bool:
    """Returns whether a JSON value has a type; booleans are not integers, and empty strings are rejected."""
    return isinstance(value, kind) and not isinstance(value, bool) and value != ""


def _in_order(categories: dict[str, dict]) -> dict[str, dict]:
    """Sorts categories by id: as numbers if all are whole numbers, otherwise as strings."""
    numeric = all(key.removeprefix("-").isdecimal() for key in categories)
    return dict(sorted(categories.items(), key=lambda item: (int(item[0]) if numeric else 0, item[0])))


def _image_paths(file: pathlib.Path, images: str | os.PathLike | None, split: str, records: dict) -> dict:
    """Returns image paths by id, in `images` or in the first candidate folder that contains the first image."""
    if images is None:
        root = file.parent.parent if file.parent.name == "annotations" else file.parent
        stem = file.stem.removeprefix("instances_")
        tried = [root / name for name in (stem, split, f"images/{stem}", f"images/{split}", "images", "")]
        first = next(iter(records.values()))["file_name"]
        folder = next((folder for folder in tried if (folder / first).is_file()), None)
        if folder is None:
            raise MisuseError(
                f"{file}: the image {first!r} is in none of {', '.join(dict.fromkeys(map(str, tried)))}. Pass the "
                "folder of the images as `images`."
            )
    else:
        folder = pathlib.Path(images).expanduser()
    present = set(os.listdir(folder)) if folder.is_dir() else set()
    paths = {key: str(folder / record["file_name"]) for key, record in records.items()}
    twice = [path for path, count in collections.Counter(map(os.path.normpath, paths.values())).items() if count > 1]
    if twice:
        raise MisuseError(
            f"{file} has more than one image entry for {first_few(twice)}, so each entry would miss the boxes of the "
            "others. Join the entries into one with a single id."
        )
    missing = [
        path for key, path in paths.items() if records[key]["file_name"] not in present and not os.path.isfile(path)
    ]
    if missing:
        number = "1 image is" if len(missing) == 1 else f"{len(missing)} images are"
        raise MisuseError(
            f"{file}: {number} missing: {first_few(missing)}. Add them, or pass their folder as `images`."
        )
    return paths


def _check_sizes(file: pathlib.Path, records: dict[str, dict], paths: dict[str, str]) -> None:
    """Raises MisuseError if an image's size differs from the stated size, since its boxes would be misplaced.

    Unreadable images are skipped here; the pipeline reports them.
    """
    with concurrent.futures.ThreadPoolExecutor(_READERS) as readers:
        sizes = list(readers.map(image_size, paths.values()))
    refuse_mismatches(
        [
            SizeMismatch(f"{file}: {record['file_name']}", paths[key], (record["width"], record["height"]), size)
            for (key, record), size in zip(records.items(), sizes, strict=True)
            if size is not None and size != (record["width"], record["height"])
        ]
    )


def _refuse_normalised(file: pathlib.Path, records: dict[str, dict], boxes: dict[str, tuple]) -> None:
    """Raises MisuseError if the x, y, width and height of all boxes are in [0, 1]."""
    corners = np.concatenate([array for array, _, _ in boxes.values()])
    origin, extent = corners[:, :2], corners[:, 2:] - corners[:, :2]
    sized = (extent > 0).all(axis=1)
    sizes = [(record["width"], record["height"]) for record in records.values()]
    refuse_normalised(str(file), np.concatenate([origin, extent], axis=1)[sized], sizes)


def _boxes(file: pathlib.Path, entries: list, records: dict, numbers: dict, categories: dict, classes: list) -> dict:
    """Returns boxes float32 (n, 4), classes int32 (n,) and crowds bool (n,) by image id."""
    rows: dict = {key: [] for key in records}
    for index, entry in enumerate(entries):
        try:
            x, y, width, height = (float(number) for number in entry["bbox"])
            image, category, crowd = entry["image_id"], entry["category_id"], int(entry.get("iscrowd") or 0)
            ids_are_right = _is_a(image, (int, str)) and _is_a(category, (int, str))
            if not np.isfinite([x, y, width, height]).all() or not ids_are_right:
                raise ValueError
        except (KeyError, TypeError, ValueError, AttributeError):
            raise _wrong_annotation(f"{file}, annotations[{index}]", entry) from None
        if str(image) not in rows:
            raise MisuseError(f"{file}, annotations[{index}]: no image has the id {image!r}. Correct it.")
        if str(category) not in numbers:
            raise MisuseError(f"{file}, annotations[{index}]: no category has the id {category!r}. Correct it.")
        image, category = str(image), str(category)
        if numbers[category] < 0:
            raise unknown_class(f"{file}, annotations[{index}]", categories[category]["name"], classes)
        rows[image].append((y, x, y + height, x + width, numbers[category], crowd))
    arrays = {key: np.array(row, np.float64).reshape(-1, 6) for key, row in rows.items()}
    return {
        key: (array[:, :4].astype(np.float32), array[:, 4].astype(np.int32), array[:, 5] > 0)
        for key, array in arrays.items()
    }


def _wrong_annotation(where: str, entry: object) -> MisuseError:
    """Returns the error for an annotation with missing or invalid fields."""
    fields = ("image_id", "category_id", "bbox", "iscrowd")
    received = {name: entry[name] for name in fields if name in entry} if isinstance(entry, dict) else entry
    return MisuseError(
        f"{where}: it needs image_id and category_id, integers or strings, and a bbox of four numbers; iscrowd, if "
        f"present, is 0 or 1. Received {json.dumps(received)[:200]}. Correct it."
    )
