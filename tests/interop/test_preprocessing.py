"""Each library's preprocessing, read from its config or by default, and its exact conversion to keras_bot's images."""

import json

import numpy as np
import pytest

from keras_bot.data.augment import color
from keras_bot.errors import MisuseError
from keras_bot.interop import preprocessing
from keras_bot.interop.preprocessing import (
    OWN_PREPROCESSING,
    convert_channels,
    default_preprocessing,
    find_preprocessing,
    fold_normalisation,
)

TORCH = {"mean": (123.675, 116.28, 103.53), "std": (58.395, 57.12, 57.375)}
USUAL = {"image_size": 224, "eval_crop": 0.875, "interpolation": "bilinear", "range": (0, 255), "channels": "RGB"}
HALF = {"mean": (127.5,) * 3, "std": (127.5,) * 3}


@pytest.mark.parametrize(
    ("source", "network", "changed"),
    [
        ("timm", None, {"interpolation": "bicubic"}),
        ("torchvision", "resnet50_b", {}),
        ("gluoncv", None, {}),
        ("gluoncv", "inception_v3", {"image_size": 299}),
        ("paddleclas", None, {}),
        ("keras_hub", None, {"eval_crop": 1.0}),
        ("keras_applications", None, {"mean": (103.939, 116.779, 123.68), "std": (1.0,) * 3, "channels": "BGR"}),
        ("keras_applications", "mobilenet_v1_tf", HALF),
        ("keras_applications", "inception_v3_tf", {**HALF, "image_size": 299}),
        ("timm", "inception_v3", {**HALF, "image_size": 299, "interpolation": "bicubic"}),
        ("timm", "mobilenet_v1_relu6", {**HALF, "interpolation": "bicubic"}),
        ("torchvision", "inception_v3", {**HALF, "image_size": 299, "eval_crop": 299 / 342}),
    ],
)
def test_the_usual_preprocessing_of_a_network(source, network, changed):
    found = default_preprocessing(source, network)
    expected = {**USUAL, **TORCH, **changed}
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name] == (pytest.approx(value) if name in ("mean", "std", "eval_crop") else value), name


def test_our_preprocessing_is_the_pipelines():
    assert (OWN_PREPROCESSING["mean"], OWN_PREPROCESSING["std"]) == (color.MEAN, color.STD)
    assert {name: OWN_PREPROCESSING[name] for name in USUAL} == USUAL


TIMM = {
    "architecture": "resnet50d",
    "label_names": ["a", "b"],
    "pretrained_cfg": {
        **{"input_size": [3, 224, 256], "crop_pct": 0.95, "interpolation": "bicubic"},
        **{"mean": [0.5, 0.4, 0.2], "std": [0.2, 0.1, 0.4]},
    },
}
HUB = {"image_size": [160, 160], "interpolation": "nearest", "scale": [0.5, 0.25, 0.125], "offset": [-1.0, 2.0, 0.0]}


def hub(**changes):
    return {"config": {"image_converter": {"config": {**HUB, **changes}}}}


@pytest.mark.parametrize("explicit", [True, False])
def test_timms_config_is_read(explicit, tmp_path):
    path = tmp_path / ("other.json" if explicit else "config.json")
    path.write_text(json.dumps(TIMM))
    found, more = find_preprocessing(tmp_path / "weights.bin", "timm", path if explicit else None)
    assert found == {
        **USUAL,
        **{"image_size": 256, "eval_crop": 0.95, "interpolation": "bicubic"},
        **{"mean": pytest.approx((127.5, 102, 51)), "std": pytest.approx((51, 25.5, 102))},
    }
    assert more == {"architecture": "resnet50d", "class_names": ["a", "b"]}


def test_timms_names_may_be_in_its_inner_config(tmp_path):
    inner = {**TIMM["pretrained_cfg"], "label_names": ["c"]}
    (tmp_path / "config.json").write_text(json.dumps({"pretrained_cfg": inner}))
    assert find_preprocessing(tmp_path / "weights.bin", "timm")[1] == {"class_names": ["c"]}


