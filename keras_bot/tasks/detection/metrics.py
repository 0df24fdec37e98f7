"""Mean average precision of detections, as in Pascal VOC and as in COCO (with pycocotools).

Boxes are float (n, 4), y0, x0, y1, x1 in continuous pixel coordinates: VOC's inclusive 1-based xmin is x0 + 1, and the
width x1 - x0 is the devkit's xmax - xmin + 1. Rows of class -1 are padding and are ignored.

VOC (Everingham et al., IJCV 2010; `VOCevaldet.m` of the devkit) sorts each class's detections over all images by score.
A detection is assigned to the object of its class and image with the highest IoU. It is a true positive if the IoU is
at least the threshold and no detection with a higher score was matched to that object. Detections matched to difficult
objects are ignored. Average precision is the mean over recalls 0, 0.1, …, 1 of the best precision at that recall or
higher (2007), or the area under that curve (from 2010 on).
"""

import contextlib
import io
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike

from keras_bot.errors import MisuseError, RunError

Rows = ArrayLike  # one row per box
AREA, ELEVEN_POINT = "area", "11-point"
_PADDING = -1
_PRECISIONS = ("map", "map50", "map75", "map_small", "map_medium", "map_large")
_RECALLS = ("recall1", "recall10", "recall100", "recall_small", "recall_medium", "recall_large")


class VocMap:
    """Mean average precision as in Pascal VOC.

    Args:
        class_names: class names by id, starting at 0.
        iou: minimum IoU of a true positive, in (0, 1].
        form: "area" (VOC 2010 and later) or "11-point" (VOC 2007).

    Raises:
        MisuseError: `class_names` is empty or has duplicates, `form` is unknown, or `iou` is outside (0, 1].
    """

    def __init__(self, class_names: Sequence[str], *, iou: float = 0.5, form: str = AREA) -> None:
        if form not in (AREA, ELEVEN_POINT):
            raise MisuseError(f"form must be {AREA!r} or {ELEVEN_POINT!r}, received {form!r}.")
        if not 0 < iou <= 1:
            raise MisuseError(f"iou must be in (0, 1], received {iou}. Use 0.5 for 50 %.")
        self.class_names = _names(class_names)
        self._iou, self._form = iou, form
        self._counts = np.zeros((2, len(class_names)), np.int64)  # non-difficult objects, detections
        self._scores = [[np.zeros(0)] for _ in class_names]  # per class, one array per image
        self._verdicts = [[np.zeros(0, np.int64)] for _ in class_names]  # 1 true positive, 0 false, -1 ignored

    def add(
        self, true_boxes: Rows, true_classes: Rows, difficult: Rows | None, boxes: Rows, scores: Rows, classes: Rows
    ) -> None:
        """Adds one image.

        Args:
            true_boxes: float (n, 4).
            true_classes: integer (n,), -1 for padding.
            difficult: bool (n,), or None if no object is difficult.
            boxes: float (k, 4), the detections.
            scores: float (k,), higher is more confident.
            classes: integer (k,), -1 for padding.

        Raises:
            MisuseError: a shape is wrong, a class id has no name, or an object's box is inverted or not finite.
            RunError: detections are not finite.
        """
        true_boxes, true_classes, difficult = _objects(true_boxes, true_classes, difficult, len(self.class_names))
        boxes, classes, scores = _rows("detections", boxes, classes, scores, len(self.class_names), RunError)
        self._counts += _counts(true_classes[~difficult], classes, len(self.class_names))
        for index in np.union1d(true_classes, classes):
            objects, found = true_classes == index, np.flatnonzero(classes == index)
            found = found[np.argsort(-scores[found], kind="stable")]
            self._scores[index].append(scores[found])
            overlaps = iou_matrix(boxes[found], true_boxes[objects])
            self._verdicts[index].append(_match(overlaps, difficult[objects], self._iou))

    def result(self) -> dict:
        """Computes the metrics over all images added so far.

        Returns:
            `map`, the mean over classes with objects; `per_class`, {name: average precision}, NaN for classes without
            objects; `objects`, {name: number of non-difficult objects}; `detections`, {name: number}.

        Raises:
            MisuseError: there are no objects, or only difficult ones.
        """
        return _figures(self.class_names, map(self._average_precision, range(len(self.class_names))), self._counts)

    def _average_precision(self, index: int) -> float:
        if not (objects := self._counts[0, index]):
            return np.nan
        order = np.argsort(-np.concatenate(self._scores[index]), kind="stable")
        verdicts = np.concatenate(self._verdicts[index])[order]
        right, wrong = np.cumsum(verdicts == 1), np.cumsum(verdicts == 0)
        precision = right / np.maximum(right + wrong, 1)
        best = np.maximum.accumulate(precision[::-1])[::-1]  # at this recall or higher
        if self._form == AREA:  # recall rises by 1 / objects at each correct detection
            return float(best[verdicts == 1].sum() / objects)
        # First place where right / objects >= tenth / 10, in integers to avoid rounding errors.
        places = np.searchsorted(10 * right, objects * np.arange(11))
        return float(best[places[places < len(best)]].sum() / 11)


