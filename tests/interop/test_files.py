"""Files in and out, without the libraries that wrote them: forms, damage, preprocessing, and what we write for timm."""

import base64
import json

import keras
import ml_dtypes
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from keras_bot import interop, models
from keras_bot.errors import MisuseError
from keras_bot.interop.preprocessing import DEFAULTS, MEAN, STD, fold_normalisation
from keras_bot.interop.timm_file import timm_name

pytestmark = pytest.mark.core

# {"conv.weight": float32 0 … 5 of (2, 3, 1, 1), "half": float16 (1.5, -2), "count": int64 (7,)}, by MXNet 1.9.1
PARAMS = (
    "EgEAAAAAAAAAAAAAAAAAAAMAAAAAAAAAyfqT+QAAAAAEAAAAAgAAAAAAAAADAAAAAAAAAAEAAAAAAAAAAQAAAAAAAAABAAAAAAAAAAAAAAAAAAAA"
    "AACAPwAAAEAAAEBAAACAQAAAoEDJ+pP5AAAAAAEAAAACAAAAAAAAAAEAAAAAAAAAAgAAAAA+AMDJ+pP5AAAAAAEAAAABAAAAAAAAAAEAAAAAAAAA"
    "BgAAAAcAAAAAAAAAAwAAAAAAAAALAAAAAAAAAGNvbnYud2VpZ2h0BAAAAAAAAABoYWxmBQAAAAAAAABjb3VudA=="
)
SMALL = {"num_classes": 5, "width": 0.125}


def _randomise(model):
    draw = np.random.default_rng(0)
    for variable in model.variables:
        variable.assign(draw.uniform(0.5, 1.5, variable.shape))
    return model


@pytest.fixture(scope="module")
def resnet18_d():
    """A small network with random weights. Do not change it."""
    return _randomise(models.create_model("resnet18_d", **SMALL))


@pytest.fixture(scope="module")
def written(resnet18_d, tmp_path_factory):
    """The file that `save_timm` writes of it. Do not change it."""
    path = tmp_path_factory.mktemp("written") / "net.safetensors"
    interop.save_timm(resnet18_d, path)
    return path


@pytest.fixture(scope="module")
def target():
    """A network of the same architecture, whose weights any test may replace."""
    return models.create_model("resnet18_d", **SMALL)


def _assert_same(one, other):
    for ours, theirs in zip(one.weights, other.weights, strict=True):
        np.testing.assert_array_equal(np.asarray(ours), np.asarray(theirs), err_msg=ours.path)


@pytest.mark.parametrize(
    "name",
    [
        "resnet18_a",
        pytest.param("resnet50_c", marks=pytest.mark.thorough),
        "resnet26_b",
        pytest.param("resnet50_d", marks=pytest.mark.thorough),
        "resnet34_d",
    ],
)
def test_what_timm_gets_comes_back_as_it_was(name, tmp_path):
    model = _randomise(models.create_model(name, **SMALL))
    config = interop.save_timm(model, tmp_path / "net.safetensors", image_size=192, eval_crop=0.9)
    assert config["architecture"] == name.replace("_a", "").replace("_b", "").replace("_", "")
    assert config["num_classes"] == 5 and config["pretrained_cfg"]["input_size"] == [3, 192, 192]
    np.testing.assert_allclose(np.array(config["pretrained_cfg"]["mean"]) * 255, MEAN)
    again = models.create_model(name, **SMALL)
    same, report = interop.load(tmp_path / "net.safetensors", again, source="timm")
    assert same is again and report.head == "kept" and report.model == name
    _assert_same(again, model)  # the file states keras_bot's own normalisation, so nothing is folded
    assert (report.preprocessing["image_size"], report.preprocessing["eval_crop"]) == (192, 0.9)
    assert len(report.file["sha256"]) == 64


def test_a_file_for_timm_has_the_usual_permissions(resnet18_d, tmp_path):
    (tmp_path / "usual").touch()
    interop.save_timm(resnet18_d, tmp_path / "net.safetensors")
    assert (tmp_path / "net.safetensors").stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_timm_is_given_no_network_that_it_has_not():
    known = {name: timm_name(name) for name in models.names() if timm_name(name)}
    resnets = {name: theirs for name, theirs in known.items() if name.startswith("resnet")}
    depths = {letter: {int(n[6:-2]) for n in resnets if n.endswith(letter)} for letter in "abcd"}
    assert depths["b"] == depths["d"] == {18, 26, 34, 50, 101, 152}
    assert depths["a"] == {18, 34} and depths["c"] == {50, 101, 152}
    assert set(known) - set(resnets) == {"inception_v3", "mobilenet_v1_relu6"}


def test_of_each_batch_norm_timm_gets_its_count_of_batches(written):
    tensors = load_file(written)
    counts = [name for name in tensors if name.endswith("num_batches_tracked")]
    assert len(counts) == sum(name.endswith("running_var") for name in tensors)
    assert all(tensors[name].dtype == np.int64 and tensors[name].shape == () for name in counts)
    with safe_open(written, framework="numpy") as file:
        assert file.metadata()["format"] == "pt"


