"""`bench pipelines`: the plain pipeline samples from the paper's distributions; trainings are compared correctly."""

import json

import numpy as np
import pytest
import tensorflow as tf
from builders import encode_image
from tiny_training import use_tiny_network

from keras_bot import data
from keras_bot.bench import pipelines, plain_pipeline
from keras_bot.cli.main import main
from keras_bot.errors import MisuseError
from keras_bot.recipe import Recipe

TRAININGS = {"image_size": 32, "batch_size": 8, "model": "cifar_resnet8_d", "width": 0.25, "epochs": 1}


def jpeg(pixels):
    return encode_image(np.asarray(pixels, np.uint8), "JPEG", quality=95)


def plain(images, count, **options):
    """Returns `count` images of the plain pipeline, in 0..1, and their labels; only `options` augment."""
    off = {"flip": False, "color_jitter": 0.0, "pca_noise": 0.0, "min_area": 0.99}
    labels = list(range(len(images)))
    config = plain_pipeline.PlainConfig(batch_size=1, image_size=8, epochs=count, **{**off, **options})
    batches = plain_pipeline.plain_pipeline(images, labels, len(images), config)
    drawn = list(batches.take(count).as_numpy_iterator())
    means, stds = np.array(plain_pipeline.MEAN) / 255, np.array(plain_pipeline.STD) / 255
    return np.concatenate([images for images, _ in drawn]) * stds + means, np.concatenate([each for _, each in drawn])


def test_plain_brightness_is_a_coefficient_of_the_papers_range():
    grey = jpeg(np.full((16, 16, 3), 128))
    images, _ = plain([grey], 2000, color_jitter=0.4)
    coefficients = images.mean((1, 2, 3)) * 255 / 128
    assert 0.595 < coefficients.min() < 0.61 and 1.39 < coefficients.max() < 1.405
    assert coefficients.mean() == pytest.approx(1.0, abs=0.02)
    assert coefficients.std() == pytest.approx(0.8 / 12**0.5, rel=0.05)


def test_plain_hue_turns_by_up_to_72_degrees_and_saturation_is_scaled():
    image = tf.constant([0.6, 0.4, 0.4], shape=[1, 1, 3])  # hue 0, saturation 1/3
    seeds = tf.data.Dataset.range(2000).map(lambda i: tf.stack([i, i]))
    made = seeds.map(lambda seed: tf.image.rgb_to_hsv(plain_pipeline.jitter_color(image, 0.4, seed))[0, 0])
    hue, saturation, value = np.array(list(made.as_numpy_iterator())).T
    turned = (hue + 0.5) % 1.0 - 0.5
    assert -0.2 <= turned.min() < -0.195 and 0.195 < turned.max() <= 0.2001
    assert 0.199 < saturation.min() < 0.205 and 0.46 < saturation.max() < 0.467
    assert np.abs(np.corrcoef([turned, saturation, value]) - np.eye(3)).max() < 0.1  # independent samples


def test_plain_flips_half_and_keeps_labels_with_their_images():
    halves = np.zeros((2, 32, 32, 3))
    halves[0, :, :16], halves[1, :16] = 255, 255  # bright on the left; bright above
    images, labels = plain([jpeg(half) for half in halves], 600, flip=True)
    first = labels[:, 0] == 1
    assert np.all(images[~first][:, :2].mean((1, 2, 3)) > images[~first][:, -2:].mean((1, 2, 3)))
    bright_left = images[first][:, :, :2].mean((1, 2, 3)) > 0.5
    assert 200 < first.sum() < 400 and bright_left.mean() == pytest.approx(0.5, abs=0.12)


def test_plain_windows_have_the_papers_area_and_aspect():
    shape = tf.constant([375, 500, 3])
    seeds = tf.data.Dataset.range(3000).map(lambda i: tf.stack([i, 3 * i]))
    windows = seeds.map(lambda seed: plain_pipeline.random_window(shape, 0.08, seed))
    top, left, height, width = np.array(list(windows.as_numpy_iterator())).T
    assert np.all((top >= 0) & (left >= 0) & (top + height <= 375) & (left + width <= 500))
    areas, aspects = height * width / (375 * 500), width / height
    assert 0.079 < areas.min() < 0.085 and areas.max() > 0.95
    assert 0.74 < aspects.min() < 0.77 and 1.3 < aspects.max() < 1.35
    assert areas.mean() == pytest.approx(0.37, abs=0.02)


