"""The table of data sources, with the small data sets that they open."""

import dataclasses
import pathlib
from collections.abc import Callable

import numpy as np
import tensorflow as tf
from builders import write_scenes
from PIL import Image

from contracts.checks import Refusal, refuse
from keras_bot.data import open_source
from keras_bot.errors import MisuseError
from keras_bot.tasks.detection.data.factory import open_detection
from keras_bot.tasks.segmentation.data.factory import open_segmentation

NAMES = ("ant", "bee", "cow")
PARTS = {"train": "train", "test": "eval"}  # names in an .npz file
COUNTS = {"train": 11, "eval": 5}


def labels_of(split):
    """Labels of the folder's images, sorted by class: 4, 4 and 3 for training, 2, 2 and 1 for evaluation."""
    return sorted(place % 3 for place in range(COUNTS[split]))


def write_data_sets(root: pathlib.Path) -> None:
    """Writes one data set of each format: photos, photos.npz, shards, boxes and masks."""
    draw = np.random.default_rng(0)
    for split, folder in (("train", "train"), ("eval", "val")):
        labels = labels_of(split)
        for place, label in enumerate(labels):
            path = root / "photos" / folder / NAMES[label] / f"{place:02}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(draw.integers(0, 256, (12, 14, 3), np.uint8)).save(path)
        write_shards(root, "train" if split == "train" else "validation", labels)
    (root / "shards/labels.txt").write_text("\n".join(NAMES))
    arrays = {f"x_{part}": draw.integers(0, 256, (COUNTS[s], 8, 9, 3), np.uint8) for part, s in PARTS.items()}
    arrays |= {f"y_{part}": np.array(labels_of(split)) for part, split in PARTS.items()}
    np.savez(root / "photos.npz", **arrays, class_names=np.array(NAMES))
    write_scenes(root)


def write_shards(root, split, labels):
    """Writes the labels and the images of the folder in two files."""
    (root / "shards").mkdir(exist_ok=True)
    files = sorted((root / "photos" / split.removesuffix("idation")).rglob("*.png"))
    for shard in range(2):
        with tf.io.TFRecordWriter(str(root / f"shards/{split}-{shard:05}-of-00002")) as writer:
            for file, label in list(zip(files, labels, strict=True))[shard * 3 : 3 if shard == 0 else None]:
                example = tf.train.Example()
                example.features.feature["image/encoded"].bytes_list.value.append(file.read_bytes())
                example.features.feature["image/class/label"].int64_list.value.append(label)
                writer.write(example.SerializeToString())


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class SourceRow:
    """A kind of data source.

    Attributes:
        name: name of the test.
        open: opens a split; takes a data set's path or name, the split and options.
        dataset: folder of `write_data_sets` -> the data set's path or name.
        options: options of "train" and "eval".
        sizes: records of "train" and "eval".
        class_names: names of the classes.
        labels: split -> all labels in order, None if the labels are random or depend on the data.
        refused: calls that must raise; the arguments replace the row's.
        missing: name of a data set that does not exist, below the folder, with the texts of the message.
    """

    name: str
    open: Callable
    dataset: Callable[[pathlib.Path], str]
    options: dict = dataclasses.field(default_factory=dict)
    sizes: dict
    class_names: tuple[str, ...]
    labels: Callable | None = None
    refused: tuple[Refusal, ...] = ()
    missing: tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.name

    def build(self, root: pathlib.Path, split: str = "train", **changes):
        """Opens a split with the row's options."""
        own = {
            "dataset": self.dataset(root),
            "split": split,
            **self.options.get("all", {}),
            **self.options.get(split, {}),
        }
        return self.open(**{**own, **changes})


def misuse(*fragments, **arguments):
    return refuse(*fragments, error=MisuseError, **arguments)