@pytest.mark.parametrize(
    ("changes", "mean", "std"),
    [
        ({}, (2.0, -8.0, 0.0), (2.0, 4.0, 8.0)),
        ({"scale": 0.5, "offset": None}, (0.0,) * 3, (2.0,) * 3),
        ({"scale": None}, TORCH["mean"], TORCH["std"]),
    ],
)
def test_keras_hubs_converter_is_read(changes, mean, std, tmp_path):
    (tmp_path / "preprocessor.json").write_text(json.dumps(hub(**changes)))
    found, more = find_preprocessing(tmp_path, "keras_hub")
    assert (found["image_size"], found["interpolation"], found["eval_crop"], more) == (160, "nearest", 1.0, {})
    assert found["mean"] == pytest.approx(mean) and found["std"] == pytest.approx(std)


def test_without_a_config_the_usual_preprocessing_applies(tmp_path):
    for source in ("timm", "torchvision", "keras_hub"):
        assert find_preprocessing(tmp_path / "weights", source) == (default_preprocessing(source), {})
    found, _ = find_preprocessing(tmp_path / "weights", "gluoncv", network="inception_v3")
    assert found["image_size"] == 299


def test_another_librarys_config_next_to_the_file_is_ignored_and_an_explicit_one_is_not(tmp_path):
    (tmp_path / "config.json").write_text('{"other": 1}')
    assert find_preprocessing(tmp_path / "weights", "timm") == (default_preprocessing("timm"), {})
    with pytest.raises(MisuseError, match=r"^Cannot read .*config\.json as a config\.json of timm: KeyError "):
        find_preprocessing(tmp_path / "weights", "timm", tmp_path / "config.json")
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(MisuseError, match=r"as a config\.json of timm: JSONDecodeError"):
        find_preprocessing(tmp_path / "weights", "timm")
    with pytest.raises(MisuseError) as raised:
        find_preprocessing(tmp_path / "weights", "gluoncv", tmp_path / "config.json")
    assert str(raised.value) == (
        f"config={tmp_path / 'config.json'} is only supported for the sources timm and keras_hub, not gluoncv."
    )


rng = np.random.default_rng(0)
PIXELS = rng.integers(0, 256, (2, 4, 5, 3)).astype("float64")
OURS = (PIXELS - color.MEAN) / color.STD


def theirs(settings):
    """Returns the images as the library normalises them; mean and std are in the order of its channels."""
    pixels = PIXELS[..., ::-1] if settings["channels"] == "BGR" else PIXELS
    return (pixels - settings["mean"]) / settings["std"]


SETTINGS = [
    {**TORCH, "channels": "RGB"},
    {"mean": (103.939, 116.779, 123.68), "std": (1.0, 2.0, 3.0), "channels": "BGR"},
    {"mean": (1.0, 2.0, 3.0), "std": (4.0, 5.0, 6.0), "channels": "RGB"},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda settings: settings["channels"])
def test_our_images_are_converted_to_theirs(settings):
    found = convert_channels(settings)
    np.testing.assert_allclose(
        OURS[..., list(found.order)] * found.scale + found.shift, theirs(settings), rtol=1e-10, atol=1e-12
    )


def test_our_own_preprocessing_needs_no_conversion():
    found = convert_channels(OWN_PREPROCESSING)
    assert found.order == (0, 1, 2)
    np.testing.assert_array_equal(found.scale, [1, 1, 1])
    np.testing.assert_array_equal(found.shift, [0, 0, 0])


def convolve(images, kernel):
    """A valid convolution in NumPy."""
    height, width = kernel.shape[:2]
    windows = np.lib.stride_tricks.sliding_window_view(images, (height, width), (1, 2))
    return np.einsum("byxchw,hwco->byxo", windows, kernel)


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda settings: settings["channels"])
def test_the_first_convolution_takes_our_images(settings):
    kernel, mean = rng.normal(size=(3, 2, 3, 4)).astype("float32"), rng.normal(size=4).astype("float32")
    ours, our_mean = fold_normalisation(kernel, mean, settings)
    assert ours.dtype == our_mean.dtype == np.float64
    expected = convolve(theirs(settings), kernel.astype("float64")) - mean
    np.testing.assert_allclose(convolve(OURS, ours) - our_mean, expected, rtol=1e-6, atol=1e-6)
    assert preprocessing.CHANNELS == ("RGB", "BGR")
