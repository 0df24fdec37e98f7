"""Pascal VOC folders as tools write them: sizes that differ, normalised boxes, other forms of lists."""

import numpy as np
import pytest
from box_files import CAT, DOG, picture, write_voc, xml
from PIL import Image

from keras_bot.errors import MisuseError
from keras_bot.tasks.detection.data.factory import open_detection


def _size(width, height):
    return f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>"


@pytest.fixture
def voc(tmp_path):
    return write_voc(tmp_path / "voc", [CAT], [DOG], [CAT, DOG])


def _message(folder):
    with pytest.raises(MisuseError) as error:
        open_detection(folder, "train")
    assert "\n" not in str(error.value)
    return str(error.value)


def test_xml_of_another_size_is_refused(voc):
    (voc / "Annotations/1.xml").write_text(xml([DOG], _size(80, 60)))
    message = _message(voc)
    assert f"{voc}/Annotations/1.xml: <size> is 80x60 pixels, but {voc}/JPEGImages/1.jpg is 40x30, so" in message
    assert "scale the boxes" in message and "correct the stated size" in message and "more" not in message
    (voc / "Annotations/2.xml").write_text(xml([DOG], _size(40, 31)))
    message = _message(voc)
    assert "1.xml: <size> is 80x60" in message and "1 more with another size: " in message and "2.jpg" in message


@pytest.mark.parametrize("orientation", [None, 1, 3, 6, 8])
def test_a_swapped_size_is_explained_by_the_exif_orientation(voc, orientation):
    exif = Image.Exif()
    if orientation:
        exif[0x0112] = orientation
    Image.new("RGB", (40, 30)).save(voc / "JPEGImages/1.jpg", exif=exif)
    assert open_detection(voc, "train").annotations.shapes.tolist() == [[30, 40]] * 3
    (voc / "Annotations/1.xml").write_text(xml([("dog", (1, 2, 30, 40))], _size(30, 40)))
    message = _message(voc)
    assert "<size> is 30x40 pixels" in message and "1.jpg is 40x30: width and height are swapped" in message
    cause = f"has EXIF orientation {orientation}, which the labelling tool applied and keras-bot ignores"
    assert (cause in message and "mogrify -auto-orient" in message) == (orientation in (6, 8))
    assert ("an EXIF orientation that the file no longer has" in message) == (orientation not in (6, 8))


@pytest.mark.parametrize("size", ["", _size(0, 0), _size("", ""), _size(0, 30), _size("?", 3), _size("40.0", "30.0")])
def test_a_size_that_states_nothing_or_the_same_is_right(voc, size):
    (voc / "Annotations/1.xml").write_text(xml([DOG], size))
    source = open_detection(voc, "train")
    np.testing.assert_array_equal(source.annotations.of(1)[0], [[5, 4, 16, 15]])
    assert source.annotations.shapes.tolist() == [[30, 40]] * 3


def test_normalised_boxes_are_refused(voc):
    boxes = [("cat", (0.1, 0.2, 0.5, 0.75)), ("dog", (0, 0, 1, 1))]
    for number in range(3):
        (voc / f"Annotations/{number}.xml").write_text(xml(boxes))
    message = _message(voc)
    assert message.startswith(f"{voc} train: the largest box coordinate is 1 (6 boxes), so the boxes seem to be normal")
    assert "multiply x and width by the image's width" in message
    (voc / "Annotations/2.xml").write_text(xml([*boxes, DOG]))  # in pixels, so all are
    assert open_detection(voc, "train").annotations.offsets[-1] == 7
    for number in range(3):
        (voc / f"Annotations/{number}.xml").write_text(xml([("cat", (1, 1, 1, 1))] * (number < 2)))
    assert len(open_detection(voc, "train").dropped) == 2


def _listed(folder, text):
    (folder / "ImageSets/Main/train.txt").write_bytes(text.encode())
    paths = [path.decode() for path in open_detection(folder, "train").record_name(np.arange(2)).numpy()]
    return [path.rsplit("/", 1)[1] for path in paths]


@pytest.mark.parametrize(
    "text",
    [
        "2\n0\n",
        "2.jpg\n0.jpg\n",
        "2\r\n0.jpg\r\n",
        "2  1\n0 -1\n",
        "2  1\r\n0 -1\r\n",
        "2.jpg\t0\n0.jpg 1\n",
        "JPEGImages/2.jpg\n./0.jpg\n",
        "./JPEGImages/2.jpg 1\n./0 -1\n",
        "JPEGImages\\2.jpg\r\nJPEGImages\\0\r\n",
        "{folder}/JPEGImages/2.jpg\n0\n",
        "\ufeff2\n\n0\n",
    ],
)
def test_lists_in_other_forms(voc, text):
    assert _listed(voc, text.replace("{folder}", str(voc))) == ["2.jpg", "0.jpg"]


def test_names_with_spaces_that_are_files_are_no_flags(voc):
    for name in ("0 1", "a b"):
        picture(voc / f"JPEGImages/{name}.jpg")
        (voc / f"Annotations/{name}.xml").write_text(xml([CAT]))
    assert _listed(voc, "0 1\n1\n") == ["0 1.jpg", "1.jpg"]
    assert _listed(voc, "0 1\n2  -1\n") == ["0 1.jpg", "2.jpg"]
    assert _listed(voc, "a b 1\n0 1 -1\n") == ["a b.jpg", "0 1.jpg"]
    for text in ("0\n2 1\n", "0 1\n/elsewhere/JPEGImages/1.jpg 1\n", "0\n1.png\n", "0\n2 7\n"):
        with pytest.raises(MisuseError, match=r"no image in JPEGImages for "):
            _listed(voc, text)
    with pytest.raises(MisuseError, match="lists 2 more than once"):
        _listed(voc, "2\n2.jpg\n")


def test_an_image_of_another_type_is_named(voc):
    (voc / "JPEGImages/1.jpg").rename(voc / "JPEGImages/1.heic")
    for line in ("1", "1.heic", "JPEGImages/1.heic"):
        (voc / "ImageSets/Main/train.txt").write_text(f"0\n{line}\n")
        message = _message(voc)
        assert f"no image in JPEGImages for {line}, listed in ImageSets/Main/train.txt. " in message
        assert "train.txt. JPEGImages/1.heic is not a readable image type (.jpg, .jpeg, " in message


def test_two_images_of_one_name_need_their_suffix(voc):
    picture(voc / "JPEGImages/1.png")
    message = _message(voc)
    assert "train.txt: '1' is the name of 2 files in" in message and "1.jpg, 1.png. Write the suffix" in message
    assert _listed(voc, "1.png\n0\n") == ["1.png", "0.jpg"]


def test_hidden_files_are_no_annotations(voc):
    (voc / "Annotations/._0.xml").write_bytes(b"\0\5\26\7")
    assert open_detection(voc, "train").class_names == ("cat", "dog")


def test_difficult_may_be_unspecified(voc):
    marks = ("Unspecified", "", " 1 ", "0")
    (voc / "Annotations/1.xml").write_text(xml([(*DOG, mark) for mark in marks]))
    np.testing.assert_array_equal(open_detection(voc, "train").annotations.of(1)[2], [False, False, True, False])
    (voc / "Annotations/1.xml").write_text(xml([(*DOG, "perhaps")]))
    assert "1.xml, object 1: it needs a name and a bndbox" in _message(
        voc
    ) and "difficult, if present, is 0 or 1" in _message(voc)
