import numpy as np
import pytest
from builders import write_image

from keras_bot.errors import MisuseError, RunError
from keras_bot.tasks.segmentation.data.factory import open_segmentation

CLASSES = "id,name,r,g,b\n0,sky,1,2,3\n2,road,4,5,6\n7,Void,0,0,0\n"


@pytest.fixture
def pairs(tmp_path):
    """A folder of three pairs, 8x6, with ids 0, 2 and 7, of which 7 is void."""
    draw = np.random.default_rng(0)
    for name in "abc":
        write_image(tmp_path / "images" / f"{name}.jpg", draw.integers(0, 256, (6, 8, 3), np.uint8))
        write_image(tmp_path / "masks" / f"{name}.png", draw.choice(np.array([0, 2, 7], np.uint8), (6, 8)))
    (tmp_path / "train.txt").write_text("b\na\n\n")
    (tmp_path / "val.txt").write_text("c.jpg\n")
    (tmp_path / "classes.csv").write_text(CLASSES)
    return tmp_path


def test_ids_become_classes_in_their_order(pairs):
    source = open_segmentation(pairs)
    assert source.class_names == ("sky", "road") and source.class_ids == (0, 2) and source.num_classes == 2
    assert source.ignored == (7, 255)
    table = source.class_table()
    assert [table[i] for i in (0, 2, 7, 255)] == [0, 1, 255, 255]
    assert np.all(np.delete(table, [0, 2, 7, 255]) == -1)
    assert source.palette.tolist() == [[1, 2, 3], [4, 5, 6]] and source.palette.dtype == np.uint8


def test_lists_give_the_order_and_the_files(pairs):
    source = open_segmentation(pairs, "train")
    assert source.size == 2
    assert [path.rsplit("/", 1)[1] for path in source.image_files] == ["b.jpg", "a.jpg"]
    assert [path.rsplit("/", 1)[1] for path in source.mask_files] == ["b.png", "a.png"]
    assert open_segmentation(pairs, "eval").image_files == open_segmentation(pairs, "val").image_files
    record = source.read(1)
    assert record["image"].numpy() == (pairs / "images" / "a.jpg").read_bytes()
    assert record["mask"].numpy() == (pairs / "masks" / "a.png").read_bytes()
    assert b"a.jpg" in source.record_name(1).numpy() and b"a.png" in source.record_name(1).numpy()


def test_pascal_voc_layout_with_folders_in_names(pairs, tmp_path):
    root = tmp_path / "voc"
    for old, new in (("images", "JPEGImages/city.1"), ("masks", "SegmentationClass/city.1")):
        (root / new).parent.mkdir(parents=True)
        (pairs / old).rename(root / new)
    (root / "ImageSets" / "Segmentation").mkdir(parents=True)
    (root / "ImageSets" / "Segmentation" / "train.txt").write_text("city.1/a\ncity.1/b\n")
    source = open_segmentation(root, num_classes=3)
    assert source.class_names == ("class0", "class1", "class2") and source.ignored == (255,)
    assert source.mask_files[1].endswith("SegmentationClass/city.1/b.png")


def test_without_a_class_file_the_ids_follow_each_other(pairs):
    (pairs / "classes.csv").unlink()
    source = open_segmentation(pairs, num_classes=3, ignore=[0, 2])
    assert source.class_ids == (1, 3, 4) and source.ignored == (0, 2, 255)
    assert len({tuple(colour) for colour in source.palette}) == 3


