import io

import numpy as np
import pytest
import tensorflow as tf
from builders import write_image
from PIL import Image

from keras_bot.data import CorruptLog
from keras_bot.data.augment import color
from keras_bot.data.sources.base import run_error
from keras_bot.errors import MisuseError
from keras_bot.tasks.segmentation.data import pipeline
from keras_bot.tasks.segmentation.data.factory import open_segmentation
from keras_bot.tasks.segmentation.data.masks import decode_mask
from keras_bot.tasks.segmentation.data.pipeline import (
    SegmentationEvalConfig,
    SegmentationTrainConfig,
    segmentation_eval_pipeline,
    segmentation_train_pipeline,
)


@pytest.fixture
def pairs(tmp_path):
    """Makes a folder of `count` pairs; the images' red is 10 times the id, the green 5 times the number."""

    def make(count=7, sizes=((30, 40),), ids=(0, 1, 2)):
        draw = np.random.default_rng(0)
        names = [f"p{i}" for i in range(count)]
        for i, name in enumerate(names):
            mask = draw.choice(np.array(ids, np.uint8), sizes[i % len(sizes)])
            red = np.stack([mask * 10, np.full_like(mask, 5 * i), np.zeros_like(mask)], -1)
            write_image(tmp_path / "images" / f"{name}.png", red)
            write_image(tmp_path / "masks" / f"{name}.png", mask)
        (tmp_path / "train.txt").write_text("\n".join(names))
        (tmp_path / "classes.csv").write_text("id,name\n0,a\n1,b\n2,c\n9,void\n")
        return open_segmentation(tmp_path)

    return make


def _all(batches):
    return [[part.numpy() for part in batch] for batch in batches]


def _train(source, **options):
    return segmentation_train_pipeline(
        source, SegmentationTrainConfig(**{"batch_size": 3, "crop_size": 16, "epochs": 2, "seed": 5} | options)
    )


def _plain_crop(image, mask, scale, start, size):
    """Scale and crop pixel by pixel: bilinear and nearest, half-pixel centres; 0 and 256 outside."""
    new = np.maximum(np.rint(np.array(mask.shape) * scale), 1)
    zoom = new / mask.shape
    out, ids = np.zeros((size, size, 3)), np.full((size, size), 256)
    for y in range(size):
        for x in range(size):
            at = np.array([y + 0.5, x + 0.5]) + start
            if (at < 0).any() or (at >= new).any():
                continue
            ids[y, x] = mask[tuple(np.floor(at / zoom).astype(int))]
            place = np.clip(at / zoom - 0.5, 0, np.array(mask.shape) - 1)
            low = np.floor(place).astype(int)
            high = np.minimum(low + 1, np.array(mask.shape) - 1)
            down, across = place - low
            top = image[low[0], low[1]] * (1 - across) + image[low[0], high[1]] * across
            bottom = image[high[0], low[1]] * (1 - across) + image[high[0], high[1]] * across
            out[y, x] = top * (1 - down) + bottom * down
    return out, ids


@pytest.mark.parametrize("scale", [0.5, 0.77, 1.0, 1.6])
@pytest.mark.parametrize("place", [(0.0, 0.0), (0.3, 0.8), (0.999, 0.5)])
def test_scale_and_crop_equal_a_plain_reference(scale, place):
    draw = np.random.default_rng(1)
    image, mask = draw.integers(0, 256, (21, 26, 3), np.uint8), draw.integers(0, 5, (21, 26), np.int32)
    uniform = tf.constant([0.5, *place, 0.9], tf.float32)
    got, ids = pipeline._random_crop(image, tf.constant(mask), uniform, 20, (scale, scale), 0, True)
    start = np.rint(np.float32(place) * (np.rint(np.array(mask.shape) * scale) - 20))
    expected, expected_ids = _plain_crop(image.astype(float), mask, scale, start, 20)
    np.testing.assert_array_equal(ids, expected_ids)
    np.testing.assert_allclose(got, expected, atol=0.51)


def test_mask_and_image_stay_together(pairs):
    source = pairs(ids=(0, 2))
    for images, masks in _train(source, scale=(1, 1)):
        red = color.denormalise(images.numpy())[..., 0]
        inside = masks.numpy() != 255
        assert inside.all()
        np.testing.assert_array_equal(red, masks.numpy() * 10)


