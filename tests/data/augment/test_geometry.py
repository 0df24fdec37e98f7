import io

import numpy as np
import pytest
import tensorflow as tf
from builders import encode_image
from PIL import Image

from keras_bot.data import decode, preprocess_eval
from keras_bot.data.augment import geometry as image

PIXELS = np.random.default_rng(0).integers(0, 256, (24, 36, 3), np.uint8)


def _forms():
    grey = PIXELS[..., 0]
    frames = [Image.fromarray(np.roll(PIXELS, i, 0)) for i in range(3)]
    stream = io.BytesIO()
    frames[0].save(stream, "GIF", save_all=True, append_images=frames[1:])
    return {
        "rgb_png": encode_image(PIXELS, "PNG"),
        "grey_png": encode_image(grey, "PNG"),
        "deep_png": encode_image(grey.astype(np.uint16) * 257, "PNG"),
        "palette_png": encode_image(PIXELS, "PNG", "P"),
        "rgba_png": encode_image(PIXELS, "PNG", "RGBA"),
        "jpeg": encode_image(PIXELS, "JPEG", quality=95),
        "grey_jpeg": encode_image(grey, "JPEG"),
        "cmyk_jpeg": encode_image(PIXELS, "JPEG", "CMYK"),
        "progressive_jpeg": encode_image(PIXELS, "JPEG", progressive=True),
        "gif": stream.getvalue(),
        "bmp": encode_image(PIXELS, "BMP"),
        "webp": encode_image(PIXELS, "WEBP", lossless=True),
        "rgba_webp": encode_image(PIXELS, "WEBP", "RGBA", lossless=True, exact=True),
        "webp_animation": encode_image(PIXELS, "WEBP", lossless=True, save_all=True, append_images=frames[1:]),
        "tiff": encode_image(PIXELS, "TIFF", compression="tiff_lzw"),
        "tiff_pages": encode_image(PIXELS, "TIFF", save_all=True, append_images=frames[1:]),
        "grey_tiff": encode_image(grey, "TIFF"),
        "deep_tiff": encode_image(grey.astype(np.uint16) * 257, "TIFF"),
        "rgba_tiff": encode_image(PIXELS, "TIFF", "RGBA"),
        "palette_tiff": encode_image(PIXELS, "TIFF", "P"),
        "ppm": encode_image(PIXELS, "PPM"),
        "pgm": encode_image(grey, "PPM"),
    }


@pytest.mark.parametrize("form", list(_forms()))
def test_every_form_of_image_is_decoded_and_cropped(form):
    encoded = tf.constant(_forms()[form])
    decoded = decode.decode(encoded).numpy()
    assert decoded.shape == (24, 36, 3) and decoded.dtype == np.uint8
    if form in ("rgb_png", "rgba_png", "bmp", "ppm") or form.startswith(("webp", "rgba", "tiff")):
        np.testing.assert_array_equal(decoded, PIXELS)
    if form in ("grey_png", "deep_png", "grey_tiff", "deep_tiff", "pgm"):
        np.testing.assert_array_equal(decoded, np.repeat(PIXELS[..., :1], 3, -1))
    uniform = tf.random.stateless_uniform([22], [1, 2])
    cropped = image.random_resized_crop(encoded, 16, uniform, 0.5)
    expected = image.random_resized_crop(tf.constant(decoded), 16, uniform, 0.5)
    # At the right edge of a window decoded alone the chroma has no neighbour to be upsampled from.
    assert cropped.dtype == tf.uint8
    np.testing.assert_allclose(cropped[:, :-2].numpy().astype(int), expected[:, :-2].numpy().astype(int), atol=2)


@pytest.mark.parametrize(
    "encoded",
    [
        b"",
        b"no image",
        b"RIFF\x00\x00\x00\x00WAVEfmt ",
        encode_image(PIXELS[..., 0].astype("float32"), "TIFF"),
        b"%!PS-Adobe-3.0 EPSF",
    ],
    ids=["empty", "text", "sound", "float tiff", "eps"],
)
def test_what_is_no_image_raises_eagerly_and_in_graphs(encoded):
    for run in (decode.decode, tf.function(decode.decode)):
        with pytest.raises(tf.errors.OpError):
            run(tf.constant(encoded))


def test_a_bmp_with_a_palette_of_colours_is_refused():
    grey = PIXELS[..., 0]
    decoded = decode.decode(tf.constant(encode_image(grey, "BMP"))).numpy()
    np.testing.assert_array_equal(decoded, np.repeat(grey[..., None], 3, -1))
    with pytest.raises(tf.errors.InvalidArgumentError, match="BMP with a colour palette"):
        decode.decode(tf.constant(encode_image(PIXELS, "BMP", "P")))


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 50), (400, 2), (375, 500), (600, 90)])
def test_crop_lies_within_the_image(height, width):
    sample = tf.function(lambda u: image.sample_crop(tf.constant([height, width]), u, 0.08))
    for i in range(100):
        top, left, rows, columns = sample(tf.random.stateless_uniform([22], [7, i])).numpy()
        assert rows >= 1 and columns >= 1
        assert top >= 0 and top + rows <= height
        assert left >= 0 and left + columns <= width


