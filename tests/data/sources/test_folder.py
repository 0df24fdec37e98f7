"""Image folders: the layout, `classes.csv`, and listings of many files that stay small."""

import os
import re
import tracemalloc

import pytest
import tensorflow as tf

from keras_bot.data import open_source
from keras_bot.data.sources.folder import open_layout
from keras_bot.errors import MisuseError


def _records(source):
    return list(source.records().as_numpy_iterator())


def test_folder_holds_every_image_under_its_class(image_folder):
    folder = image_folder(classes=3, train=2, val=1)
    (folder / "train" / "class1" / "0.jpg").rename(folder / "train" / "class1" / "a.JPEG")
    (folder / "train" / "class1" / "notes.txt").write_text("no image")
    (folder / "train" / ".hidden").mkdir()
    (folder / "train" / "class1" / "._a.jpg").write_text("as macOS leaves them")
    (folder / "train" / "class1" / "folder.jpg").mkdir()
    source = open_source(str(folder))
    assert source.class_names == ("class0", "class1", "class2")
    assert (source.size, source.num_classes) == (6, 3)
    records = _records(source)
    assert [r["label"] for r in records] == [0, 0, 1, 1, 2, 2]
    assert records[3]["name"] == b"train/class1/a.JPEG"
    assert records[3]["image"] == (folder / "train" / "class1" / "a.JPEG").read_bytes()
    for name in ("validation", "test"):
        (folder / "val").rename(folder / name)
        assert _records(open_source(str(folder), "eval"))[0]["name"] == f"{name}/class0/0.jpg".encode()
        (folder / name).rename(folder / "val")


def test_folders_within_a_class_belong_to_it_and_links_are_followed(tmp_path):
    tree = {"a": ["2.jpg"], "a/deep/er": ["1.JFIF"], "a/.hidden": ["x.jpg"], "b": []}
    folder = _touch(tmp_path / "photos", train=tree)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "3.webp").write_bytes(b"3.webp")
    (folder / "train" / "b" / "linked").symlink_to(tmp_path / "elsewhere")
    (folder / "train" / "b" / "loop").symlink_to(folder / "train" / "b")
    (folder / "train" / "b" / "0.png").symlink_to(tmp_path / "gone.png")  # a broken image, as one that can't be decoded
    (folder / "train" / "c").symlink_to(tmp_path / "elsewhere")
    source = open_source(str(folder))
    assert source.class_names == ("a", "b", "c")
    names = [source.record_name(tf.constant(i, tf.int64)).numpy().decode() for i in range(source.size)]
    assert names == [
        f"train/{name}" for name in ("a/2.jpg", "a/deep/er/1.JFIF", "b/0.png", "b/linked/3.webp", "c/3.webp")
    ]
    records = list(source.records().ignore_errors().as_numpy_iterator())
    assert [(record["label"], record["image"]) for record in records] == [
        (0, b"2.jpg"),
        (0, b"1.JFIF"),
        (1, b"3.webp"),
        (2, b"3.webp"),
    ]


def test_what_is_skipped_is_counted_and_named(tmp_path, capfd):
    files = ["1.jpg", "2.PNG", "notes.txt", "a.heic", "b.heic", "c.heic", "IMG_7", ".4.jpg", ".DS_Store", "._1.jpg"]
    folder = _touch(tmp_path / "photos", train={"a": files, "a/.cache": ["1.jpg"]}, val={"a": ["1.jpg"]})
    (folder / "train" / "lonely.jpg").write_bytes(b"")
    (folder / "train" / "two\nlines.txt").write_bytes(b"")
    os.mkfifo(folder / "train" / "a" / "pipe.jpg")
    assert open_source(str(folder)).size == 2
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 1
    assert re.match(r"keras-bot: skipped 10 entries of .*photos/train, not images \(\.heic: 3, ", lines[0])
    for kind in (".txt: 2", "no suffix: 1", "hidden: 1", "not regular files: 1"):
        assert lines[0].count(kind) <= 1
    assert lines[0].endswith(" and 5 more") and "two\\nlines.txt" in lines[0]
    assert open_source(str(folder), "eval").size == 1
    assert capfd.readouterr().err == ""


def test_a_class_of_other_files_is_refused(tmp_path):
    folder = _touch(tmp_path / "photos", train={"a": ["1.jpg"], "b": ["1.heic", "2.heic"]})
    with pytest.raises(MisuseError, match=r"b contains no images but 2 other files\. Add \.jpg, .*\.webp"):
        open_source(str(folder))