def test_outside_is_ignored_and_zero_after_normalisation(pairs):
    source = pairs()
    images, masks = _all(_train(source, scale=(0.5, 0.5), crop_size=24, color_jitter=0.4, pca_noise=0.1))[0]
    outside = masks == 255
    assert outside.reshape(3, -1).sum(1).tolist() == [24 * 24 - 15 * 20] * 3
    assert np.all(images[outside] == 0) and np.all(np.abs(images[~outside]).sum(-1) > 0)


def test_base_size_is_the_shorter_edge_at_scale_1(pairs):
    masks = _all(_train(pairs(), scale=(1, 1), base_size=12))[0][1]
    assert (masks != 255).reshape(3, -1).sum(1).tolist() == [12 * 16] * 3


def test_half_are_flipped_and_none_without(pairs):
    source = pairs(count=1)
    plain = _all(_train(source, batch_size=1, crop_size=30, scale=(1, 1), epochs=40, flip=False))
    flipped = _all(_train(source, batch_size=1, crop_size=30, scale=(1, 1), epochs=40))
    same = [np.array_equal(a[1], b[1]) for a, b in zip(plain, flipped, strict=True)]
    assert 8 < sum(same) < 32
    for a, b, is_same in zip(plain, flipped, same, strict=True):
        for part, other in zip(a, b, strict=True):
            np.testing.assert_array_equal(part if is_same else part[:, :, ::-1], other)


@pytest.mark.thorough
def test_a_pass_begins_at_any_step(pairs):
    source = pairs()
    options = {"color_jitter": 0.4, "pca_noise": 0.1, "epochs": 3}
    whole = _all(_train(source, **options))
    assert len(whole) == 6
    for epoch, step in ((0, 1), (2, 1), (3, 0)):
        rest = _train(source, first_epoch=epoch, first_step=step, **options)
        assert int(rest.cardinality()) == 6 - 2 * epoch - step
        for got, expected in zip(_all(rest), whole[2 * epoch + step :], strict=True):
            np.testing.assert_array_equal(got[0], expected[0])
            np.testing.assert_array_equal(got[1], expected[1])
    other = _all(_train(source, seed=6, **options))
    assert not np.array_equal(other[0][0], whole[0][0])


def test_each_image_comes_once_an_epoch(pairs):
    source = pairs(count=6)
    batches = _all(_train(source, scale=(1, 1), epochs=2, flip=False))
    green = [color.denormalise(images)[:, 0, 0, 1].tolist() for images, _ in batches]
    for epoch in (green[:2], green[2:]):
        assert sorted([*epoch[0], *epoch[1]]) == [0, 5, 10, 15, 20, 25]
    assert green[:2] != green[2:]


@pytest.mark.thorough
def test_workers_batches_together_are_the_one_process(pairs):
    source = pairs(count=9)
    options = {"batch_size": 4, "color_jitter": 0.4}
    whole = _all(_train(source, **options))
    shares = [_all(_train(source, worker=w, workers=2, **options)) for w in (0, 1)]
    for batch, first, second in zip(whole, *shares, strict=True):
        for part, own, other in zip(batch, first, second, strict=True):
            np.testing.assert_array_equal(part, np.concatenate([own[:1], other, own[1:]]))
    images, masks, weights = _all(
        segmentation_eval_pipeline(source, SegmentationEvalConfig(batch_size=4, worker=1, workers=2))
    )[-1]
    assert weights.tolist() == [0, 0] and (masks == 255).all() and (images == 0).all()


