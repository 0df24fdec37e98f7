"""Folders of images and masks: skipped files, names that are not unique, other types of files."""

import numpy as np
import pytest
from builders import write_image
from PIL import Image

from keras_bot.errors import MisuseError
from keras_bot.tasks.segmentation.data.factory import open_segmentation


def _write(folder, kind, name, suffix):
    shape = (6, 8, 3) if kind == "images" else (6, 8)
    write_image(folder / f"{name}.{suffix}", np.zeros(shape, np.uint8))


@pytest.fixture
def pairs(tmp_path):
    """A folder of two pairs with lists, and classes 0 and 2."""
    for kind, suffix in (("images", "jpg"), ("masks", "png")):
        for name in "ab":
            _write(tmp_path / kind, kind, name, suffix)
    (tmp_path / "train.txt").write_text("b\na\n")
    (tmp_path / "classes.csv").write_text("id,name\n0,sky\n2,road\n7,void\n")
    return tmp_path


@pytest.fixture
def scenes(tmp_path):
    """ADE20K's layout: a and b for training, c for validation."""
    for split, names in (("training", "ab"), ("validation", "c")):
        for name in names:
            _write(tmp_path / "images" / split, "images", name, "jpg")
            _write(tmp_path / "annotations" / split, "masks", name, "png")
    return tmp_path


def test_what_the_layout_of_ade20k_skips_is_reported(scenes, capsys):
    training = scenes / "images/training"
    assert open_segmentation(scenes, num_classes=2).size == 2 and capsys.readouterr().err == ""
    for name in ("c.psd", "d.heic", ".DS_Store", "._a.jpg"):
        (training / name).write_bytes(b"")
    (training / "more").mkdir()
    assert open_segmentation(scenes, num_classes=2).size == 2
    printed = capsys.readouterr().err
    assert printed.startswith(f"keras-bot: {training}: skipped 3 of 5 entries, which are not images (.jpg, ")
    assert printed.endswith("): c.psd, d.heic, more/.\n") and printed.count("\n") == 1
    assert open_segmentation(scenes, "val", num_classes=2).size == 1 and capsys.readouterr().err == ""
    for name in "ab":
        (training / f"{name}.jpg").unlink()
    with pytest.raises(MisuseError, match=r"training contains no images, only c\.psd, d\.heic, more/\. Add"):
        open_segmentation(scenes, num_classes=2)


def test_files_of_other_types_are_named(pairs):
    (pairs / "images/a.jpg").rename(pairs / "images/a.heic")
    with pytest.raises(
        MisuseError, match=r"no image in .*images for 1 name: a\. .*images/a\.heic is not a readable image type"
    ):
        open_segmentation(pairs)
    (pairs / "images/a.heic").rename(pairs / "images/a.jpg")
    (pairs / "masks/a.png").rename(pairs / "masks/a.tif")
    with pytest.raises(
        MisuseError, match=r"no mask in .*masks for 1 name: a\. .*masks/a\.tif is not a readable .*\(\.png\)\. Add"
    ):
        open_segmentation(pairs)


def test_a_name_of_two_images_needs_its_suffix(pairs):
    Image.new("RGB", (8, 6)).save(pairs / "images/a.png")
    with pytest.raises(MisuseError, match=r"train\.txt: 'a' is the name of 2 files in .*images: a\.jpg, a\.png\. Keep"):
        open_segmentation(pairs)
    (pairs / "train.txt").write_text("b\r\na.png\r\n")
    assert open_segmentation(pairs).image_files[1].endswith("images/a.png")


def test_a_class_file_without_a_header_is_refused(pairs):
    (pairs / "classes.csv").write_text("0,sky\n2,road\n7,void\n")
    with pytest.raises(MisuseError, match=r"classes\.csv cannot be read at '0,sky'\. It needs a header, then"):
        open_segmentation(pairs)