def test_class_folders_that_look_the_same_are_refused(tmp_path):
    names = [os.fsdecode(name) for name in (b"\xff", b"\xfe")]
    folder = _touch(tmp_path / "photos", train={name: ["1.jpg"] for name in names})
    with pytest.raises(MisuseError, match=r"has classes of the same name: '\ufffd' \(classes 0, 1\)\. Give each class"):
        open_source(str(folder))


def test_folder_of_another_form_is_reported(image_folder, tmp_path):
    folder = image_folder(classes=2)
    with pytest.raises(MisuseError, match=r"No folder .*nowhere.*An image folder contains train/CLASS"):
        open_source(str(tmp_path / "nowhere"))
    with pytest.raises(MisuseError, match=r"train is missing\. An image folder contains train/CLASS"):
        open_layout(str(folder / "train"))
    with pytest.raises(MisuseError, match=r"num_classes=5, but .* has 2"):
        open_source(str(folder), num_classes=5)
    (folder / "val" / "zebra").mkdir()
    with pytest.raises(MisuseError, match=r"Class 'zebra' .*val but not in .*train"):
        open_source(str(folder), "eval")
    (folder / "train" / "zebra").mkdir()
    with pytest.raises(MisuseError, match=r"zebra contains no images"):
        open_source(str(folder))
    (folder / "val").rename(folder / "dev")
    with pytest.raises(MisuseError, match=r"no folder to evaluate on.*Add one of val, validation, test"):
        open_source(str(folder), "eval")
    (folder / "val").mkdir()
    with pytest.raises(MisuseError, match=r"val has no class folders"):
        open_source(str(folder), "eval")
    (tmp_path / "empty" / "train").mkdir(parents=True)
    with pytest.raises(MisuseError, match=r"train has no class folders"):
        open_source(str(tmp_path / "empty"))


def _touch(folder, **classes):
    """Empty files: `train` or `val` -> {class: file names}."""
    for split, files in classes.items():
        for name, images in files.items():
            (folder / split / name).mkdir(parents=True)
            for image in images:
                (folder / split / name / image).write_bytes(image.encode("utf-8", "surrogateescape"))
    return folder


def test_names_with_spaces_accents_and_stray_bytes(tmp_path):
    stray = os.fsdecode(b"\xff.jpg")  # no UTF-8
    train = {"écureuil gris": ["b c.jpg", "Å.png", stray], "日本": ["猫 1.JPG"]}
    source = open_source(str(_touch(tmp_path, train=train)))
    assert source.class_names == ("écureuil gris", "日本")
    found = {r["name"]: (r["label"], r["image"]) for r in _records(source)}
    assert found == {
        "train/écureuil gris/b c.jpg".encode(): (0, b"b c.jpg"),
        "train/écureuil gris/Å.png".encode(): (0, "Å.png".encode()),
        "train/écureuil gris/".encode() + b"\xff.jpg": (0, b"\xff.jpg"),
        "train/日本/猫 1.JPG".encode(): (1, "猫 1.JPG".encode()),
    }
    assert open_layout(str(tmp_path)).listing("train").path(2) == os.fsencode(tmp_path / f"train/écureuil gris/{stray}")


def test_names_of_single_positions_and_of_batches(tmp_path):
    sizes = {"a": 70, "b": 1, "c": 130, "d": 63}  # across the blocks in which the graph holds names
    train = {name: [f"{i:0{1 + i % 5}}.jpg" for i in range(size)] for name, size in sizes.items()}
    source = open_source(str(_touch(tmp_path, train=train)))
    expected = [f"train/{name}/{file}".encode() for name in train for file in sorted(train[name])]
    assert [r["name"] for r in _records(source)] == expected
    assert [r["label"] for r in _records(source)] == [i for i, size in enumerate(sizes.values()) for _ in range(size)]
    assert source.record_name(tf.constant(71, tf.int64)).numpy() == expected[71]
    for batch in ([], [263, 0, 64, 63, 200]):
        assert list(source.record_name(tf.constant(batch, tf.int64)).numpy()) == [expected[i] for i in batch]


