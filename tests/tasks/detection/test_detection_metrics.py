"""VOC and COCO mAP equal pycocotools and a naive VOC to 1e-6; difficult objects, padding and bad input."""

import contextlib
import io
import json
import sys

import numpy as np
import pytest

from keras_bot.errors import MisuseError, RunError
from keras_bot.tasks.detection.metrics import CocoMap, VocMap, iou_matrix, table

NAMES = ["red", "white", "platelet", "never"]
SQUARE = [0.0, 0.0, 10.0, 10.0]


def random_images(seed, images=40, apart=False):
    """Objects and detections near them, or anywhere; `apart` keeps objects of an image from overlapping."""
    rng = np.random.default_rng(seed)
    for _ in range(images):
        count = rng.integers(0, 7)
        low = rng.uniform(0, 300, (count, 2))
        if apart:
            low = np.stack(np.divmod(rng.permutation(9)[:count], 3), -1) * 150.0 + rng.uniform(0, 10, (count, 2))
        true = np.concatenate([low, low + rng.uniform(4, 130, (count, 2))], -1)
        names = rng.integers(0, 3, count)
        near = np.repeat(true, 2, 0)[rng.random(2 * count) < 0.8]
        kept = np.repeat(names, 2)[: len(near)]
        near = near + rng.normal(0, 0.08, near.shape) * np.tile(near[:, 2:] - near[:, :2], 2)
        far = rng.uniform(0, 300, (rng.integers(0, 4), 2))
        far = np.concatenate([far, far + rng.uniform(4, 130, far.shape)], -1)
        boxes = np.concatenate([near, far])
        classes = np.concatenate([kept, rng.integers(0, 3, len(far))])
        scores = np.round(rng.random(len(boxes)), 2)  # some are equal
        yield true, names, rng.random(count) < 0.2, boxes, scores, classes


def naive_voc(images, name, threshold, eleven):
    """The text of the development kit, box by box, in 1-based inclusive pixels."""
    truth = [
        [[*(box[:2] + 1), *box[2:], hard, False] for box, own, hard in zip(t, n, d, strict=True) if own == name]
        for t, n, d, *_ in images
    ]
    total = sum(not row[4] for rows in truth for row in rows)
    found = [
        (score, place, [*(box[:2] + 1), *box[2:]])
        for place, (*_, boxes, scores, classes) in enumerate(images)
        for box, score, own in zip(boxes, scores, classes, strict=True)
        if own == name
    ]
    right = wrong = 0
    recalls, precisions = [0.0], [0.0]
    for _, place, box in sorted(found, key=lambda item: -item[0]):
        best, at = -np.inf, None
        for row in truth[place]:
            high = min(box[2], row[2]) - max(box[0], row[0]) + 1
            wide = min(box[3], row[3]) - max(box[1], row[1]) + 1
            if high > 0 and wide > 0:
                areas = [(b[2] - b[0] + 1) * (b[3] - b[1] + 1) for b in (box, row)]
                overlap = high * wide / (sum(areas) - high * wide)
                if overlap > best:
                    best, at = overlap, row
        if best >= threshold:
            if not at[4]:
                right, wrong = right + (not at[5]), wrong + at[5]
                at[5] = True
        else:
            wrong += 1
        recalls.append(right / total)
        precisions.append(right / (right + wrong) if right + wrong else 0.0)
    if eleven:
        tenths = [[p for r, p in zip(recalls, precisions, strict=True) if r >= k / 10 - 1e-12] for k in range(11)]
        return sum(max(chosen, default=0.0) for chosen in tenths) / 11
    steps = zip(recalls, recalls[1:], range(1, len(recalls)), strict=False)
    return sum((after - before) * max(precisions[place:]) for before, after, place in steps)


def filled(metric, images):
    for image in images:
        metric.add(*image)
    return metric.result()


@pytest.mark.parametrize("form", ["area", "11-point"])
@pytest.mark.parametrize("iou", [0.3, 0.5, 0.75])
def test_voc_is_the_naive_one(form, iou):
    images = list(random_images(1, 150))
    result = filled(VocMap(NAMES, iou=iou, form=form), images)
    expected = [naive_voc(images, name, iou, form == "11-point") for name in range(3)]
    assert list(result["per_class"].values())[:3] == pytest.approx(expected, abs=1e-9)
    assert np.isnan(result["per_class"]["never"])
    assert result["map"] == pytest.approx(np.mean(expected), abs=1e-9)
    assert 0.1 < result["map"] < 0.95


