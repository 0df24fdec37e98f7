import numpy as np
import pytest
import tensorflow as tf

from keras_bot.data.augment import color


def _by_hand(image, hue, saturation, brightness, alpha):
    """The paper's steps one after the other, in float64, each written down anew."""
    to_yiq = np.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.321], [0.211, -0.523, 0.311]])
    yiq = image @ to_yiq.T
    angle = (hue - 1) * np.pi
    i = yiq[..., 1] * np.cos(angle) - yiq[..., 2] * np.sin(angle)
    q = yiq[..., 1] * np.sin(angle) + yiq[..., 2] * np.cos(angle)
    image = np.linalg.solve(to_yiq, np.stack([yiq[..., 0], i, q], -1)[..., None])[..., 0]
    grey = 0.299 * image[..., 0] + 0.587 * image[..., 1] + 0.114 * image[..., 2]
    image = saturation * image + (1 - saturation) * grey[..., None]
    image = brightness * image
    values = [55.46, 4.794, 1.148]
    vectors = [[-0.5675, -0.5808, -0.5836], [0.7192, -0.0045, -0.6948], [0.4009, -0.8140, 0.4203]]
    for a, value, vector in zip(alpha, values, vectors, strict=True):
        image = image + a * value * np.array(vector)
    return (image - [123.68, 116.779, 103.939]) / [58.393, 57.12, 57.375]


def _drawn(images, jitter, noise, seeds, dtype="float32", apply_map=color.fused_map):
    return apply_map(images, *color.draw_maps(len(images), jitter, noise, seeds), dtype)


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_one_map_equals_the_separate_steps(dtype):
    draw = np.random.default_rng(1)
    images = draw.integers(0, 256, (6, 5, 4, 3)).astype(dtype)
    seeds = tf.constant([[1, 2], [3, 4]], tf.int64)
    jitter = color.jitter_coefficients(6, 0.4, seeds[0]).numpy()
    alpha = color.pca_coefficients(6, 0.1, seeds[1]).numpy()
    expected = [_by_hand(image, *jitter[i], alpha[i]) for i, image in enumerate(images.astype(np.float64))]
    for apply_map in (color.fused_map, color.apply_map):
        got = _drawn(tf.constant(images), 0.4, 0.1, seeds, apply_map=apply_map)
        np.testing.assert_allclose(got, expected, atol=2e-5)
    for half, tolerance in (("float16", 3e-3), ("bfloat16", 3e-2)):  # their rounding at 4 standard deviations
        got = _drawn(tf.constant(images), 0.4, 0.1, seeds, half)
        assert got.dtype == half
        np.testing.assert_allclose(tf.cast(got, tf.float32), expected, atol=tolerance)


def test_clipping_after_each_step_would_differ_only_where_a_step_leaves_the_range():
    """tf.image, PIL and torchvision clip to 0..255 after every step; the map, as MXNet, never does."""
    draw = np.random.default_rng(4)
    images = draw.integers(0, 256, (200, 4, 4, 3)).astype(np.float64)
    seeds = tf.constant([[1, 2], [3, 4]], tf.int64)
    jitter = color.jitter_coefficients(200, 0.4, seeds[0]).numpy().astype(np.float64)
    got = _drawn(tf.constant(images, tf.float32), 0.4, 0.0, seeds).numpy() * color.STD + color.MEAN
    pixels, stayed = images, np.ones(images.shape[:-1], bool)
    for part in range(3):
        coefficients = np.ones_like(jitter)
        coefficients[:, part] = jitter[:, part]
        matrix = color.jitter_matrix(tf.constant(coefficients, tf.float32)).numpy()
        pixels = np.einsum("bij,bhwj->bhwi", matrix, pixels)
        stayed &= ((pixels >= 0) & (pixels <= 255)).all(-1)
        pixels = np.clip(pixels, 0, 255)
    np.testing.assert_allclose(got[stayed], pixels[stayed], atol=0.01)
    assert 0.3 < stayed.mean() < 0.9  # of noise in every colour; of photos most
    differing = abs(np.clip(got, 0, 255) - pixels)[~stayed]
    assert 1 < differing.mean() < 20  # grey levels: clipping in between loses what the next step would bring back


def test_coefficients_of_one_change_nothing_and_no_augmentation_normalises_only():
    np.testing.assert_allclose(color.jitter_matrix(tf.ones([1, 3]))[0], np.eye(3), atol=1e-6)
    images = tf.constant(np.random.default_rng(2).integers(0, 256, (2, 3, 3, 3)), tf.float32)
    got = _drawn(images, 0.0, 0.0, tf.zeros([2, 2], tf.int64))
    np.testing.assert_allclose(got, color.normalise(images), atol=1e-5)


def test_hue_keeps_luma_and_saturation_of_zero_is_grey():
    pixel = np.array([200.0, 30.0, 90.0])
    luma = np.array([0.299, 0.587, 0.114])
    turned = color.jitter_matrix(tf.constant([[1.4, 1.0, 1.0]]))[0].numpy() @ pixel
    assert luma @ turned == pytest.approx(luma @ pixel, abs=1e-3)
    assert abs(turned - pixel).max() > 50
    grey = color.jitter_matrix(tf.constant([[1.0, 0.0, 1.0]]))[0].numpy() @ pixel
    np.testing.assert_allclose(grey, luma @ pixel, rtol=1e-5)


def test_hue_saturation_and_brightness_are_uniform():
    drawn = color.jitter_coefficients(10_000, 0.4, tf.constant([5, 6])).numpy()
    assert drawn.min() >= 0.6 and drawn.max() <= 1.4
    np.testing.assert_allclose(drawn.mean(0), 1.0, atol=0.01)
    np.testing.assert_allclose(drawn.std(0), 0.8 / np.sqrt(12), rtol=0.02)
    np.testing.assert_allclose(np.quantile(drawn, [0.25, 0.75], axis=0), [[0.8] * 3, [1.2] * 3], atol=0.015)
    assert abs(np.corrcoef(drawn.T) - np.eye(3)).max() < 0.04


def test_pca_coefficients_are_normal():
    drawn = color.pca_coefficients(10_000, 0.1, tf.constant([5, 6])).numpy()
    np.testing.assert_allclose(drawn.mean(0), 0.0, atol=0.004)
    np.testing.assert_allclose(drawn.std(0), 0.1, rtol=0.03)
    np.testing.assert_allclose((drawn**4).mean(0) / drawn.var(0) ** 2, 3.0, atol=0.2)  # kurtosis
    shift = color.pca_shift(tf.constant(drawn)).numpy()
    np.testing.assert_allclose(shift.std(0), [3.17, 3.22, 3.25], atol=0.15)  # of the first eigenvector, nearly


def test_denormalise_is_the_inverse():
    images = np.random.default_rng(3).integers(0, 256, (2, 4, 4, 3), np.uint8)
    np.testing.assert_array_equal(color.denormalise(color.normalise(images.astype(np.float32))), images)