ANY = (
    misuse("split must be 'train' or 'eval', received 'test'", split="test"),
    misuse("num_classes must be at least 0, received -1", num_classes=-1),
    misuse("name of the data set is empty", dataset=""),
)
ONLY_TFDS = misuse("tfds_split='train[:1%]' is only supported for TFDS sets", tfds_split="train[:1%]")
WRONG_COUNT = misuse("num_classes=4", "has 3 classes", num_classes=4)
FIRST_LABEL = misuse("first_label must be 0, or 1 for TFRecord shards, received 1", first_label=1)
CLASSIFICATION = {"open": open_source, "sizes": COUNTS, "class_names": NAMES, "labels": labels_of}
ROWS = [
    SourceRow(
        name="synthetic",
        **{**CLASSIFICATION, "labels": None, "class_names": ("0", "1", "2")},
        dataset=lambda root: "synthetic",
        options={s: {"num_classes": 3, "image_size": 8, "synthetic_images": n} for s, n in COUNTS.items()},
        refused=(*ANY, ONLY_TFDS, FIRST_LABEL, misuse(synthetic_images=0)),
    ),
    SourceRow(
        name="npz",
        **CLASSIFICATION,
        dataset=lambda root: str(root / "photos.npz"),
        refused=(*ANY, ONLY_TFDS, WRONG_COUNT, FIRST_LABEL),
        missing=("none.npz", "No file", "none.npz"),
    ),
    SourceRow(
        name="folder",
        **CLASSIFICATION,
        dataset=lambda root: str(root / "photos"),
        refused=(
            *ANY,
            ONLY_TFDS,
            WRONG_COUNT,
            FIRST_LABEL,
            misuse("No folder 'some/where'", dataset="some/where"),
            refuse("Did you mean num_classes", error=TypeError, num_clases=3),
        ),
        missing=("some/where", "No folder", "some/where"),
    ),
    SourceRow(
        name="shards",
        **CLASSIFICATION,
        dataset=lambda root: str(root / "shards"),
        refused=(
            *ANY,
            ONLY_TFDS,
            WRONG_COUNT,
            misuse("first_label must be 0, or 1 for TFRecord shards, received 2", first_label=2),
        ),
        missing=("shards/none", "No folder", "shards/none"),
    ),
    SourceRow(
        name="TFDS",
        open=open_source,
        dataset=lambda root: "digits",
        options={"train": {"tfds_split": "train[:11]"}, "eval": {"tfds_split": "test[:5]"}},
        sizes=COUNTS,
        class_names=tuple("0123456789"),
        refused=(
            *ANY,
            FIRST_LABEL,
            misuse("num_classes=9", "has 10 classes", num_classes=9),
            misuse("no split 'dev'", "Choose one of train, test", tfds_split="dev"),
            misuse("Unknown data set 'digit'", "digits", dataset="digit"),
        ),
    ),
    SourceRow(
        name="boxes",
        open=open_detection,
        dataset=lambda root: str(root / "boxes"),
        options={"eval": {"split": "val"}},
        sizes={"train": 8, "eval": 4},
        class_names=("blue", "red"),
        refused=(
            misuse("data_dir does not apply", data_dir="somewhere"),
            misuse("images does not apply", images="somewhere"),
            misuse("Unknown split", "'test'. Known: train, val", split="test"),
            misuse("Unknown class 'red'", "Known: blue", class_names=["blue"]),
            misuse("cannot be the name of a TFDS set", "Check the path", dataset="no such/set"),
        ),
        missing=("none/where/at/all", "No folder or file", "none/where/at/all"),
    ),
    SourceRow(
        name="masks",
        open=open_segmentation,
        dataset=lambda root: str(root / "masks"),
        sizes={"train": 8, "eval": 4},
        class_names=("ground", "blue", "red"),
        refused=(
            misuse("data_dir does not apply", data_dir="somewhere"),
            misuse("has 3 classes", "must be 2", num_classes=2),
            misuse("test.txt", split="test"),
            misuse("0..255", ignore=[256]),
            misuse("must have the 2 classes", "has red", class_names=["ground", "blue"]),
        ),
        missing=("none/where/at/all", "none/where/at/all", "is not a folder"),
    ),
]