def test_a_class_without_evaluation_images(tmp_path):
    train = {name: ["1.jpg"] for name in "abcd"}
    _touch(tmp_path, train=train, val={"b": ["x.jpg"], "d": ["y.jpg", "z.jpg"]})
    source = open_source(str(tmp_path), "eval")
    assert source.num_classes == 4
    assert [(r["name"], r["label"]) for r in _records(source)] == [
        (b"val/b/x.jpg", 1),
        (b"val/d/y.jpg", 3),
        (b"val/d/z.jpg", 3),
    ]


def test_class_file_orders_and_names_the_classes(image_folder):
    folder = image_folder(classes=3, train=2, val=1)
    text = '\ufefffolder,name,more\r\nclass2,"crane, the bird",7\r\n\r\nclass0,\r\nclass1, maillot \r\n'
    (folder / "classes.csv").write_text(text, encoding="utf-8", newline="")
    for split, count in (("train", 2), ("eval", 1)):
        source = open_source(str(folder), split)
        assert source.class_names == ("crane, the bird", "class0", "maillot")
        places = [r["name"].split(b"/")[1] for r in _records(source)]
        assert places == [b"class2"] * count + [b"class0"] * count + [b"class1"] * count
        assert [r["label"] for r in _records(source)] == [i for i in range(3) for _ in range(count)]


def test_class_file_may_have_one_column(image_folder):
    folder = image_folder(classes=2)
    (folder / "classes.csv").write_text("wnid\nclass1\nclass0\n")
    assert open_source(str(folder)).class_names == ("class1", "class0")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"classes\.csv lists no classes\. It needs a header"),
        (b"folder,name\n\n , \n", r"classes\.csv lists no classes"),
        (b"class0,a\nclass1,b\n", r"begins with the class folder 'class0'.*Insert 'folder,name' above"),
        (b"f,n\nclass0,a\nclass1,b\nclass0,c\n", r"lists the class folder 'class0' twice"),
        (b"f,n\nclass0,crane\nclass1,crane\n", r"folders 'class0', 'class1' the same name 'crane'\. Give each class"),
        (b"f,n\nclass0,class1\nclass1,\n", r"the same name 'class1'"),
        (b"f,n\nclass0,a\n", r"disagree: it doesn't list train's folder 'class1'\."),
        (b"f,n\nclass0,a\nclass1,b\nzebra,z\n", r"disagree: train has no folder for 'zebra'\."),
        (b"f,n\nclass0,a\nCLASS1,b\n", r"no folder for 'CLASS1'; it doesn't list train's folder 'class1'\. Both"),
        (
            b"f,n\n" + b"\n".join(b"x%d" % i for i in range(9)),
            r"for 'x0', 'x1', 'x2', 'x3', 'x4' and 4 more; it doesn't",
        ),
        (b"f,n\nclass0,\xff\nclass1,b\n", r"is not a CSV file in UTF-8"),
        (b'f,n\nclass0,"a\nclass1,b\n', r"is not a CSV file in UTF-8"),
    ],
)
def test_class_file_that_disagrees_or_has_another_form_is_refused(image_folder, content, message):
    folder = image_folder(classes=2)
    (folder / "classes.csv").write_bytes(content)
    for split in ("train", "eval"):
        with pytest.raises(MisuseError, match=message):
            open_source(str(folder), split)


def test_the_real_class_file(test_data):
    source = open_source(str(test_data / "imagenette224"))
    assert source.class_names[:3] == ("tench", "English springer", "cassette player")
    assert (source.size, source.num_classes) == (800, 10)


@pytest.mark.thorough
def test_a_hundred_thousand_files_take_little_memory(tmp_path):
    for label in range(100):
        directory = tmp_path / "train" / f"n{label:08}"
        directory.mkdir(parents=True)
        first = directory / f"n{label:08}_00000.JPEG"
        first.touch()
        for i in range(1, 1000):
            os.link(first, directory / f"n{label:08}_{i:05}.JPEG")  # quicker than as many inodes
    layout = open_layout(str(tmp_path))
    tracemalloc.start()
    listing = layout.listing("train")
    held, peak = tracemalloc.get_traced_memory()
    assert len(listing) == 100_000
    assert 28 * 100_000 < held < 32 * 100_000  # 20 letters and an offset each
    assert peak < 80 * 100_000
    del listing
    tracemalloc.reset_peak()
    source = open_source(str(tmp_path))
    held, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert source.size == 100_000
    assert held < 12 * 100_000 and peak < 90 * 100_000  # the names are TensorFlow's then
    assert source.record_name(tf.constant(99_999, tf.int64)).numpy() == b"train/n00000099/n00000099_00999.JPEG"
