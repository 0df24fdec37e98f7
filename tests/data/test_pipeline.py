import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from keras_bot.data import (
    EvalConfig,
    TrainConfig,
    eval_pipeline,
    finish_batch,
    open_source,
    pipeline,
    preprocess_eval,
    train_pipeline,
)
from keras_bot.data.augment.color import normalise
from keras_bot.errors import MisuseError


def _list(batches):
    return [tuple(part.numpy() for part in batch) for batch in batches]


def _equal(one, other):
    return len(one) == len(other) and all(
        np.array_equal(a, b)
        for first, second in zip(one, other, strict=True)
        for a, b in zip(first, second, strict=True)
    )


@pytest.fixture
def numbered(npz_file):
    """24 training images in 4 classes, each filled with its own number times 10."""
    x = np.tile(np.arange(24, dtype=np.uint8)[:, None, None, None] * 10, (1, 8, 8, 3))
    return open_source(str(npz_file(x_train=x, y_train=np.arange(24) % 4)))


def _numbers(images):
    return np.rint((images[:, 0, 0, 0] * 58.393 + 123.68) / 10).astype(int)


PLAIN = {"image_size": 8, "transform": "plain"}


def test_an_epoch_holds_each_image_at_most_once_with_its_label(numbered):
    batches = _list(train_pipeline(numbered, TrainConfig(batch_size=7, epochs=4, **PLAIN)))
    assert len(batches) == 12
    orders = []
    for epoch in range(4):
        part = batches[3 * epoch : 3 * epoch + 3]
        order = np.concatenate([_numbers(images) for images, _ in part])
        labels = np.concatenate([labels for _, labels in part])
        assert len(set(order)) == 21 and set(order) <= set(range(24))
        np.testing.assert_array_equal(labels, np.eye(4)[order % 4])
        orders.append(order)
    assert all((orders[i] != orders[j]).any() for i in range(4) for j in range(i))
    assert set(np.concatenate(orders)) == set(range(24))


@pytest.mark.thorough
def test_shuffled_orders_are_evenly_spread(numbered):
    batches = _list(train_pipeline(numbered, TrainConfig(batch_size=24, epochs=600, **PLAIN)))
    first = np.bincount([_numbers(images)[0] for images, _ in batches], minlength=24)
    assert first.min() >= 8 and first.max() <= 48  # 25 expected
    follows = np.mean([np.mean(np.diff(_numbers(images)) == 1) for images, _ in batches])
    assert follows == pytest.approx(1 / 24, abs=0.01)


IN_MEMORY = pytest.param("folder in memory", marks=pytest.mark.thorough)


@pytest.mark.parametrize(
    "kind",
    [
        "npz",
        pytest.param("folder", marks=pytest.mark.thorough),
        IN_MEMORY,
        pytest.param("digits", marks=pytest.mark.thorough),
    ],
)
def test_resuming_at_any_step_gives_what_a_full_run_has(kind, npz_file, image_folder, tmp_path):
    if kind == "npz":
        source, options = open_source(str(npz_file())), {"image_size": 8, "transform": "cifar"}
    elif kind == "digits":
        source = open_source("digits", data_dir=str(tmp_path), tfds_split="train[:60]")
        options = {"image_size": 8, "transform": "cifar", "shuffle_buffer": 13}
    else:
        source = open_source(str(image_folder(classes=4, train=6)))
        options = {"image_size": 16, "cache": kind == "folder in memory"}

    def transform(images, labels, seed, epoch):
        noise = tf.random.stateless_normal(tf.shape(images), seed)
        return images + noise, labels * tf.cast(epoch + 1, tf.float32)

    options |= {"batch_size": 5, "batch_transform": transform, "seed": 3}
    tf.random.set_seed(1)
    full = _list(train_pipeline(source, TrainConfig(epochs=3, **options)))
    steps = source.size // 5
    assert [labels.max() for _, labels in full] == [e + 1.0 for e in range(3) for _ in range(steps)]
    tf.random.set_seed(99)
    for epoch, step in ((0, 1), (1, 0), (1, steps - 1), (2, 2))[:: 1 if kind == "npz" else 2]:
        rest = train_pipeline(source, TrainConfig(epochs=3, first_epoch=epoch, first_step=step, **options))
        assert rest.cardinality() == 3 * steps - epoch * steps - step
        assert _equal(_list(rest), full[epoch * steps + step :])
    if kind == "npz":
        assert _list(train_pipeline(source, TrainConfig(epochs=3, first_epoch=3, **options))) == []
        assert _equal(_list(train_pipeline(source, TrainConfig(epochs=1, **options))), full[:steps])


