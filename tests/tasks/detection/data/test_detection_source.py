import numpy as np
import pytest
import tensorflow as tf
from box_files import CAT, DOG, picture, prepare_tfds, prepare_tfds_voc, records, write_coco, write_voc, xml

from keras_bot.errors import MisuseError, RunError
from keras_bot.tasks.detection.data.factory import open_detection


@pytest.fixture
def voc(tmp_path):
    return lambda *images, **options: write_voc(tmp_path / "voc", *images, **options)


@pytest.fixture
def coco(tmp_path):
    return lambda **parts: write_coco(tmp_path / "coco", **parts)


def test_voc_boxes_are_continuous_and_images_without_objects_stay(voc, capsys):
    source = open_detection(voc([(*CAT, 1), DOG], [], [DOG]), "train")
    assert (source.size, source.class_names, source.num_classes, source.max_boxes) == (3, ("cat", "dog"), 2, 2)
    first, second, third = records(source)
    np.testing.assert_array_equal(first["boxes"], [[0, 0, 10, 20], [5, 4, 16, 15]])
    np.testing.assert_array_equal(first["classes"], [0, 1])
    np.testing.assert_array_equal(first["difficult"], [True, False])
    assert second["boxes"].shape == (0, 4) and second["classes"].shape == (0,)
    np.testing.assert_array_equal(third["boxes"], source.annotations.of(2)[0])
    assert [record["index"] for record in (first, second, third)] == [0, 1, 2]
    assert tf.io.decode_image(first["image"]).shape == (30, 40, 3)
    np.testing.assert_array_equal(source.annotations.shapes, [[30, 40]] * 3)
    assert (source.dropped, source.clipped, capsys.readouterr().err) == ((), (), "")
    assert source.train_on_difficult


def test_boxes_are_dropped_or_clipped_counted_and_named(voc, capsys):
    outside, turned, flat = (50, 1, 60, 9), (20, 1, 10, 9), (7, 8, 7, 8)
    over, from_zero = (30, 20, 45, 30), (0, 0, 10, 10)
    bad = [("cat", box) for box in (outside, turned, flat)]
    source = open_detection(voc([*bad, DOG], [("dog", over), ("dog", from_zero)], bad[:1]), "train")
    np.testing.assert_array_equal(source.annotations.of(0)[0], [[5, 4, 16, 15]])
    np.testing.assert_array_equal(source.annotations.of(1)[0], [[19, 29, 30, 40], [0, 0, 10, 10]])
    assert len(source.annotations.of(2)[0]) == 0
    assert len(source.dropped) == 4 and source.dropped[0].startswith("0: cat at") and source.dropped[3][0] == "2"
    assert source.clipped == ("1: dog at y0, x0, y1, x1 = 19, 29, 30, 45",)
    printed = capsys.readouterr().err
    assert (
        printed.count("\n") == 1
        and "4 boxes without" in printed
        and "in 0, 2; 1 box extending beyond the image clipped" in printed
    )


def test_classes_come_from_the_file_the_caller_or_all_annotations(voc):
    folder = voc([CAT], [DOG], classes=["dog", "", "cat", "cow"])
    assert open_detection(folder, "train").class_names == ("dog", "cat", "cow")
    assert open_detection(folder, "train", class_names=["cat", "dog"]).class_names == ("cat", "dog")
    (folder / "classes.txt").unlink()
    (folder / "ImageSets/Main/val.txt").write_text("1\n")
    assert open_detection(folder, "val").class_names == ("cat", "dog")
    with pytest.raises(
        MisuseError, match=r"0\.xml: Unknown class 'cat'. Known: dog. Correct it, or use data with these"
    ):
        open_detection(folder, "train", class_names=["dog"])