def pycocotools_result(images, folder, change=lambda parameters: None):
    """Through files, as COCO's own users do it; nothing of keras_bot."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    objects, found = [], []
    for place, (true, names, crowd, boxes, scores, classes) in enumerate(images):
        for (y0, x0, y1, x1), name, many in zip(true, names, crowd, strict=True):
            box = {"bbox": [x0, y0, x1 - x0, y1 - y0], "area": (x1 - x0) * (y1 - y0), "iscrowd": int(many)}
            objects.append({**box, "id": len(objects) + 1, "image_id": place, "category_id": int(name) + 1})
        for (y0, x0, y1, x1), score, name in zip(boxes, scores, classes, strict=True):
            box = {"bbox": [x0, y0, x1 - x0, y1 - y0], "score": score}
            found.append({**box, "image_id": place, "category_id": int(name) + 1})
    truth = {"images": [{"id": i} for i in range(len(images))], "annotations": objects}
    truth["categories"] = [{"id": i + 1, "name": name} for i, name in enumerate(NAMES)]
    (folder / "truth.json").write_text(json.dumps(truth))
    (folder / "found.json").write_text(json.dumps(found))
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(folder / "truth.json")
        evaluation = COCOeval(coco, coco.loadRes(str(folder / "found.json")), "bbox")
        change(evaluation.params)
        evaluation.evaluate()
        evaluation.accumulate()
        if evaluation.params.maxDets == [1, 10, 100]:
            evaluation.summarize()
    return evaluation


def test_coco_is_pycocotools(tmp_path):
    images = list(random_images(2, 80))
    result = filled(CocoMap(NAMES), images)
    evaluation = pycocotools_result(images, tmp_path)
    names = ["map", "map50", "map75", "map_small", "map_medium", "map_large", "recall1", "recall10", "recall100"]
    names += ["recall_small", "recall_medium", "recall_large"]
    assert [result[name] for name in names] == pytest.approx(evaluation.stats.tolist(), abs=1e-6)
    curves = evaluation.eval["precision"][:, :, :3, 0, -1]
    assert list(result["per_class"].values())[:3] == pytest.approx(curves.mean((0, 1)).tolist(), abs=1e-6)
    assert np.isnan(result["per_class"]["never"])
    assert 0.05 < result["map"] < 0.9


@pytest.mark.parametrize("form", ["area", "11-point"])
def test_voc_is_pycocotools_where_objects_are_apart(tmp_path, form):
    """Its precision at recalls 1/n, 2/n, …, 1 has the area as its mean. Without difficult objects and overlaps of
    objects, on which the two differ by definition.
    """
    images = [(t, n, np.zeros(len(n), bool), *rest) for t, n, _, *rest in random_images(3, 80, apart=True)]
    result = filled(VocMap(NAMES, form=form), images)
    for place, name in enumerate(NAMES[:3]):

        def change(parameters, place=place, objects=result["objects"][name]):
            recalls = np.arange(1, objects + 1) / objects if form == "area" else np.arange(11) / 10
            parameters.catIds, parameters.iouThrs, parameters.recThrs = [place + 1], np.array([0.5]), recalls
            parameters.maxDets = [1000]

        curves = pycocotools_result(images, tmp_path, change).eval["precision"]
        assert result["per_class"][name] == pytest.approx(curves[0, :, 0, 0, 0].mean(), abs=1e-6)
    assert 0.1 < result["map"] < 0.95


def test_eleven_points_don_t_depend_on_rounding():
    """3 of 10 is recall 0.3, though 3 * 0.1 is more than 0.3 in floating point."""
    metric = VocMap(["one"], form="11-point")
    for place in range(10):
        metric.add([SQUARE], [0], None, *(([SQUARE], [0.9], [0]) if place < 3 else ([], [], [])))
    assert metric.result()["map"] == pytest.approx(4 / 11)


def test_a_second_detection_of_an_object_is_wrong_and_of_a_difficult_one_nothing():
    far = [50.0, 50.0, 60.0, 60.0]
    boxes = [far, far, SQUARE, SQUARE]
    metric = VocMap(["one"])
    metric.add([SQUARE, far], [0, 0], [False, True], boxes, [0.9, 0.8, 0.7, 0.6], [0] * 4)
    assert metric.result() == {"map": 1.0, "per_class": {"one": 1.0}, "objects": {"one": 1}, "detections": {"one": 4}}
    metric.add([SQUARE], [0], None, [SQUARE], [0.5], [0])  # after the wrong second one of the first image
    assert metric.result()["map"] == pytest.approx((1 + 2 / 3) / 2)


@pytest.mark.parametrize("make", [VocMap, CocoMap])
def test_padding_makes_no_difference(make):
    images = list(random_images(4, 10))
    padded = []
    for true, names, hard, boxes, scores, classes in images:
        true, boxes = (np.concatenate([rows, -np.ones((5, 4))]) for rows in (true, boxes))
        names, classes = (np.concatenate([rows, -np.ones(5, int)]) for rows in (names, classes))
        scores = np.concatenate([scores, np.full(5, np.nan)])
        padded.append((true, names, np.concatenate([hard, np.zeros(5, bool)]), boxes, scores, classes))
    assert repr(filled(make(NAMES), images)) == repr(filled(make(NAMES), padded))


@pytest.mark.parametrize("make", [VocMap, CocoMap])
def test_nothing_found_is_zero_and_nothing_to_find_is_reported(make):
    metric = make(["one", "two"])
    with pytest.raises(MisuseError, match="no objects to evaluate on"):
        metric.result()
    metric.add([], [], None, [SQUARE], [0.5], [1])
    with pytest.raises(MisuseError, match="no objects to evaluate on"):
        metric.result()
    metric.add([SQUARE], [0], None, [], [], [])
    result = metric.result()
    assert result["map"] == 0 and result["per_class"]["one"] == 0 and np.isnan(result["per_class"]["two"])
    assert result["objects"] == {"one": 1, "two": 0} and result["detections"] == {"one": 0, "two": 1}


def test_overlap_of_boxes_without_area_is_zero():
    boxes = np.array([SQUARE, [5, 5, 5, 9], [8, 8, 2, 2], [0, 0, 10, 5]], float)
    assert iou_matrix(boxes, boxes)[0].tolist() == [1, 0, 0, 0.5]
    assert np.diag(iou_matrix(boxes, boxes)).tolist() == [1, 0, 0, 1]


@pytest.mark.parametrize("make", [VocMap, CocoMap])
@pytest.mark.parametrize(
    ("image", "error", "message"),
    [
        (([SQUARE], [2], None, [], [], []), MisuseError, "Classes of objects must be 0 to 1.*received 2"),
        (([SQUARE], [0], None, [SQUARE], [0.1], [-2]), MisuseError, "Classes of detections .*received -2"),
        (([SQUARE], [0.5], None, [], [], []), MisuseError, "received 0.5"),
        (([SQUARE], [0], [True, False], [], [], []), MisuseError, r"\(1, 4\), \(1,\) and \(2,\)"),
        (([SQUARE], [0], None, [[SQUARE]], [[0.1]], [[0]]), MisuseError, "one image at a time"),
        (([SQUARE[:3]], [0], None, [], [], []), MisuseError, r"\(1, 3\)"),
        (([[9, 0, 3, 4]], [0], None, [], [], []), MisuseError, "y1 < y0"),
        (([[np.nan, 0, 3, 4]], [0], None, [], [], []), MisuseError, "scores of objects contain NaN"),
        (([SQUARE], [0], None, [SQUARE], [np.nan], [0]), RunError, "scores of detections contain NaN"),
    ],
)
def test_bad_input_is_reported(make, image, error, message):
    with pytest.raises(error, match=message):
        make(["one", "two"]).add(*image)


def test_a_missing_pycocotools_is_reported(monkeypatch):
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    with pytest.raises(MisuseError, match=r"pip install keras_bot\[detection\]"):
        CocoMap(["one"])


def test_the_table_has_a_line_a_class():
    metric = VocMap(["one", "platelets"])
    metric.add([SQUARE], [0], None, [SQUARE], [0.5], [0])
    lines = table(metric.result()).splitlines()
    assert [line.split() for line in lines] == [
        ["class", "AP", "objects", "detections"],
        ["one", "1.0000", "1", "1"],
        ["platelets", "-", "0", "0"],
        ["mean", "1.0000", "1", "1"],
    ]
    assert len({len(line) for line in lines}) == 1