class CocoMap:
    """Mean average precision as in COCO, by pycocotools: IoU 0.50, 0.55, …, 0.95, at most 100 detections per image.

    Args:
        class_names: class names by id, starting at 0.

    Raises:
        MisuseError: `class_names` is empty or has duplicates, or pycocotools is not installed.
    """

    def __init__(self, class_names: Sequence[str]) -> None:
        try:
            from pycocotools import coco, cocoeval
        except ImportError:
            raise MisuseError("COCO's mAP needs pycocotools. Install it: pip install keras_bot[detection]") from None
        self._index, self._evaluator = coco.COCO, cocoeval.COCOeval
        self.class_names = _names(class_names)
        self._counts = np.zeros((2, len(class_names)), np.int64)  # objects other than crowds, detections
        self._images = 0
        self._truths: list[dict] = []
        self._found: list[dict] = []

    def add(
        self, true_boxes: Rows, true_classes: Rows, crowd: Rows | None, boxes: Rows, scores: Rows, classes: Rows
    ) -> None:
        """Adds one image; arguments and errors as in `VocMap.add`, with `crowd` instead of `difficult`.

        Any number of detections can match a crowd, and all of them are ignored. This is COCO's only way to ignore an
        object. The area of an object's box determines whether it is small, medium or large.
        """
        true_boxes, true_classes, crowd = _objects(true_boxes, true_classes, crowd, len(self.class_names))
        boxes, classes, scores = _rows("detections", boxes, classes, scores, len(self.class_names), RunError)
        self._counts += _counts(true_classes[~crowd], classes, len(self.class_names))
        self._images += 1
        for box, index, many in zip(true_boxes, true_classes, crowd, strict=True):
            self._truths.append({**self._entry(box, index, self._truths), "iscrowd": int(many)})
        for box, index, score in zip(boxes, classes, scores, strict=True):
            self._found.append({**self._entry(box, index, self._found), "score": float(score)})

    def _entry(self, box, index, entries):
        """Returns a box in pycocotools' format. Ids start at 1 because it treats a match with id 0 as no match."""
        (y0, x0), (high, wide) = box[:2].tolist(), np.maximum(box[2:] - box[:2], 0).tolist()
        ids = {"id": len(entries) + 1, "image_id": self._images, "category_id": int(index)}
        return {**ids, "bbox": [x0, y0, wide, high], "area": wide * high}

    def result(self) -> dict:
        """Computes the metrics over all images added so far.

        Returns:
            `map`, `map50`, `map75` (over all IoUs, at 0.5, at 0.75), `map_small`, `map_medium`, `map_large` (objects
            up to 32^2, up to 96^2, above, in pixels), `recall1`, `recall10`, `recall100` (at that many detections per
            image), `recall_small`, `recall_medium`, `recall_large`, NaN if there is no such object; `per_class`,
            `objects` and `detections`, and errors, as in `VocMap.result`, over all IoUs and without crowds.
        """
        with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress
            evaluation = self._evaluator(self._as_coco(self._truths), self._as_coco(self._found), "bbox")
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
        curves = evaluation.eval["precision"][:, :, :, 0, -1]  # (IoUs, recalls, classes), over all areas
        precisions = [_mean(curves[:, :, index]) for index in range(len(self.class_names))]
        figures = dict(zip(_PRECISIONS + _RECALLS, map(_mean, evaluation.stats), strict=True))
        return _figures(self.class_names, precisions, self._counts) | figures

    def _as_coco(self, entries):
        index = self._index()
        images, categories = range(1, self._images + 1), range(len(self.class_names))
        tables = {"images": [{"id": i} for i in images], "categories": [{"id": i} for i in categories]}
        index.dataset = {**tables, "annotations": entries}
        index.createIndex()
        return index