def _replace(name, text):
    def spoil(folder):
        (folder / name).write_text(text)

    return spoil


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_replace("Annotations/1.xml", "<annotation><object>"), r"1\.xml is not a readable XML file"),
        (_replace("Annotations/1.xml", ""), r"1\.xml is not a readable XML file"),
        (_replace("Annotations/1.xml", xml([("cat", (1, 2, "x", 4))])), r"1\.xml, object 1: it needs a name"),
        (_replace("Annotations/1.xml", xml([("cat", (1, 2, "nan", 4))])), r"1\.xml, object 1"),
        (_replace("Annotations/1.xml", "<annotation><object><name>cat</name></object></annotation>"), "object 1"),
        (_replace("classes.txt", "dog\n"), r"0\.xml: Unknown class 'cat'"),
        (_replace("classes.txt", "dog\ndog\n"), r"classes\.txt is empty or contains a class twice"),
        (_replace("ImageSets/Main/train.txt", "\n \n"), r"train\.txt is empty"),
        (_replace("ImageSets/Main/train.txt", "0\n1\n0\n"), r"train\.txt lists 0 more than once"),
        (_replace("ImageSets/Main/train.txt", "0\n5\n"), r"no image in JPEGImages for 5"),
        (lambda folder: (folder / "Annotations/1.xml").unlink(), "no XML file in Annotations for 1"),
        (lambda folder: (folder / "ImageSets/Main/train.txt").rename(folder / "ImageSets/Main/tain.txt"), "mean tain"),
        (lambda folder: (folder / "Annotations").rename(folder / "annotations"), "has no folder Annotations"),
    ],
)
def test_a_broken_voc_folder_is_reported_by_file(voc, spoil, message):
    folder = voc([CAT], [DOG])
    spoil(folder)
    with pytest.raises(MisuseError, match=message):
        open_detection(folder, "train")


def test_a_broken_image_needs_a_size_in_itsxml(voc):
    folder = voc([CAT], [DOG])
    (folder / "JPEGImages/1.jpg").write_bytes(b"no image")
    assert open_detection(folder, "train").size == 2  # the pipeline reports it
    (folder / "Annotations/1.xml").write_text(xml([DOG], size=""))
    with pytest.raises(MisuseError, match=r"1\.jpg is not a readable image"):
        open_detection(folder, "train")


def test_a_fingerprint_changes_with_a_box_and_with_apicture(voc):
    folder = voc([CAT], [DOG])
    prints = [open_detection(folder, "train").fingerprint()]
    assert open_detection(folder, "train").fingerprint() == prints[0]
    picture(folder / "JPEGImages/1.jpg", 5)
    prints.append(open_detection(folder, "train").fingerprint())
    (folder / "Annotations/1.xml").write_text(xml([CAT]))
    prints.append(open_detection(folder, "train").fingerprint())
    source = open_detection(folder, "train")
    (folder / "JPEGImages/1.jpg").unlink()
    prints.append(source.fingerprint())
    assert len(set(prints)) == 4


def test_bccd_drops_its_two_boxes_without_size(test_data, capsys):
    sources = {split: open_detection(test_data / "bccd", split) for split in ("train", "val", "test")}
    assert {split: source.size for split, source in sources.items()} == {"train": 205, "val": 87, "test": 72}
    dropped = [line for source in sources.values() for line in source.dropped]
    assert sorted(line.split(":")[0] for line in dropped) == ["BloodImage_00338", "BloodImage_00343"]
    printed = capsys.readouterr().err
    assert (
        printed.count("1 box without an area") == 2 and "BloodImage_00338" in printed and "BloodImage_00343" in printed
    )
    classes = np.concatenate([source.annotations.classes for source in sources.values()])
    np.testing.assert_array_equal(np.bincount(classes), [4153, 372, 361])
    assert sources["train"].class_names == ("RBC", "WBC", "Platelets")
    for source in sources.values():
        boxes = source.annotations.boxes
        assert (boxes >= 0).all() and (boxes <= [480, 640, 480, 640]).all() and (boxes[:, 2:] > boxes[:, :2]).all()


def test_coco_boxes_and_classes(coco):
    folder = coco()
    for source in (
        open_detection(folder, "val2017"),
        open_detection(folder, "val"),
        open_detection(folder / "annotations/instances_val2017.json", "x", images=folder / "val2017"),
    ):
        assert source.class_names == ("cat", "dog")
        empty, full = records(source)
        assert empty["boxes"].shape == (0, 4)
        np.testing.assert_array_equal(full["boxes"], [[5, 4, 16, 15], [0, 0, 10, 20]])
        np.testing.assert_array_equal(full["classes"], [1, 0])
        np.testing.assert_array_equal(full["difficult"], [False, True])
        assert tf.io.decode_image(full["image"]).shape == (30, 40, 3)
        assert not source.train_on_difficult


def test_coco_classes_may_be_those_of_a_network(coco):
    folder = coco()
    source = open_detection(folder, "val", class_names=["cow", "dog", "cat"])
    np.testing.assert_array_equal(source.annotations.classes, [1, 2])
    with pytest.raises(MisuseError, match=r"val2017\.json, annotations\[0\]: Unknown class 'dog'.* or use data"):
        open_detection(folder, "val", class_names=["cat", "cow"])


