import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from keras_bot.data.augment.color import STD, denormalise
from keras_bot.data.corrupt import CorruptLog
from keras_bot.errors import MisuseError
from keras_bot.tasks.detection.data.annotations import Example
from keras_bot.tasks.detection.data.factory import file_source, open_detection
from keras_bot.tasks.detection.data.pipeline import (
    DetectionEvalConfig,
    DetectionTrainConfig,
    detection_eval_pipeline,
    detection_train_pipeline,
)
from keras_bot.tasks.detection.data.view import fused_window_map, preprocess_detection

COLORS = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255]], np.uint8)
GREY = 90
SHAPES = ((60, 80), (80, 60), (64, 64), (40, 120))
STILL = {"flip": False, "min_zoom": 1.0, "max_zoom": 1.0, "color_jitter": 0.0, "pca_noise": 0.0}
PLAIN = {"color_jitter": 0.0, "pca_noise": 0.0}


def _example(folder, number, boxes, shape, suffix="png", difficult=()):
    """A grey image with a rectangle of COLORS[i] for each box i, whose class is i."""
    pixels = np.full((*shape, 3), GREY, np.uint8)
    for color, (y0, x0, y1, x1) in zip(COLORS, boxes, strict=False):
        pixels[y0:y1, x0:x1] = color
    path = folder / f"{number}.{suffix}"
    Image.fromarray(pixels).save(path, **({"quality": 95, "subsampling": 0} if suffix == "jpg" else {}))
    classes = np.arange(len(boxes), dtype=np.int32) % 3
    marks = np.array([i in difficult for i in range(len(boxes))], bool)
    return Example(str(number), str(path), *shape, np.array(boxes, np.float32).reshape(-1, 4), classes, marks)


@pytest.fixture
def rectangles(tmp_path):
    """Makes a source of so many images with 0 to 3 rectangles; options are those of `_example`."""

    def make(count=8, boxes=((8, 6, 22, 30), (26, 10, 36, 18), (12, 36, 34, 50)), least=0, **options):
        (tmp_path / "pictures").mkdir(exist_ok=True)
        examples = [
            _example(
                tmp_path / "pictures", i, boxes[: max(least, i % (len(boxes) + 1))], SHAPES[i % len(SHAPES)], **options
            )
            for i in range(count)
        ]
        return file_source("rectangles", ["red", "green", "blue"], examples)

    return make


def _train(source, **options):
    config = DetectionTrainConfig(**{"batch_size": 4, "image_size": 96, "epochs": 1, **options})
    return _arrays(detection_train_pipeline(source, config))


def _arrays(batches):
    return [(images.numpy(), targets["boxes"].numpy(), targets["classes"].numpy()) for images, targets in batches]


def _extent(picture, color):
    """The box of the pixels nearer to a colour than to grey, or None."""
    found = np.abs(picture.astype(int) - COLORS[color]).sum(-1) < np.abs(picture.astype(int) - GREY).sum(-1)
    rows, columns = (np.flatnonzero(found.any(axis=axis)) for axis in (1, 0))
    return np.array([rows[0], columns[0], rows[-1] + 1, columns[-1] + 1]) if len(rows) else None


@pytest.mark.parametrize(("suffix", "resize"), [("png", "stretch"), ("jpg", "letterbox")])
def test_boxes_follow_the_pixels(rectangles, resize, suffix):
    """Wherever zoom, place, clipping and flip have put a rectangle, its box is the extent of its pixels."""
    source = rectangles(least=2, suffix=suffix)
    options = {"resize": resize, "min_visible": 0.0, "epochs": 12, "batch_size": 8}
    seen = edges = 0
    for images, boxes, classes in _train(source, **options, **PLAIN):
        for picture, own, labels in zip(denormalise(images), boxes, classes, strict=True):
            for box, label in zip(own, labels, strict=True):
                if label < 0 or min(box[2] - box[0], box[3] - box[1]) < 4:
                    continue
                seen += 1
                edges += int((box == 0).any() or (box == 96).any())
                # Rectangles don't overlap; half a source pixel, enlarged four times, blurs an edge.
                np.testing.assert_allclose(_extent(picture, label), box, atol=2.1)
    assert seen > 100 and edges > 5