def test_seeds_epochs_and_batches_differ(numbered):
    options = {"batch_size": 12, "image_size": 8, "transform": "cifar", "epochs": 2}
    one = _list(train_pipeline(numbered, TrainConfig(seed=1, **options)))
    assert _equal(one, _list(train_pipeline(numbered, TrainConfig(seed=1, **options))))
    for other in (2, -1, 2**40):
        assert not _equal(one, _list(train_pipeline(numbered, TrainConfig(seed=other, **options))))
    assert not np.array_equal(one[0][0], one[2][0])


@pytest.mark.thorough
def test_caching_changes_nothing(image_folder):
    source = open_source(str(image_folder()))
    options = {"batch_size": 4, "image_size": 16}
    plain = _list(train_pipeline(source, TrainConfig(epochs=2, **options)))
    assert _equal(plain, _list(train_pipeline(source, TrainConfig(epochs=2, cache=True, **options))))
    source = open_source(str(image_folder(name="more")), "eval")
    assert _equal(
        _list(eval_pipeline(source, EvalConfig(**options))),
        _list(eval_pipeline(source, EvalConfig(cache=True, **options))),
    )


def test_batch_transform_has_a_seed_of_its_own_each_batch(numbered):
    seen = []

    def transform(images, labels, seed, epoch):
        assert seed.dtype == tf.int32 and seed.shape == (2,)
        return tf.cast(seed, tf.float32), tf.cast(epoch, tf.float32)

    for seed, epoch in train_pipeline(
        numbered, TrainConfig(batch_size=8, epochs=3, batch_transform=transform, **PLAIN)
    ):
        seen.append((*seed.numpy(), float(epoch)))
    assert [epoch for *_, epoch in seen] == [0.0] * 3 + [1.0] * 3 + [2.0] * 3
    assert len({tuple(seed) for *seed, _ in seen}) == 9


def test_no_augmentation_without_the_options(npz_file):
    with np.load(npz_file()) as arrays:
        images, _ = next(
            iter(train_pipeline(open_source(str(npz_file())), TrainConfig(batch_size=24, epochs=1, **PLAIN)))
        )
        expected = np.sort(normalise(arrays["x_train"].astype(np.float32)).reshape(24, -1), 0)
    np.testing.assert_allclose(np.sort(images.numpy().reshape(24, -1), 0), expected, atol=1e-4)
    cifar = {"image_size": 8, "transform": "cifar", "crop_padding": 0, "color_jitter": 0, "pca_noise": 0}
    images, _ = next(
        iter(train_pipeline(open_source(str(npz_file())), TrainConfig(batch_size=24, epochs=1, flip=False, **cifar)))
    )
    np.testing.assert_allclose(np.sort(images.numpy().reshape(24, -1), 0), expected, atol=1e-4)


@pytest.mark.parametrize("transform", ["imagenet", "cifar", "plain"])
def test_evaluation_sees_each_image_once_as_the_export_does(npz_file, transform):
    path = npz_file()
    options = {"image_size": 6, "transform": transform, "eval_crop": 0.8}
    batches = _list(eval_pipeline(open_source(str(path), "eval"), EvalConfig(batch_size=4, **options)))
    images, targets, weights = (np.concatenate(part) for part in zip(*batches, strict=True))
    assert len(batches) == 3 and len(images) == 12
    np.testing.assert_array_equal(weights, [1.0] * 10 + [0.0] * 2)
    with np.load(path) as arrays:
        expected = preprocess_eval(tf.constant(arrays["x_test"]), **options)
        labels = np.eye(4)[arrays["y_test"]]
    np.testing.assert_allclose(images[:10], expected, atol=1e-5)
    np.testing.assert_array_equal(targets[:10], labels)
    assert not images[10:].any() and not targets[10:].any()


def test_evaluation_of_real_photos_equals_the_export(test_data):
    source = open_source(str(test_data / "imagenette224"), "eval")
    batches = _list(eval_pipeline(source, EvalConfig(batch_size=64, image_size=96, transform="imagenet")))
    images, labels, weights = zip(*batches, strict=True)
    assert sum(map(len, images)) == 256 and np.sum(weights) == source.size == 200
    np.testing.assert_array_equal(np.concatenate(labels).sum(0), 20.0)
    record = next(source.records().skip(30).as_numpy_iterator())
    decoded = tf.io.decode_image(record["image"], channels=3)[None]
    np.testing.assert_allclose(images[0][30], preprocess_eval(decoded, 96, "imagenet")[0], atol=1e-4)


