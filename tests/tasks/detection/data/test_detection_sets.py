"""Detection sets joined by "+": names, splits, classes, order, and what can't be joined."""

import json
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
import tensorflow as tf
from box_files import CAT, DOG, prepare_tfds_voc, records, write_coco, write_voc
from PIL import Image

from keras_bot.errors import MisuseError
from keras_bot.tasks.detection.data.factory import open_detection
from keras_bot.tasks.detection.data.sets import first_set, set_names

FLAT = ("dog", (7, 8, 7, 8))


@pytest.fixture
def two(tmp_path):
    """Two VOC folders whose images have the same names, and whose classes have other numbers; the names of both."""
    a = write_voc(tmp_path / "a", [CAT], [DOG, FLAT], [], classes=["cat", "dog"])
    b = write_voc(tmp_path / "b", [DOG, (*CAT, 1)], [CAT, FLAT], classes=["dog", "cat"], first=10)
    return a, b, f"{a}+{b}"


def _order(source, seed, first=0):
    keys = source.keys(tf.constant([seed, 1], tf.int64), 9, first)
    return [int(record["index"]) for record in keys.map(source.read)]


def _check_orders(source):
    """A shuffled pass has every image once, is a function of its seed, and can begin anywhere."""
    orders = [_order(source, seed) for seed in range(4)]
    assert all(sorted(order) == list(range(source.size)) for order in orders) and len({*map(tuple, orders)}) > 1
    assert _order(source, 0) == orders[0]
    for first in (1, source.size - 1):
        assert _order(source, 0, first) == orders[0][first:]


def test_a_path_that_exists_is_one_part_though_it_has_a_plus(tmp_path):
    (tmp_path / "c++").mkdir()
    (tmp_path / "a+b.json").touch()
    assert set_names("voc/2007+voc/2012") == ["voc/2007", "voc/2012"]
    assert set_names(tmp_path / "c++") == [str(tmp_path / "c++")]
    joined = f"{tmp_path}/a+b.json+{tmp_path}/c+++{tmp_path}"
    assert set_names(joined) == [f"{tmp_path}/a+b.json", f"{tmp_path}/c++", str(tmp_path)]
    assert first_set(joined) == f"{tmp_path}/a+b.json" and first_set("voc/2007+voc/2012") == "voc/2007"
    with pytest.raises(MisuseError, match=f"that do not exist: voc/2007 and {tmp_path}/d. Correct the path, or join"):
        set_names(f"voc/2007+{joined}+{tmp_path}/d")
    for name in ("a+", "+a", "a++b"):
        with pytest.raises(MisuseError, match=r"a data set on both sides of each \+"):
            set_names(name)


def test_joined_folders_are_one_source(two, capsys):
    a, b, joined = two
    source = open_detection(joined, "train")
    printed = capsys.readouterr().err
    assert (
        printed.count("\n") == 1
        and f"2 boxes without an area inside the image dropped, in {a} train 1, {b} " in printed
    )
    parts = [open_detection(folder, "train", class_names=["cat", "dog"]) for folder in (a, b)]
    expected = [record for part in parts for record in records(part)]
    found = records(source)
    assert (source.size, source.class_names, source.max_boxes) == (5, ("cat", "dog"), 2) and len(found) == 5
    for place, (one, other) in enumerate(zip(found, expected, strict=True)):
        assert one["index"] == place and one["image"] == other["image"]
        for part in ("boxes", "classes", "difficult"):
            np.testing.assert_array_equal(one[part], other[part])
    assert len(set(source.annotations.names)) == 5
    names = source.record_name(tf.range(5, dtype=tf.int64)).numpy().tolist()
    assert names[1] == f"{a}/JPEGImages/1.jpg".encode() and names[4] == f"{b}/JPEGImages/1.jpg".encode()
    assert source.fingerprint() not in [part.fingerprint() for part in parts]
    _check_orders(source)


def test_joined_sets_count_by_given_classes(two):
    _, b, joined = two
    source = open_detection(joined, "train", class_names=["cow", "dog", "cat"])
    np.testing.assert_array_equal(source.annotations.classes, [2, 1, 1, 2, 2])
    with pytest.raises(
        MisuseError, match=rf"{b}/Annotations/0\.xml: Unknown class 'dog'. Known: cat, cow. Correct it, or"
    ):
        open_detection(f"{b}+{joined}", "train", class_names=["cat", "cow"])