def test_classes_may_be_those_of_a_network(pairs):
    source = open_segmentation(pairs, class_names=["road", "sky"])
    assert source.class_names == ("road", "sky") and source.class_ids == (2, 0) and source.ignored == (7, 255)
    assert source.palette.tolist() == [[4, 5, 6], [1, 2, 3]]
    assert [source.class_table()[i] for i in (0, 2, 7, 255, 1)] == [1, 0, 255, 255, -1]
    assert source.fingerprint() != open_segmentation(pairs).fingerprint()
    for names, difference in (
        (["sky", "road", "car"], "lacks car"),
        (["sky"], "has road"),
        (["sky", "lane"], "lacks lane and has road"),
        (["sky", "sky"], "has road"),
    ):
        with pytest.raises(
            MisuseError,
            match=rf"classes\.csv must have the {len(names)} classes sky.* but it {difference}\. Use the same names",
        ):
            open_segmentation(pairs, class_names=names)
    (pairs / "classes.csv").write_text("id,name\n0,sky\n2,road\n7,sky\n")
    assert open_segmentation(pairs, class_names=["sky", "road", "sky"]).class_ids == (0, 2, 7)
    with pytest.raises(MisuseError, match="contains a name twice"):
        open_segmentation(pairs, class_names=["sky", "sky", "road"])
    (pairs / "classes.csv").unlink()
    assert open_segmentation(pairs, class_names=["class0", "class1"]).num_classes == 2
    with pytest.raises(MisuseError, match="lacks sky, road and has class0, class1"):
        open_segmentation(pairs, class_names=["sky", "road"])


@pytest.fixture
def scenes(pairs, tmp_path):
    """ADE20K's layout: a and b for training, c for validation; ids 0 to 2."""
    root = tmp_path / "ADEChallengeData2016"
    for split, names in (("training", "ab"), ("validation", "c")):
        for old, new, suffix in (("images", "images", "jpg"), ("masks", "annotations", "png")):
            (root / new / split).mkdir(parents=True)
            for name in names:
                (pairs / old / f"{name}.{suffix}").rename(root / new / split / f"{name}.{suffix}")
    rows = ["Idx\tRatio\tTrain\tVal\tName", "1\t0.1\t11\t2\twall", "2 \t0.1\t6\t6\tbuilding, edifice ", ""]
    (root / "objectInfo150.txt").write_text("\n".join(rows))
    return root


def test_the_layout_of_ade20k(scenes):
    source = open_segmentation(scenes, num_classes=2)
    assert source.class_names == ("wall", "building") and source.class_ids == (1, 2) and source.ignored == (0, 255)
    assert [path.split("2016/")[1] for path in source.mask_files] == [f"annotations/training/{x}.png" for x in "ab"]
    assert open_segmentation(scenes, "training").image_files == source.image_files
    for split in ("eval", "val", "validation"):
        assert open_segmentation(scenes, split).image_files == (str(scenes / "images/validation/c.jpg"),)
    with pytest.raises(MisuseError, match="No list or folder of the split 'test'"):
        open_segmentation(scenes, "test")
    (scenes / "objectInfo150.txt").unlink()
    counted = open_segmentation(scenes, num_classes=150)
    assert counted.class_ids == tuple(range(1, 151)) and counted.class_names[0] == "class1" and counted.ignored[0] == 0
    (scenes / "annotations/training/b.png").unlink()
    with pytest.raises(MisuseError, match=r"no mask in .*annotations for 1 name: training/b\."):
        open_segmentation(scenes, num_classes=2)
    for path in (scenes / "images/training").iterdir():
        path.unlink()
    with pytest.raises(MisuseError, match=r"training contains no images\. Add"):
        open_segmentation(scenes, num_classes=2)


def test_another_object_info_is_reported(scenes):
    (scenes / "objectInfo150.txt").write_text("Idx Name\n1 wall\n")
    with pytest.raises(MisuseError, match=r"objectInfo150\.txt cannot be read at .* columns separated by tabs"):
        open_segmentation(scenes)


def test_class_255_would_be_ignored(pairs):
    rows = [f"{i},a{i}" for i in range(256)]
    (pairs / "classes.csv").write_text("\n".join(["id,name", *rows]))
    with pytest.raises(MisuseError, match="number of classes must be 1 to 255"):
        open_segmentation(pairs)
    assert open_segmentation(pairs, ignore=[255]).num_classes == 255


def test_largest_is_of_all_masks(pairs):
    write_image(pairs / "masks" / "a.png", np.zeros((4, 11), np.uint8))
    assert open_segmentation(pairs).largest() == (6, 11)
    (pairs / "masks" / "a.png").write_bytes((pairs / "images" / "a.jpg").read_bytes())
    with pytest.raises(RunError, match=r"a\.png is not a PNG"):
        open_segmentation(pairs).largest()
    (pairs / "masks" / "a.png").write_bytes(b"")
    with pytest.raises(RunError, match=r"a\.png"):
        open_segmentation(pairs).largest()