def iou_matrix(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Returns the IoU of boxes (n, 4) with boxes (m, 4), float64 (n, m); 0 for boxes without area."""
    sides = np.minimum(first[:, None, 2:], second[:, 2:]) - np.maximum(first[:, None, :2], second[:, :2])
    common = np.maximum(sides, 0).prod(axis=2)
    areas = [np.maximum(boxes[:, 2:] - boxes[:, :2], 0).prod(axis=1) for boxes in (first, second)]
    union = np.add.outer(*areas) - common
    return np.divide(common, union, out=np.zeros(common.shape), where=union > 0)


def table(result: Mapping) -> str:
    """Formats the `result` of `VocMap` or `CocoMap` as text: average precision per class, then the mean."""
    width = max(map(len, [*result["per_class"], "class"]))
    lines = [f"{'class':<{width}}  {'AP':>6}  {'objects':>7}  {'detections':>10}"]
    for name, precision in result["per_class"].items():
        shown = "-" if np.isnan(precision) else f"{precision:.4f}"
        lines.append(f"{name:<{width}}  {shown:>6}  {result['objects'][name]:>7}  {result['detections'][name]:>10}")
    objects, detections = (sum(result[key].values()) for key in ("objects", "detections"))
    return "\n".join([*lines, f"{'mean':<{width}}  {result['map']:.4f}  {objects:>7}  {detections:>10}"])


def _match(overlaps, difficult, threshold):
    """Labels the detections of one class and image, by descending score: 1 true, 0 false positive, -1 ignored."""
    verdicts = np.zeros(len(overlaps), np.int64)
    taken = np.zeros(len(difficult), bool)
    for index, row in enumerate(overlaps if len(difficult) else []):
        best = row.argmax()
        if row[best] >= threshold:
            verdicts[index] = -1 if difficult[best] else not taken[best]
            taken[best] = True
    return verdicts


def _rows(kind, boxes, classes, values, num_classes, not_finite) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Validates one image's `kind` and returns boxes float64 (n, 4), classes int64, values without padding."""
    boxes, classes, values = np.asarray(boxes, np.float64), np.asarray(classes), np.asarray(values)
    boxes = boxes if boxes.size else boxes.reshape(-1, 4)
    if boxes.shape != (len(boxes), 4) or not classes.shape == values.shape == (len(boxes),):
        raise MisuseError(
            f"The {kind} of an image must be boxes (n, 4), classes (n,) and a flag or score per box (n,), received "
            f"shapes {boxes.shape}, {classes.shape} and {values.shape}. Add one image at a time."
        )
    if wrong := [index for index in classes.tolist() if index not in range(_PADDING, num_classes)]:
        raise MisuseError(f"Classes of {kind} must be 0 to {num_classes - 1} or, for padding, -1, received {wrong[0]}.")
    keep = classes != _PADDING
    boxes, values = boxes[keep], values[keep]
    if not (np.isfinite(boxes).all() and np.isfinite(values).all()):
        raise not_finite(f"The boxes or scores of {kind} contain NaN or infinity. Check where they come from.")
    return boxes, classes[keep].astype(np.int64), values


def _objects(boxes, classes, flags, num_classes) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    flags = np.zeros(np.shape(classes), bool) if flags is None else flags
    boxes, classes, flags = _rows("objects", boxes, classes, flags, num_classes, MisuseError)
    if (boxes[:, 2:] < boxes[:, :2]).any():
        raise MisuseError("An object's box has y1 < y0 or x1 < x0. Pass boxes as y0, x0, y1, x1.")
    return boxes, classes, flags.astype(bool)


def _names(class_names):
    if not (names := tuple(class_names)) or len(set(names)) < len(names):
        raise MisuseError(f"class_names must be distinct and not empty, received {names}.")
    return names


def _counts(true_classes, classes, num_classes):
    return np.stack([np.bincount(ids, minlength=num_classes) for ids in (true_classes, classes)])


def _figures(names, precisions, counts):
    if not counts[0].any():
        raise MisuseError("There are no objects to evaluate on. Check the annotations and the list of images.")
    columns = {"per_class": list(precisions), "objects": counts[0].tolist(), "detections": counts[1].tolist()}
    tables = {key: dict(zip(names, column, strict=True)) for key, column in columns.items()}
    return {"map": float(np.nanmean(columns["per_class"])), **tables}


def _mean(values):
    """Returns the mean of the values other than -1, which pycocotools uses for "no object"; NaN if there are none."""
    present = values[values > -1]
    return float(present.mean()) if present.size else np.nan