def test_splits_joined_by_plus(two):
    a, b, joined = two
    for folder, names in ((a, "02"), (b, "0")):
        (folder / "ImageSets/Main/train.txt").write_text("1\n")
        (folder / "ImageSets/Main/test.txt").write_text("\n".join(names))
    source = open_detection(joined, "test+train")
    paths = [path.decode() for path in source.record_name(tf.range(5, dtype=tf.int64)).numpy()]
    places = zip((a, a, a, b, b), "02101", strict=True)
    assert paths == [f"{folder}/JPEGImages/{name}.jpg" for folder, name in places]
    assert open_detection(first_set(joined), "eval").name == f"{a} test"
    (a / "ImageSets/Main/val.txt").write_text("1\n")
    assert open_detection(a, "eval").name == f"{a} val"
    with pytest.raises(MisuseError, match=f"Unknown split of {b} 'val'"):
        open_detection(joined, "val")
    (a / "ImageSets/Main/val.txt").write_text("0\n1\n")
    with pytest.raises(MisuseError, match=r"train\.txt and .*val\.txt lists 1 more than once"):
        open_detection(a, "train+val")


def test_annotation_files_joined(tmp_path):
    folder = write_coco(tmp_path / "coco")
    other = {"images": [{"id": 7, "file_name": "1.png", "height": 30, "width": 40}]}
    other["categories"] = [{"id": 1, "name": "dog"}, {"id": 2, "name": "cat"}]
    other["annotations"] = [{"image_id": 7, "category_id": 2, "bbox": [1, 2, 3, 4]}]
    (folder / "train2017").mkdir()
    (folder / "val2017/9.png").rename(folder / "train2017/1.png")
    (folder / "annotations/train2017.json").write_text(json.dumps(other))
    val = folder / "annotations/instances_val2017.json"
    val.write_text(
        json.dumps({**json.loads(val.read_text()), "images": [{**other["images"][0], "file_name": "7.png"}]})
    )
    for dataset, split in ((folder, "train2017+val"), (f"{folder}/annotations/train2017.json+{val}", "all")):
        source = open_detection(dataset, split)
        assert source.class_names == ("dog", "cat") and source.size == 2 and not source.train_on_difficult
        np.testing.assert_array_equal(source.annotations.of(0)[0], [[2, 1, 6, 4]])
        np.testing.assert_array_equal(source.annotations.classes, [1, 0, 1])
        assert source.annotations.names[0].endswith("1.png")
    assert open_detection(folder, "eval").name == f"{folder} val"


def test_what_cannot_be_joined(two, tmp_path):
    a, b, joined = two
    (tmp_path / "link").symlink_to(b)
    for dataset in (f"{a}+{a}", f"{a}+{tmp_path}/./a", f"{joined}+{tmp_path}/link"):
        with pytest.raises(MisuseError, match=r"contains .*JPEGImages/0\.jpg.* twice"):
            open_detection(dataset, "train")
    coco = write_coco(tmp_path / "coco")
    (coco / "annotations/train.json").write_bytes((coco / "annotations/instances_val2017.json").read_bytes())
    (coco / "val2017").rename(coco / "train")
    with pytest.raises(MisuseError, match="both difficult objects and crowds"):
        open_detection(f"{b}+{coco}", "train")
    assert not open_detection(f"{a}+{coco}", "train").train_on_difficult
    (b / "classes.txt").write_text("bird\ncat\ndog")
    (a / "classes.txt").write_text("cat\ndog\ncow\npig")
    with pytest.raises(
        MisuseError, match=f"only {a} train has cow, pig and only {b} train has bird. Use the same names"
    ):
        open_detection(joined, "train")


@pytest.fixture
def years(tmp_path, monkeypatch):
    """Two VOC folders, and the data_dir of TFDS's voc/2007 and voc/2012 made from them."""
    folders = []
    for year, images in ((2007, ([(*CAT, 1), DOG], [], [DOG, FLAT])), (2012, ([CAT], [("dog", (3, 3, 40, 30)), CAT]))):
        folders.append(write_voc(tmp_path / str(year), *images, first=year))
        prepare_tfds_voc(folders[-1], year, tmp_path / "tfds", monkeypatch)
    return folders, str(tmp_path / "tfds")


