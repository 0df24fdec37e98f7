"""Folders of images with one mask each. Three layouts are supported:

    images/NAME.jpg      masks/NAME.png               train.txt, val.txt
    JPEGImages/NAME.jpg  SegmentationClass/NAME.png   ImageSets/Segmentation/train.txt, val.txt     (Pascal VOC)
    images/training/NAME.jpg   annotations/training/NAME.png, and the same for validation           (ADE20K)

A list has one name per line, with or without the image's suffix. Masks are PNG, either grey or with a palette whose
indices are the ids. `classes.csv` in the root folder names the classes, see `classes`. In the third
layout (ADEChallengeData2016), `objectInfo150.txt` may name them instead, 0 is unlabelled, "train" is the folder
`training` and "val" is `validation`.
"""

import os
import pathlib
import sys
from collections.abc import Iterable, Sequence

import tensorflow as tf

from keras_bot.data.decode import SUFFIXES
from keras_bot.data.sources.base import EVAL_SPLITS, cpu_constant, indices
from keras_bot.errors import MisuseError, first_few
from keras_bot.tasks.detection.data.annotation_checks import files_of_other_types
from keras_bot.tasks.segmentation.data import classes
from keras_bot.tasks.segmentation.data.source import SegmentationSource, largest_size, png_size

_LAYOUTS = (
    ("images", "masks", "."),
    ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"),
    ("images", "annotations", ""),  # no lists: one folder per split
)
_SAME_SPLITS = {"train": ("train", "training"), "val": ("val", "validation"), "eval": EVAL_SPLITS}
_LAYOUT = (
    "A data set has images/NAME.jpg, masks/NAME.png and lists train.txt and val.txt, or Pascal VOC's or ADE20K's layout"
)


def open_folder(
    root: pathlib.Path,
    split: str,
    *,
    num_classes: int = 0,
    ignore: Sequence[int] | None = None,
    class_names: Sequence[str] | None = None,
) -> SegmentationSource:
    """Opens one split; files are looked up but not read. Arguments and errors as in `open_segmentation`."""
    images, masks, lists = _layout(root)
    where, names = _listed(images, lists, split)
    image_files = _find(where, names, images, SUFFIXES, "image")
    mask_files = _find(where, map(_stem, names), masks, (".png",), "mask")
    file, legend = _legend(root, lists is None, num_classes or len(class_names or ()), ignore or ())
    paths = {"image": cpu_constant(_encoded(image_files)), "mask": cpu_constant(_encoded(mask_files))}
    pairs = cpu_constant(_encoded(map(", ".join, zip(image_files, mask_files, strict=True))))

    def read(index: tf.Tensor) -> dict[str, tf.Tensor]:
        return {kind: tf.io.read_file(tf.gather(files, index)) for kind, files in paths.items()}

    return SegmentationSource(
        name=f"{root} {split}",
        size=len(names),
        keys=indices(len(names)),
        read=read,
        record_name=lambda index: tf.gather(pairs, index),
        largest=lambda: largest_size([_size(path) for path in mask_files]),
        image_files=image_files,
        mask_files=mask_files,
        **classes.build_classes(str(file), legend, num_classes, ignore, class_names),
    )


def _size(path: str) -> tuple[int, int]:
    with open(path, "rb") as file:
        return png_size(file.read(24), path)


def _encoded(paths: Iterable[str]) -> list[bytes]:
    return [os.fsencode(path) for path in paths]


def _layout(root: pathlib.Path) -> tuple[pathlib.Path, pathlib.Path, pathlib.Path | None]:
    """Returns the folders of images, masks and lists; the last is None in a layout without lists."""
    if not root.is_dir():
        raise MisuseError(f"{str(root)!r} is not a folder. {_LAYOUT}. Check the path.")
    for images, masks, lists in _LAYOUTS:
        if (root / images).is_dir() and (root / masks).is_dir():
            return root / images, root / masks, root / lists if lists else None
    raise MisuseError(f"{root} has no folders images and masks. {_LAYOUT}.")


def _listed(images: pathlib.Path, lists: pathlib.Path | None, split: str) -> tuple[pathlib.Path, list[str]]:
    """Returns the list or folder of a split, and the names of its images."""
    wanted = _SAME_SPLITS.get(split, (split,))
    tried = [lists / f"{name}.txt" if lists else images / name for name in wanted]
    for path in tried:
        if path.is_file() if lists else path.is_dir():
            return path, _names(path) if lists else _images_in(path)
    paths = " or ".join(map(str, tried))
    raise MisuseError(f"No list or folder of the split {split!r}: {paths} is missing. Add it, or use another split.")


