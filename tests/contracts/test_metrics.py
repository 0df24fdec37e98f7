"""The contract of metrics: Keras metrics, and the two mean average precisions, which collect images in NumPy."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from contracts.checks import (
    Row,
    batches_of_any_size,
    check_config,
    check_defaults,
    check_refusal,
    each,
    each_refusal,
    refuse,
    round_trip,
)
from keras_bot.errors import MisuseError
from keras_bot.tasks.detection.metrics import CocoMap, VocMap
from keras_bot.tasks.segmentation.metrics import MeanIoU, PixelAccuracy
from keras_bot.tasks.segmentation.task import PixelEntropy

CLASSES, IMAGES = 3, 4


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class MetricRow(Row):
    """A metric with `dtype`, that of its result, and `initial`, its result before the first update."""

    dtype: str
    initial: float
    ignore: int


def mismatched(*shape):
    return np.zeros((1, 2, 2), "int32"), np.zeros((1, *shape), "float32")


COUNTS = {
    "arguments": lambda: {"classes": CLASSES, "ignore": 9, "name": "mine"},
    "dtype": "float64",
    "initial": np.nan,
    "ignore": 9,
    "refused": (
        refuse(classes=0, error=MisuseError),
        refuse(classes=-2, error=MisuseError),
        refuse("ignore=2 is one of the 3 classes", ignore=2, error=MisuseError),
        refuse(
            "Predictions must have 3 classes, received", "(1, 2, 2, 4)", call=mismatched(2, 2, 4), error=MisuseError
        ),
        refuse("Masks (1, 2, 2)", "(1, 2, 3) have different", call=mismatched(2, 3, CLASSES), error=MisuseError),
    ),
}
ROWS = [
    MetricRow(make=MeanIoU, defaults={"ignore": 255, "name": "mean_iou"}, **COUNTS),
    MetricRow(make=PixelAccuracy, defaults={"ignore": 255, "name": "pixel_accuracy"}, **COUNTS),
    MetricRow(
        make=PixelEntropy,
        arguments=lambda: {"name": "mine"},
        defaults={"name": "cross_entropy"},
        dtype="float32",
        initial=0.0,
        ignore=255,
    ),
]


def data(row, images=IMAGES):
    draw = np.random.default_rng(0)
    masks = draw.integers(0, CLASSES, (images, 5, 7)).astype("int32")
    masks[:, 0] = row.ignore
    logits = draw.normal(size=(*masks.shape, CLASSES)) * 2
    return masks, logits.astype("float16").astype("float32"), np.linspace(0.5, 2, images, dtype="float32")


def result_of(metric, *batch, update=None):
    (update or metric.update_state)(*batch)
    return metric.result().numpy()


@each(ROWS)
def test_the_config_contains_every_argument(row):
    check_defaults(row)
    check_config(row)


@each(ROWS)
def test_a_copy_with_the_state_has_the_same_result(row):
    metric = row.build()
    expected = result_of(metric, *data(row))
    copy = round_trip(metric)
    for variable, value in zip(copy.variables, metric.variables, strict=True):
        variable.assign(value)
    assert copy.result().numpy() == expected
    np.testing.assert_equal(result_of(copy, *data(row)), result_of(metric, *data(row)))


@each(ROWS)
def test_batches_add_up_and_a_reset_starts_again(row):
    metric, batch = row.build(), data(row)
    np.testing.assert_equal(float(metric.result()), row.initial)
    expected = result_of(metric, *batch)
    assert expected.dtype == row.dtype and expected > 0
    metric.reset_state()
    np.testing.assert_equal(float(metric.result()), row.initial)
    for place in range(IMAGES):
        metric.update_state(*(part[place : place + 1] for part in batch))
    assert float(metric.result()) == pytest.approx(expected, rel=1e-6)


@each(ROWS)
def test_weights_of_0_exclude_images(row):
    masks, logits, _ = data(row)
    weights = np.array([1, 0, 1, 0], "float32")
    kept = result_of(row.build(), masks[::2], logits[::2])
    assert result_of(row.build(), masks, logits, weights) == pytest.approx(kept, rel=1e-6)
    assert result_of(row.build(), masks, logits) != pytest.approx(kept, rel=1e-3)


@each(ROWS)
@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float64"])
def test_results_do_not_depend_on_the_dtype_of_the_predictions(row, dtype):
    masks, logits, weights = data(row)
    cast = tf.cast(logits, dtype)
    expected = result_of(row.build(), masks, tf.cast(cast, "float32"), weights)
    metric = row.build()
    assert result_of(metric, masks, cast, weights) == expected
    assert {variable.dtype for variable in metric.variables} == {row.dtype}


@each(ROWS)
def test_graphs_count_the_same(row):
    signature = batches_of_any_size(*data(row))
    for jit, sizes in ((False, (1, 3)), (True, (3,))):  # XLA compiles for each size
        metric = row.build()
        update = tf.function(metric.update_state, jit_compile=jit, input_signature=signature, autograph=False)
        for images in sizes:
            expected = result_of(row.build(), *data(row, images))
            metric.reset_state()
            assert result_of(metric, *data(row, images), update=update) == pytest.approx(expected, rel=1e-5)


@each_refusal(ROWS)
def test_bad_arguments_are_refused(row, refusal):
    check_refusal(row, refusal)


class_names = (
    refuse("class_names must be distinct and not empty", "received ()", class_names=(), error=MisuseError),
    refuse("class_names must be distinct", "received ('cat', 'cat')", class_names=("cat", "cat"), error=MisuseError),
)
BOX_ROWS = [
    Row(
        make=VocMap,
        arguments=lambda: {"class_names": ("cat", "dog")},
        defaults={"iou": 0.5, "form": "area"},
        refused=(
            *class_names,
            *(refuse(iou=wrong, error=MisuseError) for wrong in (0.0, -0.5, 1.1, 50)),
            refuse(form="voc07", error=MisuseError),
        ),
    ),
    Row(make=CocoMap, arguments=lambda: {"class_names": ("cat", "dog")}, refused=class_names),
]


def boxes_of_images(dtype="float64"):
    """Three images whose detections are partly right: true boxes and classes, flags, boxes, scores and classes."""
    draw = np.random.default_rng(0)
    for count in (2, 3, 1):
        low = draw.uniform(0, 90, (count, 2))
        true = np.concatenate([low, low + 40], -1)
        moved = true + draw.normal(0, 9, true.shape)
        scores, classes = draw.uniform(0.1, 1, count), draw.integers(0, 2, count)
        yield true.astype(dtype), classes, None, moved.astype(dtype), scores.astype(dtype), classes


def padded(true, classes, flags, boxes, scores, found):
    """The same image with two rows of padding, as batches contain it."""

    def pad(array, value):
        return np.concatenate([array, np.full((2, *array.shape[1:]), value, array.dtype)])

    return pad(true, -1), pad(classes, -1), flags, pad(boxes, -1), pad(scores, 0), pad(found, -1)


@each(BOX_ROWS)
def test_box_metrics_ignore_padding_dtype_and_the_order_of_images(row):
    images = list(boxes_of_images())
    results = []
    for variant in (images, images[::-1], (padded(*image) for image in images), boxes_of_images("float32")):
        metric = row.build()
        for image in variant:
            metric.add(*image)
        results.append(metric.result())
    assert 0 < results[0]["map"] < 1 and sum(results[0]["objects"].values()) == 6
    for result in results[1:]:
        assert result.keys() == results[0].keys()
        for name in ("objects", "detections"):
            assert result[name] == results[0][name]
        assert result["map"] == pytest.approx(results[0]["map"], rel=1e-6)
        assert result["per_class"] == pytest.approx(results[0]["per_class"], rel=1e-6)


@each(BOX_ROWS)
def test_box_metrics_have_these_defaults(row):
    check_defaults(row)


@each_refusal(BOX_ROWS)
def test_bad_arguments_of_box_metrics_are_refused(row, refusal):
    check_refusal(row, refusal)