def test_without_augmentation_boxes_are_exact(rectangles):
    source = rectangles(count=4, least=3)
    for images, boxes, classes in _train(source, **STILL, image_size=240):
        for picture, own, labels in zip(denormalise(images), boxes, classes, strict=True):
            for box, label in zip(own, labels, strict=True):
                np.testing.assert_allclose(_extent(picture, label), box, atol=0.8)


def test_boxes_follow_the_pixels_of_large_jpegs(tmp_path):
    """They are decoded at 1/2, 1/4 or 1/8, whose pixels needn't begin where the window does."""
    places = ((41, 37, 160, 190), (200, 60, 333, 170), (90, 250, 260, 430))
    examples = [_example(tmp_path, i, places, ((375, 500), (477, 631))[i % 2], suffix="jpg") for i in range(8)]
    off = []
    source = file_source("large", ["red", "green", "blue"], examples)
    for images, boxes, classes in _train(source, batch_size=8, epochs=6, min_zoom=0.4, max_zoom=1.5, **PLAIN):
        for picture, own, labels in zip(denormalise(images), boxes, classes, strict=True):
            for box, label in zip(own, labels, strict=True):
                if label >= 0 and (box > 2).all() and (box < 94).all():  # not clipped
                    off.append(_extent(picture, label) - box)
    off = np.array(off)
    assert len(off) > 60 and np.abs(off).max() < 0.8 and np.abs(off.mean(axis=0)).max() < 0.2


@pytest.mark.thorough
def test_a_run_may_begin_at_any_step(rectangles):
    source = rectangles(count=11)
    options = {"epochs": 3, "seed": 5}
    pipeline = detection_train_pipeline(source, DetectionTrainConfig(batch_size=4, image_size=96, **options))
    whole = _arrays(pipeline)
    assert len(whole) == 6 == len(pipeline)
    for epoch, step in ((1, 1), (3, 0)):
        part = _train(source, **options, first_epoch=epoch, first_step=step)
        assert len(part) == 6 - 2 * epoch - step
        for one, other in zip(whole[2 * epoch + step :], part, strict=True):
            assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
    assert not np.array_equal(_train(source, epochs=1, seed=6)[0][0], whole[0][0])


def test_an_epoch_shows_each_image_at_most_once_and_differently_each_time(rectangles):
    source = rectangles(count=8, least=3)
    batches = _train(source, epochs=4, **{**STILL, "max_boxes": 3}, batch_size=8, image_size=160)
    orders = []
    for images, boxes, _ in batches:
        assert images.shape == (8, 160, 160, 3) and images.dtype == np.float32 and boxes.shape == (8, 3, 4)
        orders.append(images.mean(axis=(1, 2, 3)))
    assert not np.allclose(orders[0], orders[1])
    for order in orders[1:]:
        np.testing.assert_allclose(np.sort(order), np.sort(orders[0]), atol=0.02)


@pytest.mark.thorough
def test_workers_share_a_batch(rectangles):
    source = rectangles(count=8, least=1)
    whole = _train(source, seed=3)
    parts = [_train(source, seed=3, worker=worker, workers=2) for worker in (0, 1)]
    for number, batch in enumerate(whole):
        for i, expected in enumerate(batch):
            np.testing.assert_array_equal(np.concatenate([part[number][i] for part in parts]), expected)
    pieces = [
        list(detection_eval_pipeline(source, DetectionEvalConfig(batch_size=6, image_size=32, worker=w, workers=2)))
        for w in (0, 1)
    ]
    together = list(detection_eval_pipeline(source, DetectionEvalConfig(batch_size=6, image_size=32)))
    assert together[-1][2].numpy().tolist() == [1, 1, 0, 0, 0, 0]  # the second worker's part holds no image
    for batch, *parts in zip(together, *pieces, strict=True):
        whole = tf.nest.map_structure(lambda *part: np.concatenate(part), *parts)
        tf.nest.map_structure(np.testing.assert_array_equal, whole, batch)


def test_flips_are_half_and_mirror_boxes(rectangles):
    source = rectangles(count=4, least=3, boxes=((4, 2, 12, 10), (20, 2, 30, 10), (34, 2, 38, 10)))
    options = {**STILL, "flip": True, "resize": "stretch", "epochs": 60}
    left = [boxes[:, 0, 1] < 48 for _, boxes, _ in _train(source, **options)]
    assert 0.38 < np.mean(left) < 0.62


