import pathlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from keras_bot.data import CorruptLog, EvalConfig, TrainConfig, eval_pipeline, open_source, train_pipeline
from keras_bot.data.corrupt import guarded_batches
from keras_bot.errors import RunError


def _break(folder: pathlib.Path) -> dict[str, bytes]:
    """Damage four images of class0 of `train`, each in its own way; returns {name: contents}."""
    files = [folder / "train" / "class0" / f"{i}.jpg" for i in range(4)]
    whole = files[0].read_bytes()
    contents = [whole[: len(whole) // 3], b"", b"\x00garbage" * 50, whole[:2] + b"\xff" * 400]
    for file, content in zip(files, contents, strict=True):
        file.write_bytes(content)
    return {str(file.relative_to(folder)) for file in files}


def test_log_keeps_distinct_names_in_order_and_raises_past_its_limit():
    log = CorruptLog(2)
    for name in ("b", "a", "b"):
        log.report(name)
    assert log.names == ["b", "a"] and not log.exceeded
    with pytest.raises(RunError, match=r"3 images can't be .* at most 2 may fail: b, a, c\. .*max_corrupt"):
        log.report("c")
    assert log.exceeded
    for i in range(6):
        with pytest.raises(RunError):
            log.report(f"d{i}")
    assert "b, a, c, d0, d1 and 4 more" in str(log.error())


def test_guarded_batches_keeps_order_and_returns_places():
    def make(number):
        with tf.control_dependencies([tf.debugging.assert_none_equal(number % 4, tf.constant(1, tf.int64))]):
            return (tf.cast(number, tf.float32)[None] * 2,)

    keys = tf.data.Dataset.range(11).map(lambda i: (i,))
    batches = [tf.nest.map_structure(lambda x: x.numpy().tolist(), b) for b in guarded_batches(keys, make, 4)]
    assert [keys[0] for keys, _, _ in batches] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10]]
    assert [places for _, places, _ in batches] == [[0, 2, 3], [0, 2, 3], [0, 2]]
    assert batches[1][2] == ([[8.0], [12.0], [14.0]],)


@pytest.mark.parametrize("cache", [False, True])
def test_training_fills_the_places_of_broken_images(image_folder, cache):
    folder = image_folder(classes=3, train=6)
    broken = _break(folder)
    log = CorruptLog(4)
    source = open_source(str(folder))
    options = {"batch_size": 9, "image_size": 16, "color_jitter": 0, "pca_noise": 0, "cache": cache}
    batches = list(train_pipeline(source, TrainConfig(epochs=3, corrupt=log, **options)))
    assert len(batches) == 6
    assert set(log.names) == broken
    for images, labels in batches:
        assert images.shape == (9, 16, 16, 3)
        np.testing.assert_array_equal(labels.numpy().sum(1), 1.0)
        blank = (images.numpy() == images.numpy()[:, :1, :1]).all((1, 2, 3))
        assert not blank.any()


@pytest.mark.thorough
def test_whole_images_are_the_same_beside_broken_ones(image_folder):
    folder = image_folder(classes=3, train=6)
    options = {"batch_size": 18, "image_size": 16, "epochs": 1, "color_jitter": 0, "pca_noise": 0}
    before, labels = next(iter(train_pipeline(open_source(str(folder)), TrainConfig(**options))))
    _break(folder)
    after, _ = next(iter(train_pipeline(open_source(str(folder)), TrainConfig(corrupt=CorruptLog(9), **options))))
    same = (before.numpy() == after.numpy()).all((1, 2, 3))
    assert same.sum() == 14
    assert (labels.numpy()[~same].argmax(1) == 0).all()