def test_plain_pca_noise_has_the_papers_spread():
    seeds = tf.data.Dataset.range(4000).map(lambda i: tf.stack([i, i]))
    made = seeds.map(lambda seed: plain_pipeline.add_pca_noise(tf.zeros([3]), 0.1, seed) * 255.0)
    drawn = np.array(list(made.as_numpy_iterator()))
    vectors, values = np.array(plain_pipeline.EIGENVECTORS), np.array(plain_pipeline.EIGENVALUES)
    expected = vectors @ np.diag((0.1 * values) ** 2) @ vectors.T
    np.testing.assert_allclose(np.cov(drawn.T), expected, atol=0.05 * expected.max())


def test_plain_batches_are_repeatable_and_the_transform_receives_the_epoch():
    images = [jpeg(np.full((16, 16, 3), 20 * i)) for i in range(9)]

    def run(seed):
        tf.random.set_seed(0)
        batches = plain_pipeline.plain_pipeline(
            *(images, range(9), 9),
            plain_pipeline.PlainConfig(batch_size=4, image_size=8, epochs=2, seed=seed),
            batch_transform=lambda images, labels, seed, epoch: (images, labels, seed, epoch),
        )
        return list(batches.as_numpy_iterator())

    one, again, other = run(1), run(1), run(2)
    assert [batch[3] for batch in one] == [0, 0, 1, 1]
    assert len({tuple(batch[2]) for batch in one}) == 4 and one[0][2].dtype == np.int32
    for epoch in (one[:2], one[2:]):
        assert np.concatenate([batch[1] for batch in epoch]).sum(0).max() == 1, "an image came twice in an epoch"
    np.testing.assert_array_equal(one[3][0], again[3][0])
    assert not np.array_equal(one[3][0], other[3][0])


@pytest.fixture
def trainings(image_folder):
    return Recipe(dataset=str(image_folder(train=8, val=3)), mixup_alpha=0.2, **TRAININGS)


@pytest.mark.thorough
def test_both_pipelines_train_and_are_compared(trainings, capsys):
    flags = [line for line in trainings.flag_lines() if line.partition("=")[2]]
    assert main(["bench", "pipelines", *flags, "--seeds=2"]) == 0
    out, err = capsys.readouterr()
    report, logged = json.loads(out), [json.loads(line) for line in err.splitlines() if line.startswith("{")]
    assert [(each["arm"], each["seed"]) for each in logged] == [("fast", 0), ("plain", 0), ("fast", 1), ("plain", 1)]
    for arm in ("fast", "plain"):
        assert report[arm]["top1"] == [each["top1"] for each in logged if each["arm"] == arm]
        assert all(0 <= top1 <= 1 and (9 * top1) % 1 == pytest.approx(0, abs=1e-4) for top1 in report[arm]["top1"])
    assert report["difference"] == pytest.approx(report["fast"]["mean"] - report["plain"]["mean"])


@pytest.mark.thorough
def test_one_arm_alone(trainings, monkeypatch):
    use_tiny_network(monkeypatch)
    report = pipelines.bench_pipelines(trainings, seeds=1, arms=("plain",))
    assert report["plain"]["std"] is None and "fast" not in report and "difference" not in report


def test_seed_noise_is_two_standard_errors():
    report = pipelines.compare({"fast": [0.70, 0.72, 0.74], "plain": [0.70, 0.71, 0.72]})
    assert report["fast"]["std"] == pytest.approx(0.02) and report["difference"] == pytest.approx(0.01)
    assert report["standard_error"] == pytest.approx(((0.02**2 + 0.01**2) / 3) ** 0.5)
    assert report["within_noise"] is True
    assert pipelines.compare({"fast": [0.7, 0.71], "plain": [0.6, 0.61]})["within_noise"] is False
    assert pipelines.compare({"fast": [0.7], "plain": [0.6]})["within_noise"] is None


def test_data_that_the_plain_pipeline_does_not_support_is_refused(trainings, npz_file, tmp_path):
    refused = [
        ({"arms": ("fst",)}, "Unknown arm 'fst'. Did you mean fast"),
        ({"arms": ()}, "--arms is empty"),
        ({"seeds": 0}, "--seeds must be at least 1, received 0"),
    ]
    for options, message in refused:
        with pytest.raises(MisuseError, match=message):
            pipelines.bench_pipelines(trainings, **options)
    with pytest.raises(MisuseError, match="plain pipeline requires --transform=imagenet, received cifar"):
        pipelines.bench_pipelines(Recipe(dataset="digits", transform="cifar", **TRAININGS))
    arrays = data.open_source(str(npz_file()), "train")
    with pytest.raises(MisuseError, match="The plain pipeline requires JPEGs"):
        pipelines.plain_training_data(Recipe(**TRAININGS), arrays, None)