def test_padding_is_the_mean_colour_whatever_the_colours_do(rectangles):
    source = rectangles(count=4)
    options = {"min_zoom": 0.5, "max_zoom": 0.5, "color_jitter": 1.0, "pca_noise": 0.5}
    images, _, _ = _train(source, **options)[0]
    empty = (images == 0).all(axis=-1)
    assert 0.7 < empty.mean() < 0.95  # a quarter of the square at most is the image
    for mask in empty:
        inside = np.argwhere(~mask)
        (y0, x0), (y1, x1) = inside.min(axis=0), inside.max(axis=0) + 1
        assert not mask[y0:y1, x0:x1].any() and max(y1 - y0, x1 - x0) == 48


def test_colours_are_one_affine_map_an_image(rectangles):
    source = rectangles(count=4, least=3)
    still = _train(source, **STILL)[0][0]
    moved = _train(source, **{**STILL, "color_jitter": 0.4})[0][0]
    for one, other in zip(still.reshape(4, -1, 3), moved.reshape(4, -1, 3), strict=True):
        there = (one != 0).all(axis=-1)
        columns = np.concatenate([one[there], np.ones((there.sum(), 1))], axis=1)
        solution = np.linalg.lstsq(columns, other[there], rcond=None)[0]
        assert np.abs(columns @ solution - other[there]).max() < 1e-3
        assert np.abs(solution[:3] - np.eye(3)).max() > 0.02


def test_what_is_left_of_a_box(rectangles):
    """At zoom 2 a window shows a quarter of the image; the rule says which boxes stay."""
    source = rectangles(count=8, least=3)
    options = {"min_zoom": 2.0, "max_zoom": 2.0, "flip": False, "resize": "stretch", "epochs": 6, **PLAIN}
    batches = {visible: _train(source, **options, min_visible=visible) for visible in (0.0, 0.5, 1.0)}
    kept = {visible: [b for batch in found for b in batch[2]] for visible, found in batches.items()}
    counts = {visible: np.sum(np.array(classes) >= 0) for visible, classes in kept.items()}
    assert counts[0.0] > counts[0.5] >= counts[1.0] > 0
    assert all((classes >= 0).any() for classes in kept[1.0])  # the middle of one box is always in sight
    for _, boxes, classes in batches[0.0]:
        there = boxes[classes >= 0]
        assert (there >= 0).all() and (there <= 96).all() and (there[:, 2:] - there[:, :2] >= 1).all()
        assert (boxes[classes < 0] == -1).all()


def test_difficult_boxes_train_only_where_they_are_single_objects(rectangles):
    source = rectangles(count=4, least=3, difficult=(1,))
    classes = _train(source, **STILL)[0][2]
    assert set(classes.flat) == {0, 1, 2}
    classes = _train(dataclasses.replace(source, train_on_difficult=False), **STILL)[0][2]
    assert set(classes.flat) == {-1, 0, 2}
    batch = next(iter(detection_eval_pipeline(source, DetectionEvalConfig(batch_size=4, image_size=32))))
    np.testing.assert_array_equal(batch[1]["difficult"], [[False, True, False]] * 4)


@pytest.mark.thorough
def test_images_without_boxes_and_fewer_boxes(rectangles):
    source = rectangles(count=8)
    images, boxes, classes = _train(source, **STILL, batch_size=8)[0]
    assert boxes.shape == (8, 3, 4) and boxes.dtype == np.float32 and classes.dtype == np.int32
    assert sorted((classes >= 0).sum(axis=1)) == [0, 0, 1, 1, 2, 2, 3, 3]
    assert (boxes[classes < 0] == -1).all() and np.isfinite(images).all()
    assert _train(source, **STILL, batch_size=8, max_boxes=2)[0][1].shape == (8, 2, 4)
    assert _train(source, **STILL, batch_size=8, max_boxes=50)[0][1].shape == (8, 50, 4)
    negatives = rectangles(count=4, boxes=())
    _, boxes, classes = _train(negatives)[0]
    assert boxes.shape == (4, 1, 4) and (boxes == -1).all() and (classes == -1).all()
    _, targets, _ = next(iter(detection_eval_pipeline(negatives, DetectionEvalConfig(batch_size=4, image_size=32))))
    assert (targets["boxes"].numpy() == -1).all() and not targets["difficult"].numpy().any()


