"""Builders of tiny inputs for tests: recipes, images, data sets of every layout, and run directories."""

import csv
import io
import json
import pathlib
from collections.abc import Iterable

import numpy as np
from PIL import Image

from keras_bot.recipe import Recipe

TINY = {  # fields of `tiny_recipe`
    "dataset": "synthetic",
    "num_classes": 4,
    "synthetic_images": 32,
    "batch_size": 8,
    "image_size": 16,
    "transform": "cifar",
    "model": "cifar_resnet8_d",
    "width": 0.25,
    "epochs": 2,
}
NO_COLOR = {"color_jitter": 0.0, "pca_noise": 0.0}


def tiny_recipe(**fields) -> Recipe:
    """Returns a recipe that trains a narrow ResNet-8 for two epochs of four steps; `fields` replace those of `TINY`."""
    return Recipe(**{**TINY, **fields})


def tiny_flags(**fields) -> list[str]:
    """Returns the command line flags of `tiny_recipe`."""
    return tiny_recipe(**fields).flag_lines()


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    """Returns random uint8 pixels."""
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def encode_image(pixels: np.ndarray, form: str = "PNG", mode: str | None = None, **options) -> bytes:
    """Returns an image file: `form`, `mode` and `options` are those of Pillow."""
    image, stream = Image.fromarray(pixels), io.BytesIO()
    (image.convert(mode) if mode else image).save(stream, form, **options)
    return stream.getvalue()


def write_image(path: str | pathlib.Path, pixels: np.ndarray | None = None) -> pathlib.Path:
    """Writes an image in the format of the suffix and creates its folder; without pixels it is noise, 40x30."""
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    options = {"quality": 95} if path.suffix == ".jpg" else {}
    Image.fromarray(noise(30, 40, 3) if pixels is None else pixels).save(path, **options)
    return path


def write_image_folder(
    folder: pathlib.Path, *, classes: int = 3, train: int = 5, val: int = 2, size: tuple[int, int] = (30, 40)
) -> pathlib.Path:
    """Writes `train` and `val` folders with that many JPEGs of noise in each of the folders class0, class1, …"""
    draw = np.random.default_rng(0)
    for split, count in (("train", train), ("val", val)):
        for label in range(classes):
            for i in range(count):
                write_image(folder / split / f"class{label}" / f"{i}.jpg", draw.integers(0, 256, (*size, 3), np.uint8))
    return folder


def write_npz(path: pathlib.Path, **arrays: np.ndarray | None) -> pathlib.Path:
    """Writes an .npz data set of 24 training and 10 test images, 8x8, in 4 classes.

    Arrays passed by name replace or extend the default ones; None leaves one out.
    """
    draw = np.random.default_rng(0)
    default = {
        "x_train": draw.integers(0, 256, (24, 8, 8, 3), np.uint8),
        "y_train": np.arange(24) % 4,
        "x_test": draw.integers(0, 256, (10, 8, 8, 3), np.uint8),
        "y_test": np.arange(10) % 4,
    }
    np.savez(path, **{name: array for name, array in {**default, **arrays}.items() if array is not None})
    return path


def write_record_file(path: pathlib.Path, examples: Iterable[tuple[bytes, int]]):
    """Writes a TFRecord file of image files and labels, as for ImageNet."""
    import tensorflow as tf

    with tf.io.TFRecordWriter(str(path)) as writer:
        for image, label in examples:
            example = tf.train.Example()
            example.features.feature["image/encoded"].bytes_list.value.append(image)
            example.features.feature["image/class/label"].int64_list.value.append(label)
            writer.write(example.SerializeToString())


SCENE_SIZE = (48, 64)
SCENE_NAMES = tuple(f"scene{i}" for i in range(12))
SCENE_SPLITS = {"train": SCENE_NAMES[:8], "val": SCENE_NAMES[8:]}
VOC = """<annotation><filename>{name}.jpg</filename><size><width>64</width><height>48</height><depth>3</depth></size>
<object><name>{kind}</name><difficult>0</difficult>
<bndbox><xmin>{x0}</xmin><ymin>{y0}</ymin><xmax>{x1}</xmax><ymax>{y1}</ymax></bndbox></object></annotation>"""