@pytest.mark.thorough
def test_what_is_left_to_the_device_gives_the_same_batch(image_folder):
    source = open_source(str(image_folder(classes=4, train=6)))

    def transform(images, labels, seed, epoch):
        half = tf.cast(tf.random.stateless_uniform([], seed), images.dtype)
        return images * half, labels * tf.cast(epoch + 1, tf.float32)

    options = {"batch_size": 5, "image_size": 16, "epochs": 2}
    device = list(train_pipeline(source, TrainConfig(augment_on="device", **options)))
    for dtype, tolerance in (("float32", 1e-5), ("float16", 4e-3), ("bfloat16", 4e-2)):
        host = list(train_pipeline(source, TrainConfig(batch_transform=transform, dtype=dtype, **options)))
        assert len(host) == len(device) == 8
        for (images, labels), (inputs, targets) in zip(host, device, strict=True):
            assert inputs[0].dtype == tf.uint8 and images.dtype == dtype
            finished, finished_labels = finish_batch(inputs, targets, transform, dtype)
            np.testing.assert_allclose(tf.cast(finished, "float32"), tf.cast(images, "float32"), atol=tolerance)
            np.testing.assert_array_equal(finished_labels, labels)


@pytest.mark.thorough
def test_scaled_decoding_of_evaluation_is_near_and_only_on_request(tmp_path):
    from PIL import Image

    wave = 127 + 100 * np.sin(np.arange(400)[:, None] / 40 + np.arange(600)[None] / 50)
    for split in ("train", "val"):
        (tmp_path / split / "a").mkdir(parents=True)
        Image.fromarray(wave.astype(np.uint8)).convert("RGB").save(tmp_path / split / "a" / "0.jpg", quality=98)
    source = open_source(str(tmp_path), "eval")
    exact, scaled = (
        next(iter(eval_pipeline(source, EvalConfig(batch_size=1, image_size=56, scaled_decoding=on))))[0].numpy()
        for on in (False, True)
    )
    assert 0 < abs(exact - scaled).mean() < 0.02  # in standard deviations: 1 grey level


@pytest.mark.thorough
def test_the_public_pipeline_is_the_one_of_its_split(image_folder, numbered):
    folder = str(image_folder(classes=4, train=6))
    options = {"batch_size": 5, "image_size": 16}
    one = _list(pipeline(folder, epochs=2, seed=4, **options))
    assert _equal(one, _list(train_pipeline(open_source(folder), TrainConfig(epochs=2, seed=4, **options))))
    held_out = _list(pipeline(folder, "eval", **options))
    assert _equal(held_out, _list(eval_pipeline(open_source(folder, "eval"), EvalConfig(pad=False, **options))))
    assert len(pipeline(numbered, batch_size=6, epochs=3, **PLAIN)) == 12
    mine = pipeline(numbered, batch_size=6, epochs=1, **PLAIN).map(lambda images, labels: (images * 0, labels))
    assert not next(iter(mine))[0].numpy().any()
    for arguments, message in [
        ({"dataset": folder, "split": "val"}, "split must be 'train' or 'eval', received 'val'"),
        ({"dataset": folder, "epochs": 1, "ram_budget": 2.5}, "ram_budget must be a whole number, received 2.5"),
        ({"dataset": folder}, "epochs is required for 'train'"),
        ({"dataset": folder, "split": "eval", "epochs": 1}, "invalid for 'eval', received 1 for 'eval'"),
        ({"dataset": numbered, "epochs": 1, "num_classes": 4}, "num_classes can't be combined with an opened Source"),
    ]:
        with pytest.raises(MisuseError, match=message):
            pipeline(**arguments, **options)
    for split, wrong, message in [
        ("train", {"color_jiter": 2}, r"Unknown option of data.pipeline 'color_jiter'\. Did you mean color_jitter\?"),
        ("train", {"colour": 2}, r"Unknown option of data.pipeline 'colour'\. (Did you mean|Known: )"),
        ("train", {"data_dirr": "x"}, r"'data_dirr'\. Did you mean data_dir\?"),
        ("eval", {"color_jitter": 0.1}, r"Unknown option of data.pipeline 'color_jitter'"),
    ]:
        with pytest.raises(TypeError, match=message):
            pipeline(folder, split, epochs=1 if split == "train" else None, **wrong, **options)