@pytest.mark.parametrize("resize", ["letterbox", "stretch"])
def test_evaluation_shows_each_image_once_and_boxes_map_back(rectangles, resize):
    source = rectangles(count=7)
    batches = list(detection_eval_pipeline(source, DetectionEvalConfig(batch_size=3, image_size=64, resize=resize)))
    assert len(batches) == 3
    index = np.concatenate([targets["index"] for _, targets, _ in batches])
    weights = np.concatenate([weights for _, _, weights in batches])
    np.testing.assert_array_equal(index, [0, 1, 2, 3, 4, 5, 6, -1, -1])
    np.testing.assert_array_equal(weights, [1] * 7 + [0] * 2)
    for images, targets, weight in batches:
        assert images.shape == (3, 64, 64, 3)
        for i in range(3):
            if not weight[i]:
                assert not images[i].numpy().any() and (targets["classes"][i].numpy() == -1).all()
                continue
            boxes, classes, _ = source.annotations.of(int(targets["index"][i]))
            scale = targets["scale"][i].numpy()
            back = targets["boxes"][i].numpy()[: len(boxes)] / np.tile(scale, 2)
            np.testing.assert_allclose(back, boxes, atol=1e-4)
            np.testing.assert_array_equal(targets["classes"][i][: len(boxes)], classes)
            assert (targets["classes"][i].numpy()[len(boxes) :] == -1).all()
            shape = targets["shape"][i].numpy()
            assert tuple(shape) == SHAPES[int(targets["index"][i]) % 4]
            height, width = np.rint(shape * scale).astype(int)
            assert max(height, width) == 64 and (resize == "letterbox" or height == width)
            covered = images[i].numpy()[:height, :width]
            assert (covered != 0).any(axis=-1).all()
            assert np.count_nonzero(images[i].numpy().any(axis=-1)) == covered.shape[0] * covered.shape[1]


@pytest.mark.parametrize("resize", ["letterbox", "stretch"])
def test_an_exported_preprocessing_equals_evaluation(rectangles, resize):
    source = rectangles(count=4, least=2)
    images, targets, _ = next(
        iter(detection_eval_pipeline(source, DetectionEvalConfig(batch_size=4, image_size=64, resize=resize)))
    )
    signature = tf.TensorSpec([None, None, None, 3], tf.uint8)
    preprocess = tf.function(lambda x: preprocess_detection(x, 64, resize), input_signature=[signature])
    for i, record in enumerate(source.keys(None, 1).map(source.read)):
        pixels, scale = preprocess(tf.io.decode_image(record["image"])[None])
        np.testing.assert_allclose(pixels[0], images[i], atol=2e-5)
        np.testing.assert_array_equal(scale, targets["scale"][i])


def test_broken_images_are_counted_and_their_places_filled(rectangles, tmp_path):
    source = rectangles(count=8, least=1)
    for number in (2, 5):
        (tmp_path / f"pictures/{number}.png").write_bytes(b"broken")
    log = CorruptLog(2)
    for images, boxes, classes in _train(source, **STILL, epochs=3, corrupt=log):
        assert images.any(axis=(1, 2, 3)).all() and (classes[:, 0] >= 0).all()
        for picture, own, labels in zip(denormalise(images), boxes, classes, strict=True):
            np.testing.assert_allclose(_extent(picture, labels[0]), own[0], atol=2)
    assert sorted(name[-5:] for name in log.names) == ["2.png", "5.png"]
    batches = list(
        detection_eval_pipeline(source, DetectionEvalConfig(batch_size=4, image_size=32, corrupt=CorruptLog(2)))
    )
    np.testing.assert_array_equal(np.concatenate([weights for *_, weights in batches]), [1, 1, 0, 1, 1, 0, 1, 1])
    np.testing.assert_array_equal(batches[0][1]["index"], [0, 1, -1, 3])
    assert (batches[0][1]["boxes"][2].numpy() == -1).all()
    with pytest.raises(tf.errors.OpError, match="2 images can't be decoded, but at most 1 may fail"):
        list(detection_eval_pipeline(source, DetectionEvalConfig(batch_size=4, image_size=32, corrupt=CorruptLog(1))))