@pytest.mark.thorough
def test_joined_tfds_sets_are_one_source(years, tmp_path, capsys):
    folders, data_dir = years
    source = open_detection("voc/2007+voc/2012", "train", data_dir=data_dir)
    assert "voc/2007+voc/2012 train: 1 box without an area inside the image dropped, in voc/2007" in (
        capsys.readouterr().err
    )
    assert source.size == 5 and source.num_classes == 20 and source.train_on_difficult
    names = [source.record_name(*key).numpy().decode() for key in source.keys(None, 1)]
    assert tuple(names) == source.annotations.names and len(set(names)) == 5
    assert names[0] == "voc/2007 train voc-train.tfrecord-00000-of-00002[0]" and names[4].startswith("voc/2012 train")
    keys = next(iter(source.keys(None, 1).batch(5)))
    assert [name.decode() for name in source.record_name(*keys).numpy()] == names
    files = open_detection("+".join(map(str, folders)), "train", class_names=source.class_names)
    theirs = {record["image"]: record for record in records(files)}
    found = records(source)
    assert [record["index"] for record in found] == list(range(5)) and {r["image"] for r in found} == set(theirs)
    for record in found:
        for part in ("boxes", "classes", "difficult"):
            np.testing.assert_array_equal(record[part], theirs[record["image"]][part])
    _check_orders(source)


def test_a_tfds_record_comes_once(years):
    _, data_dir = years
    for dataset, split in (
        ("voc/2007", "train+train[:1]"),
        ("voc/2007+voc/2007", "train"),
        ("voc/2007", "train+train"),
    ):
        with pytest.raises(MisuseError, match=r"voc/2007.* contains records of .*tfrecord.* twice"):
            open_detection(dataset, split, data_dir=data_dir)
    source = open_detection("voc/2012", "train[1:]+train[:1]", data_dir=data_dir)
    assert [record["index"] for record in records(source)] == [0, 1]


def test_bccd_in_two_splits(test_data):
    folder = test_data / "bccd"
    whole = open_detection(folder, "train+val")
    parts = [open_detection(folder, split) for split in ("train", "val")]
    assert whole.size == 292 and whole.dropped == parts[0].dropped + parts[1].dropped
    for name in ("boxes", "classes", "shapes", "names"):
        expected = np.concatenate([getattr(part.annotations, name) for part in parts])
        np.testing.assert_array_equal(getattr(whole.annotations, name), expected)
    for dataset, split in ((f"{folder}+{folder}", "train"), (f"{folder}+{folder}", "train+val")):
        with pytest.raises(MisuseError, match=r"contains .*BloodImage_.* twice"):
            open_detection(dataset, split)


def test_bccd_as_coco_has_the_same_boxes(test_data, tmp_path):
    folder = test_data / "bccd"
    names = (folder / "ImageSets/Main/train.txt").read_text().split()
    classes = (folder / "classes.txt").read_text().split()
    images, entries = [], []
    for number, name in enumerate(names):
        width, height = Image.open(folder / f"JPEGImages/{name}.jpg").size
        images.append({"id": number, "file_name": f"{name}.jpg", "height": height, "width": width})
        for item in ElementTree.parse(folder / f"Annotations/{name}.xml").iter("object"):
            x0, y0, x1, y1 = (int(item.findtext(f"bndbox/{edge}")) for edge in ("xmin", "ymin", "xmax", "ymax"))
            box = [x0 - 1, y0 - 1, x1 - x0 + 1, y1 - y0 + 1] if x1 > x0 and y1 > y0 else [x0, y0, x1 - x0, y1 - y0]
            category = 10 - classes.index(item.findtext("name"))
            entries.append({"image_id": number, "category_id": category, "bbox": box})
    categories = [{"id": 10 - number, "name": name} for number, name in enumerate(classes)]
    content = {"images": images, "annotations": entries, "categories": categories}
    (tmp_path / "bccd.json").write_text(json.dumps(content))
    voc = open_detection(folder, "train")
    coco = open_detection(tmp_path / "bccd.json", "train", images=folder / "JPEGImages", class_names=voc.class_names)
    for name in ("boxes", "classes", "difficult", "offsets", "shapes"):
        np.testing.assert_array_equal(getattr(coco.annotations, name), getattr(voc.annotations, name))
    assert len(voc.annotations.boxes) > 2000 and len(coco.dropped) == len(voc.dropped) == 1
    assert voc.fingerprint() == coco.fingerprint()