def test_evaluation_gives_every_image_whole_and_once(pairs):
    sizes = ((30, 40), (33, 20))
    source = pairs(count=5, sizes=sizes)
    batches = _all(segmentation_eval_pipeline(source, SegmentationEvalConfig(batch_size=2, multiple=8)))
    assert len(batches) == 3
    images, masks, weights = (np.concatenate(parts) for parts in zip(*batches, strict=True))
    assert images.shape == (6, 40, 40, 3) and masks.shape == (6, 40, 40) and masks.dtype == np.int32
    assert weights.tolist() == [1, 1, 1, 1, 1, 0]
    assert (masks[5] == 255).all() and (images[5] == 0).all()
    for i in range(5):
        height, width = sizes[i % 2]
        expected = np.asarray(Image.open(source.mask_files[i]))
        np.testing.assert_array_equal(masks[i, :height, :width], expected)
        assert (masks[i] != 255).sum() == height * width
        assert (images[i, height:] == 0).all() and (images[i, :, width:] == 0).all()
        picture = color.denormalise(images[i, :height, :width])
        np.testing.assert_array_equal(picture, np.asarray(Image.open(source.image_files[i])))


def test_ids_are_mapped(pairs):
    source = pairs(ids=(0, 9, 255))
    masks = np.concatenate(
        [masks for _, masks, _ in _all(segmentation_eval_pipeline(source, SegmentationEvalConfig(batch_size=7)))]
    )
    assert set(np.unique(masks)) == {0, 255}


def test_masks_with_a_palette(pairs):
    source = pairs(count=2, ids=(0, 2, 9))
    ids = [np.asarray(Image.open(path)) for path in source.mask_files]
    for pixels, path in zip(ids, source.mask_files, strict=True):
        mask = Image.fromarray(pixels, "P")
        mask.putpalette([200] * 768)
        mask.save(path)
    masks = next(iter(segmentation_eval_pipeline(source, SegmentationEvalConfig(batch_size=2))))[1]
    np.testing.assert_array_equal(masks, np.where(np.equal(ids, 9), 255, ids))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_dtype_is_the_images(pairs, dtype):
    images, masks = next(iter(_train(pairs(), dtype=dtype)))
    assert images.dtype == dtype and masks.dtype == tf.int32


def _error(batches):
    with pytest.raises(tf.errors.OpError) as caught:
        _all(batches)
    return str(run_error(caught.value))


def _both(source):
    yield _train(source, epochs=1, batch_size=7)
    yield segmentation_eval_pipeline(source, SegmentationEvalConfig(batch_size=7, size=(30, 40)))


@pytest.mark.thorough
def test_an_unknown_id_is_reported_with_its_file(pairs):
    source = pairs()
    mask = np.zeros((30, 40), np.uint8)
    mask[29, 39] = 77
    write_image(source.mask_files[4], mask)
    for batches in _both(source):
        message = _error(batches)
        assert "p4.png" in message and "the id 77" in message and "0, 1, 2 (classes) and 9, 255 (unlabelled)" in message
    write_image(source.mask_files[4], np.zeros((30, 40, 3), np.uint8))
    for batches in _both(source):
        assert "contains colours" in _error(batches)


@pytest.mark.thorough
def test_a_mask_of_another_size_is_reported_with_its_file(pairs):
    source = pairs()
    write_image(source.mask_files[2], np.zeros((20, 50), np.uint8))
    for batches in _both(source):
        message = _error(batches)
        assert "masks/p2.png" in message and "is 40x30, but the mask is 50x20" in message


def test_an_image_larger_than_the_evaluation_is_reported(pairs):
    message = _error(segmentation_eval_pipeline(pairs(), SegmentationEvalConfig(batch_size=2, size=(30, 32))))
    assert "p0.png" in message and "is 40x30, larger than the evaluation's size 32x30" in message


@pytest.mark.thorough
def test_broken_files_are_logged_and_left_out(pairs):
    source = pairs()
    for path in (source.image_files[1], source.mask_files[3]):
        with open(path, "r+b") as file:
            file.truncate(60)
    message = _error(_train(source, epochs=1, batch_size=7))
    assert "at most 0" in message and "p1.png" in message
    log = CorruptLog(2)
    for _, masks in _all(_train(source, epochs=1, batch_size=7, scale=(1, 1), corrupt=log)):
        assert (masks != 255).all()
    assert len(log.names) == 2
    log = CorruptLog(2)
    images, masks, weights = _all(
        segmentation_eval_pipeline(source, SegmentationEvalConfig(batch_size=7, size=(30, 40), corrupt=log))
    )[0]
    assert weights.tolist() == [1, 0, 1, 0, 1, 1, 1] and (masks[[1, 3]] == 255).all() and (images[[1, 3]] == 0).all()