def test_the_keywords_of_0_1_0_still_work(numbered):
    options = {"batch_size": 4, "image_size": 8, "transform": "cifar"}
    with pytest.warns(DeprecationWarning, match="Pass the options of train_pipeline as TrainConfig"):
        old = _list(train_pipeline(numbered, epochs=1, seed=2, **options))
    assert _equal(old, _list(train_pipeline(numbered, TrainConfig(epochs=1, seed=2, **options))))
    with pytest.warns(DeprecationWarning, match="Pass the options of eval_pipeline as EvalConfig"):
        old = _list(eval_pipeline(numbered, eval_crop=0.5, **options))
    assert _equal(old, _list(eval_pipeline(numbered, EvalConfig(eval_crop=0.5, **options))))
    with pytest.raises(TypeError, match=r"Unknown option of eval_pipeline 'epochs'"):
        eval_pipeline(numbered, epochs=1, **options)
    with pytest.raises(TypeError, match=r"missing 1 required keyword-only argument: 'epochs'"):
        train_pipeline(numbered, **options)
    with pytest.raises(TypeError, match=r"eval_pipeline: pass pad to EvalConfig instead"):
        eval_pipeline(numbered, EvalConfig(**options), pad=False)


def test_a_config_is_validated_when_it_is_built_and_cannot_change():
    config = TrainConfig(batch_size=8, image_size=8, epochs=2)
    assert config == TrainConfig(batch_size=8, image_size=8, epochs=2, color_jitter=0.4)
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.batch_size = 0
    for wrong in ({"batch_size": 0}, {"workers": 3, "worker": 0}, {"first_epoch": 3}, {"transform": "x"}):
        with pytest.raises(MisuseError):
            dataclasses.replace(config, **wrong)


def test_tensorflow_buffers_have_a_budget(numbered):
    for batches in (
        train_pipeline(numbered, TrainConfig(batch_size=4, epochs=1, ram_budget=7, **PLAIN)),
        eval_pipeline(numbered, EvalConfig(batch_size=4, ram_budget=7, **PLAIN)),
    ):
        assert batches.options().autotune.ram_budget == 7 * 2**20


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 25}, r"batch_size=25 is larger than .* 24 images"),
        ({"batch_size": 0}, r"batch_size must be at least 1, received 0"),
        ({"image_size": 0}, r"image_size must be at least 1, received 0"),
        ({"shuffle_buffer": 0}, r"shuffle_buffer must be at least 1"),
        ({"transform": "imagnet"}, r"Unknown transform 'imagnet'\. Did you mean imagenet"),
        ({"first_epoch": 3}, r"first_epoch must be from 0 to epochs=2, received 3"),
        ({"first_step": 6}, r"first_step must be at least 0 and less than the 6 steps of an epoch, received 6"),
        ({"first_epoch": 2, "first_step": 1}, r"first_step must be at least 0 and less than the 6 "),
        ({"dtype": "float64"}, r"Unknown dtype 'float64'"),
        ({"augment_on": "gpu"}, r"Unknown place to augment on 'gpu'.*device, host"),
        ({"ram_budget": 0}, r"ram_budget must be at least 1, received 0"),
        ({"min_area": 0.0}, r"min_area must be above 0 and at most 1"),
        ({"color_jitter": 1.5}, r"color_jitter must be from 0 to 1"),
        ({"pca_noise": -0.1}, r"pca_noise finite and at least 0"),
        ({"crop_padding": -1}, r"crop_padding at least 0"),
    ],
)
def test_wrong_arguments_are_reported(numbered, options, message):
    with pytest.raises(MisuseError, match=message):
        train_pipeline(numbered, TrainConfig(**{"batch_size": 4, "image_size": 8, "epochs": 2, **options}))


def test_wrong_arguments_of_evaluation_are_reported(numbered):
    with pytest.raises(MisuseError, match=r"eval_crop must be above 0 and at most 1, received 1\.5"):
        eval_pipeline(numbered, EvalConfig(batch_size=4, image_size=8, eval_crop=1.5))
    with pytest.raises(MisuseError, match=r"eval_crop must be above 0 and at most 1, received 0"):
        preprocess_eval(tf.zeros([1, 8, 8, 3]), 8, "imagenet", 0)


@pytest.mark.parametrize(("min_area", "narrow"), [(0.9, False), (0.08, True)])
def test_min_area_bounds_the_random_crops(npz_file, min_area, narrow):
    """A crop of at least 0.9 of a square has at least sqrt(0.9 * 3/4) = 0.82 of its columns; pixels count these."""
    columns = np.broadcast_to(np.arange(0, 256, 8, dtype=np.uint8)[:, None], (24, 32, 32, 3))
    source = open_source(str(npz_file(x_train=columns, y_train=np.arange(24) % 4)))
    config = TrainConfig(batch_size=24, epochs=1, image_size=32, min_area=min_area, color_jitter=0.0, pca_noise=0.0)
    ((images, _),) = _list(train_pipeline(source, config))
    widths = np.ptp(images[..., 0], axis=(1, 2)) * 58.393 / 8 + 1
    assert (widths.min() < 24) == narrow and widths.max() > 24