@pytest.mark.parametrize(
    ("name", "theirs"),
    [
        pytest.param("inception_v3", "inception_v3", marks=pytest.mark.thorough),
        ("mobilenet_v1_relu6", "mobilenetv1_100"),
    ],
)
def test_inception_and_mobilenet_come_back_from_timm_too(name, theirs, tmp_path):
    small = {"num_classes": 5, "width": 0.0625}
    model, again = _randomise(models.create_model(name, **small)), models.create_model(name, **small)
    config = interop.save_timm(model, tmp_path / "net.safetensors")
    size = models.info(name).image_size
    assert config["architecture"] == theirs and config["num_classes"] == 5
    assert config["pretrained_cfg"]["input_size"] == [3, size, size]
    report = interop.load(tmp_path / "net.safetensors", again, source="timm")[1]
    assert report.head == "kept" and report.model == name and report.preprocessing["image_size"] == size
    _assert_same(again, model)


@pytest.mark.parametrize("name", ["resnet50_a", "resnet18_vd", "cifar_resnet20_d", "mobilenet_v1"])
def test_a_network_that_timm_lacks_is_not_written(name, tmp_path):
    with pytest.raises(MisuseError, match="Export a ResNet-18 … 152 of variant B or D"):
        interop.save_timm(models.create_model(name, **SMALL), tmp_path / "net.safetensors")
    assert not list(tmp_path.iterdir())


def test_a_file_for_timm_is_replaced_only_with_overwrite(resnet18_d, tmp_path):
    model, path = resnet18_d, tmp_path / "net.safetensors"
    path.write_text("mine")
    with pytest.raises(MisuseError, match="already exists"):
        interop.save_timm(model, path)
    assert path.read_text() == "mine"
    interop.save_timm(model, path, overwrite=True)
    assert load_file(path) and [file.name for file in tmp_path.iterdir()] == [path.name]
    with pytest.raises(MisuseError, match=r"end in \.safetensors"):
        interop.save_timm(model, tmp_path / "net.pth")


@pytest.mark.parametrize("cut", [4, 200, -8])
def test_a_file_that_is_cut_off_is_reported_and_the_model_left_alone(cut, written, target, tmp_path):
    path = tmp_path / "net.safetensors"
    path.write_bytes(written.read_bytes()[:cut])
    before = [np.array(value) for value in target.weights]
    with pytest.raises(MisuseError, match=r"Cannot read .*net\.safetensors: it is damaged"):
        interop.load(path, target, source="timm")
    for value, old in zip(target.weights, before, strict=True):
        np.testing.assert_array_equal(np.asarray(value), old)


@pytest.mark.parametrize(
    ("name", "message"),
    [("none.safetensors", "does not exist"), ("net.onnx", "Unknown file format '.onnx'"), ("bad.npz", "Cannot read")],
)
def test_files_that_are_none_are_reported(name, message, tmp_path):
    if name != "none.safetensors":
        (tmp_path / name).write_text("text")
    with pytest.raises(MisuseError, match=message):
        interop.load(tmp_path / name, source="timm")


def test_a_pickled_npz_is_refused(tmp_path):
    np.savez(tmp_path / "net.npz", weights=np.array([{"a": 1}], dtype=object))
    with pytest.raises(MisuseError, match="Cannot read"):
        interop.load(tmp_path / "net.npz", source="timm")


def test_what_stands_before_all_names_is_left_out(tmp_path):
    arrays = {"conv1.weight": np.ones((2, 3), "float32"), "fc.bias": np.zeros(3, "float32")}
    save_file({f"model.net.{name}": array for name, array in arrays.items()}, tmp_path / "net.safetensors")
    assert set(interop.read_tensors(tmp_path / "net.safetensors")) == set(arrays)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_half_precision_is_widened_and_reported(dtype, written, target, tmp_path):
    halves = {
        name: value.astype(dtype) if value.dtype == np.float32 else value for name, value in load_file(written).items()
    }
    save_file(halves, tmp_path / "half.safetensors")
    _, report = interop.load(tmp_path / "half.safetensors", target, source="timm", normalisation="theirs")
    assert any(f"the file contains {np.dtype(dtype).name}" in note for note in report.notes)
    np.testing.assert_array_equal(np.asarray(target.get_layer("stem_1_bn").gamma), halves["conv1.1.weight"])


def test_mxnets_file_is_read(tmp_path):
    content = base64.b64decode(PARAMS)
    (tmp_path / "net.params").write_bytes(content)
    arrays = interop.read_tensors(tmp_path / "net.params")
    assert {name: (array.dtype.name, array.tolist()) for name, array in arrays.items()} == {
        "conv.weight": ("float32", np.arange(6.0).reshape(2, 3, 1, 1).tolist()),
        "half": ("float16", [1.5, -2.0]),
        "count": ("int64", [7]),
    }
    for cut in (3, 20, 60, len(content) - 3):
        (tmp_path / "cut.params").write_bytes(content[:cut])
        with pytest.raises(MisuseError, match="truncated"):
            interop.read_tensors(tmp_path / "cut.params")
    (tmp_path / "other.params").write_bytes(b"x" * 100)
    with pytest.raises(MisuseError, match="does not start like"):
        interop.read_tensors(tmp_path / "other.params")


