"""Writers of tiny detection sets for tests: Pascal VOC folders, COCO folders, and TFDS sets made of such files."""

import json

import numpy as np
import pytest
from builders import write_image

CAT, DOG = ("cat", (1, 1, 20, 10)), ("dog", (5, 6, 15, 16))  # xmin, ymin, xmax, ymax as VOC counts
_SIZE = "<size><width>40</width><height>30</height></size>"


def xml(objects, size=_SIZE):
    """A VOC annotation of objects (name, box) or (name, box, difficult)."""
    return f"<annotation>{size}{''.join(_object(*item) for item in objects)}</annotation>"


def _object(name, box, difficult=0):
    edges = "".join(f"<{edge}>{x}</{edge}>" for edge, x in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True))
    part = "<part><name>head</name><bndbox><xmin>1</xmin></bndbox></part>"
    return f"<object><name>{name}</name><difficult>{difficult}</difficult><bndbox>{edges}</bndbox>{part}</object>"


def picture(path, number=0):
    """An image of noise, 40x30."""
    pixels = np.random.default_rng(number).integers(0, 256, (30, 40, 3), np.uint8)
    write_image(path, pixels)


def write_voc(folder, *images, classes=None, first=0):
    """A VOC folder of images "0", "1", … with these lists of objects, all in `train`; `first` makes other pictures."""
    for name in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (folder / name).mkdir(parents=True)
    for number, objects in enumerate(images):
        picture(folder / f"JPEGImages/{number}.jpg", first + number)
        (folder / f"Annotations/{number}.xml").write_text(xml(objects))
    (folder / "ImageSets/Main/train.txt").write_text("".join(f"{i}\n" for i in range(len(images))))
    if classes:
        (folder / "classes.txt").write_text("\n".join(classes))
    return folder


def write_coco(folder, **parts):
    """A COCO folder of two images in `val`; parts given by name replace those of the annotation file."""
    (folder / "annotations").mkdir(parents=True)
    (folder / "val2017").mkdir()
    for number in (7, 9):
        picture(folder / f"val2017/{number}.png", number)
    own = {
        "images": [{"id": i, "file_name": f"{i}.png", "height": 30, "width": 40} for i in (9, 7)],
        "categories": [{"id": 18, "name": "dog"}, {"id": 3, "name": "cat"}],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 18, "bbox": [4, 5, 11, 11], "iscrowd": 0},
            {"id": 2, "image_id": 7, "category_id": 3, "bbox": [0, 0, 20, 10], "iscrowd": 1},
        ],
    }
    (folder / "annotations/instances_val2017.json").write_text(json.dumps({**own, **parts}))
    return folder


def records(source):
    """All records of a source, in NumPy."""
    return [{k: v.numpy() for k, v in source.read(*key).items()} for key in source.keys(None, 1)]


def prepare_tfds(name, data_dir, monkeypatch, **paths):
    """Prepare a TFDS set in two shards by its own code, whose download is replaced by local `paths`: its files."""
    tfds = pytest.importorskip("tensorflow_datasets")
    builder = tfds.builder(name, data_dir=data_dir)
    monkeypatch.setattr(type(builder), "_split_generators", lambda self, _: {"train": self._generate_examples(**paths)})
    builder.download_and_prepare(download_config=tfds.download.DownloadConfig(num_shards=2, try_download_gcs=False))
    return sorted(builder.data_path.glob("*.tfrecord*"))


def prepare_tfds_voc(folder, year, data_dir, monkeypatch):
    """Prepare TFDS's voc/2007 or voc/2012 from a folder of `write_voc`: its files."""
    for path in (folder / "Annotations").glob("*.xml"):
        more = "<pose>Left</pose><truncated>0</truncated><difficult>"
        path.write_text(path.read_text().replace("<difficult>", more))
    (data_dir / f"all/VOCdevkit{year}/VOCdevkit").mkdir(parents=True)
    (data_dir / f"all/VOCdevkit{year}/VOCdevkit/VOC{year}").symlink_to(folder)
    paths = {"data_path": str(data_dir / f"all/VOCdevkit{year}"), "set_name": "train"}
    return prepare_tfds(f"voc/{year}", data_dir, monkeypatch, **paths)