def test_ids_to_ignore_can_be_named(pairs):
    source = open_segmentation(pairs, ignore=[0])
    assert source.class_names == ("road", "Void") and source.ignored == (0, 255)
    assert open_segmentation(pairs, ignore=[]).num_classes == 3
    with pytest.raises(MisuseError, match=r"0\.\.255"):
        open_segmentation(pairs, ignore=[256])


def test_fingerprint_is_of_the_content(pairs):
    before = open_segmentation(pairs).fingerprint()
    assert before == open_segmentation(pairs).fingerprint() and len(before) == 16
    assert before != open_segmentation(pairs, "val").fingerprint()
    assert before != open_segmentation(pairs, ignore=[0]).fingerprint()
    write_image(pairs / "masks" / "a.png", np.zeros((6, 8), np.uint8))
    assert before != open_segmentation(pairs).fingerprint()


def test_missing_files_are_named(pairs):
    (pairs / "masks" / "a.png").unlink()
    with pytest.raises(MisuseError, match=r"train\.txt: no mask in .*masks for 1 name: a\."):
        open_segmentation(pairs)
    (pairs / "train.txt").write_text("b\nnowhere/x\ny.png\n")
    with pytest.raises(MisuseError, match=r"no image in .*images for 2 names: nowhere/x, y\.png\."):
        open_segmentation(pairs)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda root: (root / "train.txt").write_text("\n \n"), "train.txt is empty"),
        (lambda root: (root / "train.txt").write_bytes(b"\xff\xfe"), "UTF-8"),
        (lambda root: (root / "train.txt").unlink(), "No list or folder of the split 'train'"),
        (lambda root: (root / "masks").rename(root / "labels"), "no folders images and masks"),
        (lambda root: (root / "classes.csv").unlink(), "or pass num_classes"),
        (lambda root: (root / "classes.csv").write_text("id,name\n"), "number of classes must be 1 to 255"),
        (lambda root: (root / "classes.csv").write_text("id,name\n0,a\n0,b\n"), "cannot be read at"),
        (lambda root: (root / "classes.csv").write_text("id,name\n0\n"), "cannot be read at"),
        (lambda root: (root / "classes.csv").write_text("id,name\nzero,a\n"), "cannot be read at"),
        (lambda root: (root / "classes.csv").write_text("id,name\n256,a\n"), "cannot be read at"),
        (lambda root: (root / "classes.csv").write_text("id,name,r,g,b\n1,a,0,0,256\n"), "cannot be read at"),
        (lambda root: (root / "classes.csv").write_text("id,name,r,g,b\n1,a,0,0\n"), "cannot be read at"),
        (lambda root: (root / "classes.csv").write_bytes(b"id,name\n0,\xff\n"), "cannot be read at"),
    ],
)
def test_other_layouts_are_reported(pairs, spoil, message):
    spoil(pairs)
    with pytest.raises(MisuseError, match=message):
        open_segmentation(pairs)


def test_other_arguments_are_reported(pairs):
    with pytest.raises(MisuseError, match=r"has 2 classes .* must be 3\."):
        open_segmentation(pairs, num_classes=3)
    with pytest.raises(MisuseError, match="is not a folder"):
        open_segmentation(pairs / "nothing")
    with pytest.raises(MisuseError, match="no folders images and masks"):
        open_segmentation(pairs / "images")
    with pytest.raises(MisuseError, match="is not a folder"):
        open_segmentation(pairs / "classes.csv")
    with pytest.raises(MisuseError, match=r"test\.txt"):
        open_segmentation(pairs, "test")


def test_camvid(test_data):
    source = open_segmentation(test_data / "camvid", "eval")
    assert source.size == 101 and source.num_classes == 11 and source.ignored == (11, 255)
    assert source.class_names[3] == "Road" and source.palette[3].tolist() == [128, 64, 128]
    assert source.largest() == (360, 480)