def test_crop_area_aspect_and_place():
    uniform = tf.random.stateless_uniform([10_000, 22], [3, 4])
    sample = tf.function(lambda u: tf.map_fn(_sample_square, u, fn_output_signature=tf.int32))
    top, _, rows, columns = sample(uniform).numpy().T.astype(float)
    area, aspect = rows * columns / 2000.0**2, columns / rows
    assert area.min() > 0.079 and area.max() <= 1.0
    assert aspect.min() > 0.749 and aspect.max() < 1.335
    assert np.mean(np.log(aspect)) == pytest.approx(0.0, abs=0.006)
    small = area < 0.7  # of these every aspect ratio fits, so what is kept of U(0.08, 1) is uniform here
    assert np.log(aspect[small]).std() == pytest.approx(np.log(16 / 9) / np.sqrt(12), rel=0.03)
    assert area[small].mean() == pytest.approx(0.39, abs=0.01)
    assert area[small].std() == pytest.approx(0.62 / np.sqrt(12), rel=0.03)
    place = top[small] / (2000 - rows[small])
    assert place.mean() == pytest.approx(0.5, abs=0.015) and place.std() == pytest.approx(12**-0.5, rel=0.03)


def _sample_square(uniform):
    return image.sample_crop(tf.constant([2000, 2000]), uniform, 0.08)