IMAGE = {"id": 7, "file_name": "7.png", "height": 30, "width": 40}
BOX = {"image_id": 7, "category_id": 3, "bbox": [0, 0, 5, 5]}


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"images": []}, "has no images"),
        ({"categories": []}, "has no categories"),
        ({"annotations": None}, "is not a COCO annotation file"),
        ({"images": [IMAGE, IMAGE]}, r"images\[1\]: the id 7 occurs twice"),
        ({"images": [{**IMAGE, "height": None}]}, r"images\[0\]: it needs the fields id"),
        ({"images": [{**IMAGE, "width": 80}], "annotations": []}, r"7\.png is 80x30 pixels, but .*7\.png is 40x30"),
        ({"images": [{**IMAGE, "width": 0}]}, r"images\[0\]: it needs the fields id"),
        ({"images": [IMAGE, {**IMAGE, "id": 8, "file_name": "8.png"}], "annotations": []}, r"missing: .*8\.png"),
        ({"images": [{**IMAGE, "file_name": "8.png"}], "annotations": []}, r"the image '8\.png' is in none of"),
        ({"categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "a"}]}, "two categories have the same name"),
        ({"annotations": [{**BOX, "bbox": [0, 0, 5]}]}, r"annotations\[0\]: it needs image_id"),
        ({"annotations": [{**BOX, "bbox": [0, 0, 5, float("nan")]}]}, r"annotations\[0\]: it needs image_id"),
        ({"annotations": [BOX, {**BOX, "image_id": 1}]}, r"annotations\[1\]: no image has the id 1"),
        ({"annotations": [BOX, {**BOX, "category_id": 1}]}, r"annotations\[1\]: no category has the id 1"),
    ],
)
def test_a_broken_coco_file_is_reported_by_file_and_entry(coco, parts, message):
    with pytest.raises(MisuseError, match=message) as error:
        open_detection(coco(**parts), "val")
    assert "instances_val2017.json" in str(error.value)


def test_json_too_deep_to_read_is_reported(coco):
    folder = coco()
    (folder / "annotations/instances_val2017.json").write_text("[" * 100_000)
    with pytest.raises(MisuseError, match="not a readable JSON file"):
        open_detection(folder, "val")


def test_coco_boxes_are_dropped_or_clipped_and_a_missing_folder_is_reported(coco, capsys):
    boxes = ([50, 2, 5, 5], [3, 4, 0, 9], [30, 20, 20, 10])
    folder = coco(annotations=[{**BOX, "bbox": box} for box in boxes])
    source = open_detection(folder, "val")
    np.testing.assert_array_equal(source.annotations.of(1)[0], [[20, 30, 30, 40]])
    assert source.dropped[1] == "7.png: cat at y0, x0, y1, x1 = 4, 3, 13, 3" and len(source.clipped) == 1
    assert "2 boxes without an area inside the image dropped, in 7.png; 1 box extending" in capsys.readouterr().err
    with pytest.raises(MisuseError, match=r"2 images are missing: .*nowhere/9\.png"):
        open_detection(folder, "val", images=folder / "nowhere")


@pytest.mark.parametrize("names", [(), ("photos", "labels")])
def test_a_folder_of_neither_layout_is_reported(tmp_path, names):
    for name in names:
        (tmp_path / name).mkdir()
    with pytest.raises(MisuseError, match=", ".join(sorted(names)) or "an empty folder") as error:
        open_detection(tmp_path, "eval")
    assert "has no COCO annotation file" in str(error.value) and "Pascal VOC's layout" in str(error.value)


def test_other_paths_are_reported(coco, tmp_path):
    folder = coco()
    with pytest.raises(MisuseError, match="annotation file for the split 'train'"):
        open_detection(folder, "train")
    (tmp_path / "text.json").write_text("{")
    with pytest.raises(MisuseError, match=r"text\.json is not a readable JSON file"):
        open_detection(tmp_path / "text.json", "train")
    (tmp_path / "list.json").write_text("[]")
    with pytest.raises(MisuseError, match=r"list\.json is not a COCO annotation file"):
        open_detection(tmp_path / "list.json", "train")
    with pytest.raises(MisuseError, match="data_dir does not apply"):
        open_detection(folder, "val", data_dir="x")
    with pytest.raises(MisuseError, match="Unknown data set 'no_such_set'"):
        open_detection("no_such_set", "train")
    for path in (tmp_path / "nowhere", "./nowhere", "nowhere/annotations/train.json", "train set"):
        with pytest.raises(MisuseError, match="No folder or file"):
            open_detection(path, "train")
    with pytest.raises(MisuseError, match="Detection needs an Image `image` and a Sequence"):
        open_detection("digits", "train", data_dir=str(tmp_path / "tfds"))