def _names(path: pathlib.Path) -> list[str]:
    try:
        names = [line.strip() for line in path.read_text("utf-8-sig").splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise MisuseError(f"{path} is not UTF-8 text ({error.reason}). Save it as UTF-8.") from None
    if not names:
        raise MisuseError(f"{path} is empty. Write one image name per line.")
    return names


def _images_in(folder: pathlib.Path) -> list[str]:
    """Returns the images in a split's folder. Reports other files and folders in it in one line on stderr."""
    with os.scandir(folder) as entries:
        visible = sorted((entry for entry in entries if entry.name[0] != "."), key=lambda entry: entry.name)
    images = {entry.name for entry in visible if entry.name.lower().endswith(SUFFIXES) and not entry.is_dir()}
    skipped = [entry.name + "/" * entry.is_dir() for entry in visible if entry.name not in images]
    if not images:
        others = f", only {first_few(skipped)}" if skipped else ""
        raise MisuseError(f"{folder} contains no images{others}. Add {', '.join(SUFFIXES)} files.")
    if skipped:
        message = f"skipped {len(skipped)} of {len(visible)} entries, which are not images ({', '.join(SUFFIXES)})"
        print(f"keras-bot: {folder}: {message}: {first_few(skipped)}.", file=sys.stderr, flush=True)
    return [f"{folder.name}/{name}" for name in sorted(images)]


def _stem(name: str) -> str:
    return os.path.splitext(name)[0] if name.lower().endswith(SUFFIXES) else name


def _find(
    path: pathlib.Path, names: Iterable[str], folder: pathlib.Path, suffixes: tuple[str, ...], kind: str
) -> tuple[str, ...]:
    """Returns the file of each name. A name may lack its suffix and may start with folders."""
    known: dict[str, dict[str, list[str]]] = {}
    paths, missing = [], []
    for name in names:
        parent, base = os.path.split(name)
        if parent not in known:
            known[parent] = _files(folder / parent, suffixes)
        files = known[parent].get(base, [])
        if len(files) > 1:
            raise MisuseError(
                f"{path}: {name!r} is the name of {len(files)} files in {folder / parent}: {first_few(files)}. Keep "
                "one of them, or write the image's suffix in the list."
            )
        missing += [] if files else [name]
        paths.append(os.path.join(folder, parent, *files))
    if missing:
        parents = {os.path.split(name)[0] for name in missing}
        stems = [os.path.split(name)[1] for name in missing]
        others = "".join(files_of_other_types(folder / parent, stems, suffixes) for parent in sorted(parents))
        number = "1 name" if len(missing) == 1 else f"{len(missing)} names"
        raise MisuseError(
            f"{path}: no {kind} in {folder} for {number}: {first_few(missing)}.{others} "
            f"Add {', '.join(suffixes)} files, or remove the names."
        )
    return tuple(paths)


def _files(folder: pathlib.Path, suffixes: tuple[str, ...]) -> dict[str, list[str]]:
    """Maps names, with and without suffix, to the files in a folder; several files may share a name without suffix."""
    entries = sorted(os.listdir(folder)) if folder.is_dir() else []
    matching = [entry for entry in entries if entry.lower().endswith(suffixes)]
    files: dict[str, list[str]] = {}
    for entry in matching:
        files.setdefault(os.path.splitext(entry)[0], []).append(entry)
    return files | {entry: [entry] for entry in matching}


def _legend(
    root: pathlib.Path, zero_is_unlabelled: bool, num_classes: int, ignore: Sequence[int]
) -> tuple[pathlib.Path, classes.Legend]:
    """Returns the file that names the classes (the folder if there is none) and the legend."""
    path, info = root / "classes.csv", root / "objectInfo150.txt"
    if path.is_file():
        return path, classes.read_class_file(path)
    if info.is_file() and zero_is_unlabelled:
        return info, classes.read_object_info(info)
    if num_classes < 1:
        raise MisuseError(f"{path} is missing. {classes.FORMAT}. Write it, or pass num_classes to use the lowest ids.")
    if zero_is_unlabelled:
        return root, {0: (classes.UNLABELLED, ()), **classes.numbered_classes(num_classes, ignore, first=1)}
    return root, classes.numbered_classes(num_classes, ignore)