def test_a_batch_without_a_whole_pair_is_ignored(pairs):
    source = pairs(count=4)
    for path in source.image_files[:3]:
        open(path, "w").close()
    batches = _all(_train(source, batch_size=1, epochs=1, scale=(1, 1), corrupt=CorruptLog(3)))
    assert sorted((masks == 255).all() for _, masks in batches) == [False, True, True, True]
    assert sum((images == 0).all() for images, _ in batches) == 3


def _png(image, **options):
    file = io.BytesIO()
    image.save(file, "PNG", **options)
    return tf.constant(file.getvalue())


def test_masks_of_every_kind_of_png():
    ids = np.arange(12, dtype=np.uint8).reshape(3, 4)
    palette = Image.fromarray(ids, "P")
    palette.putpalette([255 - i % 256 for i in range(768)])
    for encoded in (_png(Image.fromarray(ids)), _png(palette), _png(palette, bits=4)):
        np.testing.assert_array_equal(decode_mask(encoded), ids)
        np.testing.assert_array_equal(tf.function(decode_mask)(encoded), ids)
    assert decode_mask(_png(Image.fromarray(ids))).dtype == tf.int32
    np.testing.assert_array_equal(decode_mask(_png(Image.fromarray(ids > 4))), ids > 4)
    np.testing.assert_array_equal(
        decode_mask(_png(Image.fromarray(ids.astype(np.uint16) * 100))), np.minimum(256, ids * 100.0)
    )
    np.testing.assert_array_equal(decode_mask(_png(Image.fromarray(np.stack([ids] * 3, -1)))), np.full((3, 4), 256))
    for wrong in (b"", b"\x89PNG\r\n\x1a\n" + b"0" * 40, _png(palette).numpy()[:70]):
        with pytest.raises((tf.errors.OpError, OSError)):
            decode_mask(tf.constant(wrong))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 8}, "batch_size=8 is larger than the data set"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"crop_size": 0}, "crop_size must be at least 1"),
        ({"scale": (0, 1)}, "scale"),
        ({"scale": (2, 1)}, "scale"),
        ({"scale": (float("nan"), 1)}, "scale"),
        ({"base_size": -1}, "base_size"),
        ({"color_jitter": -0.1}, "color_jitter"),
        ({"pca_noise": float("inf")}, "pca_noise finite"),
        ({"first_epoch": 3}, "first_epoch"),
        ({"first_step": 2}, "first_step"),
        ({"first_step": 1, "first_epoch": 2}, "first_step"),
        ({"dtype": "int8"}, "dtype"),
    ],
)
def test_wrong_arguments_of_training(pairs, options, message):
    with pytest.raises(MisuseError, match=message):
        _train(pairs(), **options)


@pytest.mark.parametrize("options", [{"size": (0, 3)}, {"size": (3,)}, {"multiple": 0}, {"batch_size": 0}])
def test_wrong_arguments_of_evaluation(pairs, options):
    with pytest.raises(MisuseError):
        segmentation_eval_pipeline(pairs(), SegmentationEvalConfig(**{"batch_size": 2} | options))


def test_the_keywords_of_0_1_0_still_work(pairs):
    source = pairs(count=4)
    with pytest.warns(
        DeprecationWarning, match="Pass the options of segmentation_train_pipeline as SegmentationTrainConfig"
    ):
        assert len(segmentation_train_pipeline(source, batch_size=4, crop_size=16, epochs=1)) == 1
    with pytest.warns(
        DeprecationWarning, match="Pass the options of segmentation_eval_pipeline as SegmentationEvalConfig"
    ):
        assert len(segmentation_eval_pipeline(source, batch_size=4)) == 1


def test_camvid(test_data):
    source = open_segmentation(test_data / "camvid", "eval")
    images, masks = next(iter(_train(source, batch_size=4, crop_size=96)))
    assert images.shape == (4, 96, 96, 3) and set(np.unique(masks)) <= {*range(11), 255}
    batch = next(iter(segmentation_eval_pipeline(source, SegmentationEvalConfig(batch_size=2, multiple=32))))
    assert batch[0].shape == (2, 384, 480, 3) and (batch[1][:, 360:] == 255).numpy().all()