def write_scenes(parent: pathlib.Path) -> dict[str, pathlib.Path]:
    """Writes 8 training and 4 evaluation images of a red or blue square on grey, 64x48.

    Returns:
        The data folders by task: boxes in the layout of Pascal VOC for "detection", and masks for "segmentation".
    """
    draw = np.random.default_rng(0)
    boxes, masks = parent / "boxes", parent / "masks"
    for folder in (boxes / "Annotations", boxes / "ImageSets/Main"):
        folder.mkdir(parents=True)
    for number, name in enumerate(SCENE_NAMES):
        pixels, classes = draw.integers(100, 140, (*SCENE_SIZE, 3), np.uint8), np.zeros(SCENE_SIZE, np.uint8)
        y, x, kind = *draw.integers(4, 24, 2), number % 2
        pixels[y : y + 20, x : x + 20] = (230, 30, 30) if kind else (30, 30, 230)
        classes[y : y + 20, x : x + 20] = kind + 1
        write_image(boxes / "JPEGImages" / f"{name}.jpg", pixels)
        write_image(masks / "images" / f"{name}.jpg", pixels)
        write_image(masks / "masks" / f"{name}.png", classes)
        square = {"x0": x + 1, "y0": y + 1, "x1": x + 20, "y1": y + 20}  # VOC counts pixels from 1
        annotation = VOC.format(name=name, kind=("blue", "red")[kind], **square)
        (boxes / "Annotations" / f"{name}.xml").write_text(annotation)
    for split, names in SCENE_SPLITS.items():
        (boxes / "ImageSets/Main" / f"{split}.txt").write_text("\n".join(names))
        (masks / f"{split}.txt").write_text("\n".join(names))
    (masks / "classes.csv").write_text("id,name\n0,ground\n1,blue\n2,red\n")
    return {"detection": boxes, "segmentation": masks}


HISTORY = (  # of a run of two epochs
    {"loss": 1.4, "top1": 0.25, "top5": 0.9, "val_loss": 1.5, "val_top1": 0.2, "val_top5": 0.95},
    {"loss": 1.2, "top1": 0.5, "top5": 1.0, "val_loss": 1.3, "val_top1": 0.3, "val_top5": 1.0},
)
RESULT = {
    **{"top1": 0.3, "top5": 1.0, "loss": 1.3, "best_top1": 0.3, "epochs": 2},
    **{"images_per_second": 15.0, "training_seconds": 4.0},
}


def write_run(path: pathlib.Path, recipe: Recipe, /, *, history=HISTORY, result=RESULT, **facts) -> pathlib.Path:
    """Writes the text files of a finished run directory without training: run.flags, history.csv and metrics.json.

    Args:
        path: the run directory.
        recipe: the recipe that is recorded.
        history: the columns of each epoch.
        result, facts: content of metrics.json; `facts` extend the recipe, the corrupt images and the class names.
    """
    path.mkdir(parents=True, exist_ok=True)
    (path / "run.flags").write_text("# keras_bot\n" + "\n".join(recipe.flag_lines()) + "\n")
    timing = {"learning_rate": 0.1, "seconds": 2, "images_per_second": 15}
    rows = [{"epoch": number, **row, **timing} for number, row in enumerate(history, 1)]
    with open(path / "history.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    names = [f"class{label}" for label in range(recipe.num_classes or 4)]
    default = {"recipe": recipe.as_text(), "dataset": {"class_names": names}, "corrupt_images": []}
    (path / "metrics.json").write_text(json.dumps({**default, **facts, "result": result}))
    return path


def read_history(run_dir: pathlib.Path) -> list[dict[str, str]]:
    """Returns the rows of a run's history.csv."""
    with open(run_dir / "history.csv") as file:
        return list(csv.DictReader(file))
