"""COCO files as tools write them: sizes that differ, normalised boxes, ids that are strings."""

import pytest
from box_files import picture, write_coco
from PIL import Image

from keras_bot.errors import MisuseError
from keras_bot.tasks.detection.data.factory import open_detection


@pytest.fixture
def coco(tmp_path):
    return lambda **parts: write_coco(tmp_path / "coco", **parts)


def _message(folder):
    with pytest.raises(MisuseError) as error:
        open_detection(folder, "val")
    assert "\n" not in str(error.value)
    return str(error.value)


def _images(*ids, **more):
    return [
        {"id": i, "file_name": f"{n}.png", "height": 30, "width": 40, **more} for i, n in zip(ids, (9, 7), strict=True)
    ]


def _box(image, category, *bbox):
    return {"image_id": image, "category_id": category, "bbox": bbox or (4, 5, 11, 11)}


@pytest.mark.parametrize("orientation", [None, 6])
def test_a_swapped_size_is_explained_by_the_exif_orientation(coco, orientation):
    folder = coco(images=_images(9, 7, height=40, width=30))
    exif = Image.Exif()
    if orientation:
        exif[0x0112] = orientation
    Image.new("RGB", (40, 30)).save(folder / "val2017/9.png", exif=exif)
    message = _message(folder)
    assert f"val2017.json: 9.png is 30x40 pixels, but {folder}/val2017/9.png is 40x30: width and height are" in message
    assert ("has EXIF orientation 6, which the labelling tool" in message) == bool(orientation)
    assert ("mogrify" in message) == bool(orientation) and "1 more with another size: " in message


def test_the_size_of_every_image_is_checked(coco):
    folder = coco()
    images = []
    for number in range(600):
        (folder / f"val2017/a{number}.png").symlink_to("7.png")
        images.append({"id": number, "file_name": f"a{number}.png", "height": 30, "width": 40})
    images[599]["width"] = 41
    other = write_coco(folder / "other", images=images, annotations=[])
    with pytest.raises(MisuseError, match=r"a599\.png is 41x30 pixels, but .*a599\.png is 40x30, so its boxes"):
        open_detection(other, "val", images=folder / "val2017")


def test_normalised_boxes_are_refused(coco, tmp_path):
    boxes = [
        _box(7, 3, 0.1, 0.2, 0.5, 0.75),
        _box(9, 18, 0, 0, 1, 1.0),
        _box(9, 18, 0.9, 0.9, 1, 1),
        _box(9, 3, 0, 0, 0, 0),
    ]
    message = _message(coco(annotations=boxes))
    assert "val2017.json: the largest box coordinate is 1 (3 boxes), so the boxes seem to be normalised to" in message
    assert "multiply x and width by the image's width" in message
    message = _message(write_coco(tmp_path / "one", annotations=boxes[:1]))
    assert "is 0.75 (1 box), so" in message


def test_tiny_boxes_among_others_and_placeholders_stay_as_they_were(coco, tmp_path, capsys):
    tiny = _box(7, 3, 0, 0, 0.5, 1)
    source = open_detection(coco(annotations=[tiny, _box(7, 3, 3, 4, 1, 1)]), "val")
    assert source.annotations.boxes.tolist() == [[0, 0, 1, 0.5], [4, 3, 5, 4]]
    empty = write_coco(tmp_path / "empty", annotations=[_box(7, 3, 0, 0, 0, 0)])
    assert len(open_detection(empty, "val").dropped) == 1


def test_ids_may_be_strings(coco, tmp_path):
    categories = [{"id": "dog-2", "name": "dog"}, {"id": "cat-1", "name": "cat"}]
    source = open_detection(
        coco(images=_images("x/9", "x/7"), categories=categories, annotations=[_box("x/7", "dog-2")]), "val"
    )
    assert source.class_names == ("cat", "dog")
    assert source.annotations.classes.tolist() == [1] and source.annotations.offsets.tolist() == [0, 0, 1]
    for number, ids in enumerate((("10", "9", "-1"), (10, 9, -1), (10, "9", -1))):
        categories = [{"id": i, "name": f"class {i}"} for i in ids]
        boxes = [_box("7", 10), _box(9, "9")]
        folder = write_coco(tmp_path / str(number), images=_images(9, "7"), categories=categories, annotations=boxes)
        source = open_detection(folder, "val")
        assert source.class_names == ("class -1", "class 9", "class 10")
        assert source.annotations.classes.tolist() == [1, 2]


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"images": _images(7, "7")}, r"images\[1\]: the id 7 occurs twice"),
        ({"images": _images(7, 7.5)}, r"images\[1\]: it needs the fields id.*received id 7\.5\. Correct it"),
        ({"images": _images(7, True)}, r"images\[1\]: it needs the fields id.*received id true"),
        ({"images": _images(7, None)}, r"images\[1\]: it needs the fields id.*received id null"),
        ({"images": _images(7, "")}, r"images\[1\]: it needs the fields id.*received id \"\""),
        ({"images": [{"id": 7, "width": 0}]}, r"received no file_name, no height, width 0\. Correct it"),
        ({"categories": [{"id": None, "name": "cat"}]}, r"categories\[0\]: it needs .* received id null"),
        ({"annotations": [_box(7.0, 3)]}, r"annotations\[0\]: it needs image_id.*Received .*\"image_id\": 7\.0"),
        ({"annotations": [_box(7, None)]}, r"annotations\[0\]: it needs image_id.*\"category_id\": null"),
        ({"annotations": [_box(True, 3)]}, r"annotations\[0\]: it needs image_id.*\"image_id\": true"),
        (
            {"annotations": [{**_box(7, 3), "iscrowd": "no"}]},
            r"annotations\[0\]: it needs image_id.*\"iscrowd\": \"no\"",
        ),
        ({"annotations": ["box"]}, r"annotations\[0\]: it needs image_id.*Received \"box\""),
        ({"annotations": [_box("07", 3)]}, r"annotations\[0\]: no image has the id '07'"),
        ({"annotations": [_box(7, "cat")]}, r"annotations\[0\]: no category has the id 'cat'"),
    ],
)
def test_other_ids_are_refused(coco, parts, message):
    with pytest.raises(MisuseError, match=message):
        open_detection(coco(**parts), "val")


def test_iscrowd_may_be_a_string(coco):
    boxes = [{**_box(7, 3), "iscrowd": mark} for mark in ("0", "1", None, False, True)]
    assert open_detection(coco(annotations=boxes), "val").annotations.difficult.tolist() == [0, 1, 0, 0, 1]


def test_an_image_with_two_entries_is_refused(coco):
    folder = coco(images=[*_images(9, 7), {"id": 8, "file_name": "./7.png", "height": 30, "width": 40}])
    picture(folder / "val2017/8.png")
    assert f"more than one image entry for {folder}/val2017/7.png" in _message(folder)