def test_evaluation_leaves_broken_images_out(image_folder):
    folder = image_folder(classes=2, val=5)
    for i in (0, 3, 4):
        (folder / "val" / "class1" / f"{i}.jpg").write_bytes(b"no image")
    log = CorruptLog(3)
    options = {"batch_size": 5, "image_size": 16}
    batches = list(eval_pipeline(open_source(str(folder), "eval"), EvalConfig(corrupt=log, **options)))
    assert [len(images) for images, _, _ in batches] == [5, 5]
    weights = [weights.numpy().tolist() for _, _, weights in batches]
    assert weights == [[1.0] * 5, [0.0, 1.0, 1.0, 0.0, 0.0]]
    for images, labels, weights in batches:
        seen = (images.numpy() != 0).any((1, 2, 3))
        np.testing.assert_array_equal(seen, weights.numpy() == 1)
        np.testing.assert_array_equal(labels.numpy().sum(1), weights)
    assert log.names == [f"val/class1/{i}.jpg" for i in (0, 3, 4)]


def test_a_batch_without_any_whole_image_is_black_without_loss(image_folder):
    folder = image_folder(classes=1, train=5, val=2)
    _break(folder)
    (folder / "val" / "class0" / "0.jpg").write_bytes(b"")
    options = {"batch_size": 1, "image_size": 8}
    train = train_pipeline(open_source(str(folder)), TrainConfig(epochs=1, corrupt=CorruptLog(9), **options))
    assert sum(labels.numpy().sum() for _, labels in train) == 1
    empty, whole = eval_pipeline(open_source(str(folder), "eval"), EvalConfig(corrupt=CorruptLog(9), **options))
    assert not any(part.numpy().any() for part in empty)
    assert all(part.numpy().any() for part in whole)


@pytest.mark.parametrize("split", ["train", "eval"])
def test_a_split_without_any_whole_image_ends_the_run(image_folder, split):
    folder = image_folder(classes=1, train=4, val=2)
    for file in folder.rglob("*.jpg"):
        file.write_bytes(b"no image")
    source, options = open_source(str(folder), split), {"batch_size": 2, "image_size": 8, "corrupt": CorruptLog(99)}
    pipeline = (
        train_pipeline(source, TrainConfig(epochs=2, **options))
        if split == "train"
        else eval_pipeline(source, EvalConfig(**options))
    )
    with pytest.raises(tf.errors.OpError, match=rf"None of the {source.size} images of .* can be decoded"):
        list(pipeline)


@pytest.mark.parametrize("split", ["train", "eval"])
@pytest.mark.parametrize("limit", [pytest.param(None, marks=pytest.mark.thorough), 2])
def test_too_many_broken_images_end_the_run(image_folder, split, limit):
    folder = image_folder(classes=2, train=5, val=4)
    for name in ("train", "val"):
        for i in range(3):
            (folder / name / "class1" / f"{i}.jpg").write_bytes(b"no image")
    log = None if limit is None else CorruptLog(limit)
    source = open_source(str(folder), split)
    options = {"batch_size": 4, "image_size": 8, "corrupt": log}
    pipeline = (
        train_pipeline(source, TrainConfig(epochs=3, **options))
        if split == "train"
        else eval_pipeline(source, EvalConfig(**options))
    )
    with pytest.raises(tf.errors.OpError, match=r"can't be decoded.*class1"):
        list(pipeline)
    if log:
        assert log.exceeded and len(log.names) == 3


def test_a_vanished_file_and_odd_but_whole_images(image_folder):
    folder = image_folder(classes=1, train=5, val=1)
    directory = folder / "train" / "class0"
    pixels = np.full((30, 20, 3), 200, np.uint8)
    Image.fromarray(pixels).save(directory / "0.jpg", "PNG")  # named otherwise than it is
    Image.fromarray(pixels).convert("CMYK").save(directory / "1.jpg", "JPEG")
    Image.fromarray(pixels[:1, :1]).save(directory / "2.jpg", "JPEG")
    Image.fromarray(pixels).save(directory / "3.jpg", "GIF")
    source = open_source(str(folder))
    (directory / "4.jpg").unlink()
    log = CorruptLog(1)
    images, _ = next(iter(train_pipeline(source, TrainConfig(batch_size=5, image_size=8, epochs=1, corrupt=log))))
    assert np.isfinite(images).all()
    assert log.names == ["train/class0/4.jpg"]