def test_without_a_fit_the_largest_centred_window_is_taken():
    wide = image.sample_crop(tf.constant([30, 300]), tf.fill([22], 0.999), 0.9)
    np.testing.assert_array_equal(wide, [0, 130, 30, 40])
    tall = image.sample_crop(tf.constant([300, 30]), tf.fill([22], 0.999), 0.9)
    np.testing.assert_array_equal(tall, [130, 0, 40, 30])


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize(("target", "ratio"), [(60, 1), (41, 1), (40, 2), (21, 2), (20, 4), (11, 4), (10, 8), (3, 8)])
def test_a_large_window_is_decoded_at_the_smallest_size_that_suffices(target, ratio, mode):
    rows, columns = np.mgrid[:123, :201]
    smooth = np.stack([rows, columns, (rows + columns) // 2], -1).astype(np.uint8)
    encoded = tf.constant(encode_image(smooth, "JPEG", mode, quality=98))
    window = tf.constant([16, 40, 80, 96])
    got = decode.decode_window(encoded, tf.constant([123, 201]), window, target).numpy()
    assert got.shape == (80 // ratio, 96 // ratio, 3)
    whole = decode.decode(encoded).numpy().astype(float)[16:96, 40:136]
    means = whole.reshape(80 // ratio, ratio, 96 // ratio, ratio, 3).mean((1, 3))
    np.testing.assert_allclose(got, means, atol=4)
    assert abs(got - means).mean() < 1.5


def test_scaled_decoding_averages_what_plain_resizing_would_alias():
    stripes = np.repeat(np.tile([0, 255], 200)[None, :, None].astype(np.uint8), 400, 0).repeat(3, -1)
    encoded = tf.constant(encode_image(stripes, "JPEG", quality=95))
    uniform = tf.fill([22], 0.5)  # a square of 95 % of the area: 7.8 pixels to one
    aliased = image.random_resized_crop(tf.constant(stripes), 50, uniform, 0.9).numpy()
    averaged = image.random_resized_crop(encoded, 50, uniform, 0.9).numpy()
    assert aliased.std() > 30
    assert averaged.std() < 3 and abs(averaged.mean() - 127.5) < 3


@pytest.mark.parametrize(
    ("height", "width"),
    [(8, 300), *(pytest.param(*size, marks=pytest.mark.thorough) for size in ((61, 97), (1000, 17), (449, 450)))],
)
def test_windows_of_every_scale_lie_within_the_image(height, width):
    pixels = np.random.default_rng(5).integers(0, 256, (height, width, 3), np.uint8)
    encoded = tf.constant(encode_image(pixels, "JPEG"))
    for size in (1, 3, 7, 30, 100):
        crop = tf.function(lambda uniform, size=size: image.random_resized_crop(encoded, size, uniform, 0.08))
        for i in range(20):
            assert crop(tf.random.stateless_uniform([22], [size, i])).shape == (size, size, 3)
        assert crop(tf.fill([22], 0.9999999)).shape == (size, size, 3)


def _train(picture, seed, transform="cifar", flip=True, crop_padding=0, size=8):
    options = {"flip": flip, "min_area": 0.08, "crop_padding": crop_padding}
    return image.train_image(picture, size, transform, seed, **options)


def test_half_of_the_images_are_flipped():
    picture = tf.constant(PIXELS[:8, :8])
    seeds = np.stack([np.full(2000, 9), np.arange(2000)], -1)
    train = tf.function(lambda s: tf.map_fn(lambda seed: _train(picture, seed), s, fn_output_signature=tf.uint8))
    images = train(seeds).numpy()
    flipped = (images == PIXELS[:8, 7::-1]).all((1, 2, 3))
    assert (flipped | (images == PIXELS[:8, :8]).all((1, 2, 3))).all()
    assert 0.46 < flipped.mean() < 0.54
    assert all(np.array_equal(_train(picture, [1, i], flip=False), PIXELS[:8, :8]) for i in range(20))


def test_cifar_crop_has_every_offset_equally_often_and_pads_with_black():
    ones = tf.ones([8, 8, 3])
    seen = np.zeros((5, 5))
    crop = tf.function(lambda uniforms: tf.map_fn(lambda uniform: image.random_crop(ones, 8, uniform, 2), uniforms))
    for got in crop(tf.random.stateless_uniform([2000, 2], [1, 2])).numpy()[..., 0]:
        assert set(np.unique(got)) <= {0.0, 1.0}
        down, across = (np.flatnonzero(got.any(axis))[[0, -1]] for axis in (1, 0))
        top = 2 - down[0] if down[0] else 9 - down[1]
        left = 2 - across[0] if across[0] else 9 - across[1]
        seen[top, left] += 1
    assert (seen > 45).all() and (seen < 120).all()


def test_plain_is_only_resized_and_eval_keeps_the_aspect_ratio():
    picture = tf.constant(PIXELS)
    got = _train(picture, [1, 2], "plain", size=12)
    np.testing.assert_array_equal(got, np.floor(tf.image.resize(picture, [12, 12]) + 0.5))
    seen = image.eval_image(picture, 16, "imagenet", 0.8)  # shorter edge 20, so 20x30; the middle 16x16
    np.testing.assert_array_equal(seen, tf.image.resize(picture, [20, 30])[2:18, 7:23])
    np.testing.assert_array_equal(image.eval_image(picture, 16, "cifar", 0.8), tf.image.resize(picture, [16, 16]))


@pytest.mark.parametrize("shape", [(40, 9), (9, 41), (37, 8), (300, 5), (5, 301), (4, 16), (3, 13)])
@pytest.mark.parametrize(("size", "crop"), [(16, 0.875), (15, 0.875), (6, 0.5)])
def test_long_images_are_cut_out_as_others(shape, size, crop):
    picture = tf.constant(np.random.default_rng(6).integers(0, 256, (*shape, 3), np.uint8))
    expected = image.eval_image(picture, size, "imagenet", crop)
    np.testing.assert_allclose(image.eval_one(picture, size, "imagenet", crop), expected, atol=0.02)


@pytest.mark.parametrize("transform", image.TRANSFORMS)
@pytest.mark.parametrize("form", ["jpeg", "rgb_png", "array"])
def test_eager_and_tf_data_agree(transform, form):
    picture = tf.constant(PIXELS if form == "array" else _forms()[form])

    def both(index):
        seed = tf.stack([tf.constant(3, tf.int64), index])
        trained = _train(picture, seed, transform, crop_padding=3, size=16)
        return trained, image.eval_image(decode.decode(picture), 16, transform, 0.875)

    for index, (trained, evaluated) in enumerate(tf.data.Dataset.range(5).map(both)):
        eager = both(tf.constant(index, tf.int64))
        np.testing.assert_allclose(tf.cast(trained, tf.int32), tf.cast(eager[0], tf.int32), atol=1)
        np.testing.assert_allclose(evaluated, eager[1], atol=1e-4)


@pytest.mark.parametrize("transform", image.TRANSFORMS)
@pytest.mark.parametrize("shape", [(24, 36), (16, 16), (5, 60), (100, 3)])
def test_preprocess_eval_is_a_graph_for_any_size(transform, shape):
    graph = tf.function(
        lambda images: preprocess_eval(images, 16, transform),
        input_signature=[tf.TensorSpec([None, None, None, 3], tf.uint8)],
    )
    images = np.random.default_rng(4).integers(0, 256, (2, *shape, 3), np.uint8)
    got = graph(images)
    assert got.shape == (2, 16, 16, 3) and got.dtype == tf.float32
    eager = preprocess_eval(tf.constant(images, tf.float32), 16, transform)
    np.testing.assert_allclose(got, eager, atol=1e-5)