@pytest.fixture
def file(written, tmp_path):
    """A timm file without our metadata, of a small resnet18_d."""
    save_file(load_file(written), tmp_path / "net.safetensors")
    return tmp_path / "net.safetensors"


CONFIG = {
    "architecture": "resnet18d",
    "label_names": ["tench", "shark"],
    "pretrained_cfg": {
        "input_size": [3, 256, 256],
        "crop_pct": 0.95,
        "interpolation": "bicubic",
        "mean": [0.5, 0.5, 0.5],
        "std": [0.5, 0.5, 0.5],
    },
}


def test_timms_config_next_to_a_file_sets_the_preprocessing(file, target):
    assert interop.load(file, target, source="timm")[1].preprocessing == DEFAULTS["timm"] | {"takes": "ours"}
    file.with_name("config.json").write_text(json.dumps(CONFIG))
    report = interop.load(file, target, source="timm")[1]
    assert report.preprocessing["mean"] == (127.5, 127.5, 127.5) and report.preprocessing["image_size"] == 256
    assert report.class_names == ("tench", "shark")
    settings = interop.load(file, target, source="timm", preprocessing={"eval_crop": 1.0})[1].preprocessing
    assert (settings["eval_crop"], settings["image_size"]) == (1.0, 256)
    with pytest.raises(MisuseError, match="Unknown preprocessing setting 'crop'"):
        interop.load(file, target, source="timm", preprocessing={"crop": 1.0})


def test_timms_config_of_another_network_is_refused(file, target):
    """resnetaa18d has resnet18d's weights, and other pools."""
    file.with_name("config.json").write_text(json.dumps(CONFIG | {"architecture": "resnetaa18d"}))
    with pytest.raises(MisuseError, match=r"for timm's resnetaa18d.*contains resnet18_d"):
        interop.load(file, target, source="timm")


def test_a_config_of_another_form(file, target):
    config = file.with_name("config.json")
    config.write_text('{"model_type": "resnet"}')  # some other library's
    assert interop.load(file, target, source="timm")[1].preprocessing["image_size"] == 224
    with pytest.raises(MisuseError, match=r"Cannot read .*config\.json as a config\.json of timm"):
        interop.load(file, target, source="timm", config=config)
    config.write_text("{")
    with pytest.raises(MisuseError, match=r"Cannot read .*config\.json as a config\.json of timm"):
        interop.load(file, target, source="timm")
    with pytest.raises(MisuseError, match="only supported for the sources timm and keras_hub, not torchvision"):
        interop.load(file, target, source="torchvision", config=config)


@pytest.mark.parametrize("source", ["timm", "keras_applications"])
def test_the_stem_takes_our_images_in_place_of_theirs(source):
    """Without padding, so that there is no border."""
    draw, theirs = np.random.default_rng(0), DEFAULTS[source]
    kernel, pixels = draw.standard_normal((3, 3, 3, 4)), draw.uniform(0, 255, (1, 8, 8, 3))
    order = [2, 1, 0] if source == "keras_applications" else [0, 1, 2]
    given = (pixels[..., order] - theirs["mean"]) / theirs["std"]
    ours, mean = fold_normalisation(kernel, np.zeros(4), theirs)

    def convolve(images, kernel):
        windows = np.lib.stride_tricks.sliding_window_view(images, (3, 3), (1, 2))
        return np.einsum("bhwcij,ijcd->bhwd", windows, kernel)

    np.testing.assert_allclose(convolve((pixels - MEAN) / STD, ours) - mean, convolve(given, kernel), atol=1e-9)
    assert np.abs(mean).max() < 1e-9 if source == "keras_applications" else np.abs(mean).max() > 1e-3


def test_load_without_a_model_and_with_classes(file, target):
    with pytest.raises(MisuseError, match=r"stem_1_conv/kernel is \(3, 3, 3, 4\) instead of \(3, 3, 3, 32\)"):
        interop.load(file, source="timm")
    with pytest.raises(MisuseError, match=r"timm weights of resnet50_d: it contains resnet18_d with 5 classes"):
        interop.load(file, "resnet50_d", source="timm")
    with pytest.raises(MisuseError, match="Unknown model 'resnet50d'"):
        interop.load(file, "resnet50d", source="timm")
    with pytest.raises(MisuseError, match="num_classes=6, but the model has 5 classes"):
        interop.load(file, target, source="timm", num_classes=6)


def test_a_model_of_another_dtype_policy_keeps_float32_weights(file):
    model = models.create_model("resnet18_d", **SMALL, dtype="mixed_bfloat16")
    interop.load(file, model, source="timm", normalisation="theirs")
    assert {keras.backend.standardize_dtype(value.dtype) for value in model.weights} == {"float32"}
