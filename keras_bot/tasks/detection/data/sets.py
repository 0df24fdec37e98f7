"""Detection data sets as read from disk, and their concatenation.

    bccd+more_cells          folders, or COCO annotation files
    voc/2007+voc/2012        TFDS names

The requested split is read from each part: "train+validation" of voc/2007+voc/2012 is four splits, and a part without
one of them is an error. A network is evaluated only on the first part, see `first_set`. All parts must have the same
classes, which are numbered as in the first part. No image may occur twice, and parts must be all files or all TFDS.
"""

import dataclasses
import functools
import os
import pathlib
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from keras_bot.data.sources.base import BOX_EVAL_SPLITS
from keras_bot.data.sources.record_files import Records
from keras_bot.errors import MisuseError, first_few
from keras_bot.tasks.detection.data.annotations import Example

EVAL_SPLITS = BOX_EVAL_SPLITS  # "eval" means the first of these that exists


@dataclasses.dataclass(frozen=True)
class DetectionSet:
    """A split as read from disk, from which a `DetectionSource` is built.

    Attributes:
        name: name of the set, with the split.
        class_names: one name per class.
        examples: the images in natural order; at least one.
        train_on_difficult: see `DetectionSource`.
        files: record files of a TFDS set in natural order, each with its display name for messages; otherwise empty.
        image_of: for a TFDS set, a graph function from a serialised record to the encoded image.
    """

    name: str
    class_names: tuple[str, ...]
    examples: tuple[Example, ...]
    train_on_difficult: bool = True
    files: tuple[tuple[Records, str], ...] = ()
    image_of: Callable[[tf.Tensor], tf.Tensor] | None = None


def set_names(dataset: str | os.PathLike) -> list[str]:
    """Splits names joined by "+". An existing path is one part even if it contains a "+".

    Raises:
        MisuseError: a part is empty, or only some parts are existing paths.
    """
    pieces, names = str(dataset).split("+"), []
    while pieces:
        joined = ("+".join(pieces[:count]) for count in range(len(pieces), 1, -1))
        names.append(next(filter(_exists, joined), pieces[0]))
        pieces = pieces[names[-1].count("+") + 1 :]
    if len(names) > 1 and not all(names):
        raise MisuseError(f"{str(dataset)!r} needs a data set on both sides of each +.")
    others = [name for name in names if not _exists(name)]
    if 0 < len(others) < len(names):
        raise MisuseError(
            f"{str(dataset)!r} joins existing paths with others that do not exist: {' and '.join(others)}. Correct "
            "the path, or join only files and folders, or only TFDS sets."
        )
    return names


def _exists(name: str) -> bool:
    return pathlib.Path(name).expanduser().exists()


def first_set(dataset: str | os.PathLike) -> str:
    """Returns the first of the names joined by "+", on which a network is evaluated."""
    return set_names(dataset)[0]


def join(name: str, sets: Sequence[DetectionSet]) -> DetectionSet:
    """Concatenates several sets; a single set is returned unchanged.

    Args:
        name: name of the result.
        sets: the parts, at least one; all of files, or all from TFDS.

    Raises:
        MisuseError: classes differ, one set marks difficult objects and another crowds, or an image occurs twice.
    """
    if len(sets) == 1:
        return sets[0]
    marked = {one.train_on_difficult for one in sets if any(example.difficult.any() for example in one.examples)}
    if len(marked) > 1:
        raise MisuseError(
            f"{name} has both difficult objects and crowds. Training uses difficult objects but not crowds, so they "
            "cannot be joined. Remove the marks from one of the sets."
        )
    examples = tuple(example for one in sets for example in _joined_examples(one, sets[0]))
    _refuse_twice(name, [example.path for example in examples if example.path])
    return DetectionSet(
        name=name,
        class_names=sets[0].class_names,
        examples=examples,
        train_on_difficult=marked != {False},
        files=tuple((records, f"{one.name} {file}") for one in sets for records, file in one.files),
        image_of=sets[0].image_of,
    )


def _joined_examples(one: DetectionSet, first: DetectionSet) -> list[Example]:
    """Returns a part's examples, with the set in their names and classes renumbered as in the first part.

    Raises MisuseError if the classes differ.
    """
    differences = [
        f"only {a.name} has {first_few(names)}"
        for a, b in ((first, one), (one, first))
        if (names := [name for name in a.class_names if name not in b.class_names])
    ]
    if differences:
        raise MisuseError(
            f"Joined sets must have the same classes, but {' and '.join(differences)}. Use the same names (in a "
            "folder's classes.txt or the categories of a COCO file), or use only one of the sets."
        )
    numbers = np.array([first.class_names.index(name) for name in one.class_names], np.int32)
    return [
        dataclasses.replace(example, name=f"{one.name} {example.name}", classes=numbers[example.classes])
        for example in one.examples
    ]


def _refuse_twice(name: str, paths: Sequence[str]) -> None:
    """Raises MisuseError if two paths refer to the same file."""
    folder_of = functools.cache(os.path.realpath)
    locations: set[tuple[str, str]] = set()
    twice = []
    for path in paths:
        folder, base = os.path.split(path)
        location = folder_of(folder), base
        twice += [path] if location in locations else []
        locations.add(location)
    if twice:
        raise MisuseError(f"{name} contains {first_few(twice)} twice. Join sets or splits without common images.")