def _same_boxes(source, tfds_source):
    """The images may have another order."""
    sets = []
    for one in (source, tfds_source):
        found = records(one)
        assert [record["index"] for record in found] == list(range(one.size))
        sets.append({record["image"]: record for record in found})
    assert set(sets[0]) == set(sets[1]) and len(sets[0]) == source.size == tfds_source.size
    for image, record in sets[0].items():
        for part in ("boxes", "classes", "difficult"):
            np.testing.assert_array_equal(record[part], sets[1][image][part])


@pytest.fixture
def voc_2007(voc, tmp_path, monkeypatch):
    """A VOC folder of five images, and the files and data_dir of TFDS's voc/2007 made from it."""
    flat = ("cat", (7, 8, 7, 8))
    folder = voc([(*CAT, 1), DOG], [], [DOG, flat], [flat], [("dog", (3, 3, 40, 30)), CAT])
    return folder, prepare_tfds_voc(folder, 2007, tmp_path / "tfds", monkeypatch), str(tmp_path / "tfds")


@pytest.mark.thorough
def test_tfds_voc_equals_its_files(voc_2007, capsys):
    folder, files, data_dir = voc_2007
    assert len(files) == 2
    source = open_detection("voc/2007", "train", data_dir=data_dir)
    assert source.num_classes == 20 and source.train_on_difficult
    assert len(source.dropped) == 2 and "2 boxes without an area" in capsys.readouterr().err
    assert source.dropped[0].split("[")[0] in [file.name for file in files]
    _same_boxes(open_detection(folder, "train", class_names=source.class_names), source)
    orders = [[int(source.read(*key)["index"]) for key in source.keys(tf.constant([seed, 2]), 9)] for seed in range(4)]
    assert all(sorted(order) == list(range(5)) for order in orders) and len({*map(tuple, orders)}) > 1
    turned = open_detection("voc/2007", "train", data_dir=data_dir, class_names=source.class_names[::-1])
    np.testing.assert_array_equal(turned.annotations.classes, 19 - source.annotations.classes)
    part = open_detection("voc/2007", "train[20%:40%]+train[60%:]", data_dir=data_dir)
    assert [record["index"] for record in records(part)] == [0, 1, 2]
    np.testing.assert_array_equal(part.annotations.of(2)[0], source.annotations.of(4)[0])


def test_a_tfds_set_tells_what_is_wrong(voc_2007):
    _, files, data_dir = voc_2007
    with pytest.raises(MisuseError, match="no split 'val'"):
        open_detection("voc/2007", "val", data_dir=data_dir)
    with pytest.raises(MisuseError, match=r"TFDS set 'voc/2007': Unknown class 'aeroplane'.* or use data"):
        open_detection("voc/2007", "train", data_dir=data_dir, class_names=["dog", "cow"])
    files[0].write_bytes(files[0].read_bytes()[:-5])
    with pytest.raises(RunError, match="is truncated"):
        open_detection("voc/2007", "train", data_dir=data_dir)


def test_tfds_coco_equals_its_files(coco, tmp_path, monkeypatch):
    categories = [{"id": 2 * i + 1, "name": f"class {i}"} for i in range(80)]
    boxes = [{"bbox": [4, 5, 11, 11], "category_id": 159}, {"bbox": [0, 0, 20.5, 10.25], "category_id": 3}]
    numbered = [{"id": i, "image_id": 7, "iscrowd": i, "area": 9, **box} for i, box in enumerate(boxes)]
    folder = coco(categories=categories, annotations=numbered)
    kind = __import__("tensorflow_datasets.object_detection.coco", fromlist=["coco"]).AnnotationType.BBOXES
    paths = {"image_dir": str(folder), "annotation_dir": str(folder), "split_name": "val2017"}
    prepare_tfds("coco/2017", tmp_path / "tfds", monkeypatch, **paths, annotation_type=kind, panoptic_dir=None)
    source = open_detection("coco/2017", "train", data_dir=str(tmp_path / "tfds"))
    assert not source.train_on_difficult
    files = open_detection(folder, "val")
    assert source.class_names == files.class_names
    _same_boxes(files, source)