def test_a_batch_without_a_whole_image_has_no_boxes(rectangles, tmp_path):
    source = rectangles(count=8, least=1)
    for number in range(7):
        (tmp_path / f"pictures/{number}.png").write_bytes(b"broken")
    for images, boxes, classes in _train(source, epochs=4, corrupt=CorruptLog(8)):
        if not images.any():
            assert (boxes == -1).all() and (classes == -1).all()
            return
    pytest.fail("no batch was wholly broken")


@pytest.mark.thorough
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_images_have_the_dtype_that_is_asked_for(rectangles, dtype):
    source = rectangles(count=4)
    images, targets = next(
        iter(detection_train_pipeline(source, DetectionTrainConfig(batch_size=4, image_size=32, epochs=1, dtype=dtype)))
    )
    assert images.dtype == dtype and targets["boxes"].dtype == tf.float32
    assert (
        next(iter(detection_eval_pipeline(source, DetectionEvalConfig(batch_size=4, image_size=32, dtype=dtype))))[
            0
        ].dtype
        == dtype
    )


def test_the_map_is_normalisation_inside_the_window():
    images = np.random.default_rng(0).integers(0, 256, (2, 6, 8, 3), np.uint8)
    windows = tf.constant([[1, 2, 4, 8], [0, 0, 0, 0]], tf.float32)
    matrix = tf.linalg.diag([1 / np.array(STD, np.float32)] * 2)
    result = fused_window_map(tf.constant(images), windows, matrix, tf.zeros([2, 3])).numpy()
    expected = np.zeros((2, 6, 8, 3))
    expected[0, 1:4, 2:8] = images[0, 1:4, 2:8] / np.array(STD)
    np.testing.assert_allclose(result, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 9}, "batch_size=9 is larger than the data set"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"image_size": 0}, "image_size must be at least 1"),
        ({"resize": "letterbx"}, "Did you mean letterbox"),
        ({"dtype": "int8"}, "Unknown dtype"),
        ({"min_zoom": 2.0, "max_zoom": 1.0}, "min_zoom must be above 0 and at most max_zoom"),
        ({"min_zoom": 0.0}, "min_zoom must be above 0"),
        ({"min_visible": 1.5}, "min_visible must be from 0 to 1"),
        ({"color_jitter": 2.0}, "color_jitter must be from 0 to 1"),
        ({"max_boxes": -1}, "max_boxes must be at least 0"),
        ({"first_epoch": 2}, "first_epoch must be from 0 to epochs"),
        ({"first_step": 2}, "first_step must be at least 0 and less than the 2 steps"),
        ({"worker": 2, "workers": 2}, "worker < workers"),
        ({"workers": 3}, "not divisible by the 3 workers"),
    ],
)
def test_misuse_is_reported(rectangles, options, message):
    with pytest.raises(MisuseError, match=message):
        _train(rectangles(), **options)


def test_the_keywords_of_0_1_0_still_work(rectangles):
    source, options = rectangles(count=4), {"batch_size": 4, "image_size": 32}
    with pytest.warns(DeprecationWarning, match="Pass the options of detection_train_pipeline as DetectionTrainConfig"):
        assert len(detection_train_pipeline(source, epochs=1, max_zoom=1.0, **options)) == 1
    with pytest.warns(DeprecationWarning, match="Pass the options of detection_eval_pipeline as DetectionEvalConfig"):
        assert len(detection_eval_pipeline(source, **options)) == 1
    with pytest.raises(TypeError, match=r"'max_zom'\. Did you mean max_zoom"):
        detection_train_pipeline(source, epochs=1, max_zom=1.0, **options)


@pytest.mark.thorough
def test_bccd_boxes_stay_in_sight(test_data):
    source = open_detection(test_data / "bccd", "train")
    total = 0
    for images, boxes, classes in _train(source, batch_size=41, image_size=128):
        assert boxes.shape == (41, source.max_boxes, 4) and np.isfinite(images).all()
        there = boxes[classes >= 0]
        assert (there >= 0).all() and (there <= 128).all() and (there[:, 2:] > there[:, :2]).all()
        total += len(there)
    assert 0.5 * len(source.annotations.boxes) < total <= len(source.annotations.boxes)
    source = open_detection(test_data / "bccd", "val")
    batches = detection_eval_pipeline(source, DetectionEvalConfig(batch_size=29, image_size=128))
    counts = sum(int((targets["classes"].numpy() >= 0).sum()) for _, targets, _ in batches)
    assert counts == len(source.annotations.boxes) and len(batches) == 3
