"""Exported files run without keras_bot, give the network's outputs, contain a description, and are never partial."""

import json
import sys
import zipfile

import keras
import numpy as np
import pytest
from processes import expect_misuse, run_command, run_python

from keras_bot import models
from keras_bot.cli.main import main
from keras_bot.errors import MisuseError, RunError
from keras_bot.export.inspect import inspect
from keras_bot.export.portable import export_file, write_file
from keras_bot.model_files import read_network
from keras_bot.tasks.backbone import load_backbone
from keras_bot.tasks.segmentation.fcn import fcn
from keras_bot.training.finetune import load_weights_from

MEAN, STD = np.float32((123.68, 116.779, 103.939)), np.float32((58.393, 57.12, 57.375))
PACKAGES = {".keras": (), ".onnx": ("onnx", "tf2onnx", "onnxruntime"), ".tflite": ("ai_edge_litert",)}
RUNS = {  # programs of a user who has the runtime alone
    ".keras": ("keras_bot", "probabilities = keras.saving.load_model(path).predict(images, verbose=0)"),
    ".onnx": (
        "keras_bot keras tensorflow",
        "import onnxruntime\nprobabilities = onnxruntime.InferenceSession(path).run(None, {'images': images})[0]",
    ),
    ".tflite": (
        "keras_bot keras tensorflow",
        """
from ai_edge_litert.interpreter import Interpreter
interpreter = Interpreter(path)
run = interpreter.get_signature_runner()
probabilities = np.concatenate([run(images=image[None])["probabilities"] for image in images])
""",
    ),
}


def need(suffix):
    for package in PACKAGES[suffix]:
        pytest.importorskip(package, reason=f"{package} is not installed: pip install 'keras_bot[onnx,litert]'")


@pytest.fixture(scope="module")
def network():
    keras.utils.set_random_seed(0)
    model = models.create_model("resnet10_d", num_classes=4, width=0.1)
    draw = np.random.default_rng(1)
    model.set_weights([weight * draw.uniform(0.8, 1.2, weight.shape) for weight in model.get_weights()])
    return model


@pytest.fixture(scope="module", params=PACKAGES)
def exported(network, request, tmp_path_factory):
    need(request.param)
    path = tmp_path_factory.mktemp("portable") / f"net{request.param}"
    worst = export_file(network, path, image_size=40, description={"class_names": list("abcd")})
    assert 0 <= worst <= 1e-5
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    return path


def images_of(*shape):
    return np.random.default_rng(2).uniform(0, 255, (*shape, 3)).astype("float32")


def softmax(logits):
    exponents = np.exp(logits - logits.max(-1, keepdims=True))
    return exponents / exponents.sum(-1, keepdims=True)


@pytest.mark.thorough
def test_its_runtime_alone_gives_the_networks_probabilities(network, exported):
    folder, suffix = exported.parent, exported.suffix
    images = images_of(3, 40, 40)
    np.save(folder / "images.npy", images)
    absent, program = RUNS[suffix]
    code = f"""
import sys
for name in {absent.split()!r}:
    sys.modules[name] = None  # importing it would fail
import numpy as np
if "keras" not in {absent.split()!r}:
    import keras
path, images = {str(exported)!r}, np.load("images.npy")
{program}
np.save("probabilities.npy", probabilities)
"""
    run_python(code, cwd=folder)
    expected = softmax(network((images - MEAN) / STD, training=False).numpy())
    np.testing.assert_allclose(np.load(folder / "probabilities.npy"), expected, atol=1e-5)


def test_it_describes_classes_preprocessing_and_shapes(exported):
    if exported.suffix == ".onnx":
        import onnx

        description = {prop.key: json.loads(prop.value) for prop in onnx.load(exported).metadata_props}
    else:
        description = json.loads(zipfile.ZipFile(exported).read("model.json"))
    assert description["class_names"] == list("abcd")
    assert description["preprocessing"]["resize"].startswith("the shorter edge to 46, ")
    shown = inspect(exported)
    shape = {".keras": "?, ?, ?", ".onnx": "batch, height, width", ".tflite": "?, 40, 40"}[exported.suffix]
    assert f"images float32 ({shape}, 3)" in shown and "  probabilities float32 (" in shown
    assert "4: a, b, c, d" in shown and "image_size=40" in shown and "MB on disk" in shown


@pytest.mark.thorough
def test_an_exported_keras_file_is_a_network_to_start_from(network, tmp_path):
    path = tmp_path / "net.keras"
    export_file(network, path, image_size=40, description={"class_names": list("abcd")})
    found, known = read_network(path)
    assert known["class_names"] == list("abcd") and found.name == "resnet10_d"
    images = images_of(2, 32, 40) / 255
    np.testing.assert_array_equal(found(images), network(images))
    expected = models.features(network)(images)
    for level, end in load_backbone(path)(images).items():
        np.testing.assert_array_equal(end, expected[level])
    other = models.create_model("resnet10_d", num_classes=4, width=0.1)
    load_weights_from(other, str(path), tuple("abcd"))
    np.testing.assert_array_equal(other(images), network(images))


def test_a_model_that_normalises_otherwise_is_left_as_it_is(network, tmp_path):
    images = keras.Input((32, 32, 3))
    outputs = keras.layers.Softmax()(network(keras.layers.Rescaling(1 / 255)(images)))
    keras.Model(images, outputs, name="mine").save(tmp_path / "mine.keras")
    assert read_network(tmp_path / "mine.keras")[0].name == "mine"


@pytest.mark.parametrize(
    "suffix", [pytest.param(suffix, marks=[pytest.mark.thorough] * (suffix == ".tflite")) for suffix in PACKAGES]
)
def test_a_file_that_differs_from_its_network_isnt_kept(suffix, tmp_path):
    need(suffix)
    images = keras.Input((None, None, 3), name="images")
    model = keras.Model(images, keras.layers.GlobalAveragePooling2D()(images))
    path = tmp_path / f"net{suffix}"
    sizes = [(1, 8, 8), (2, 8, 8)]
    assert write_file(model, path, model, {}, sizes=sizes) <= 1e-5
    before = path.read_bytes()
    with pytest.raises(MisuseError, match="already exists"):
        write_file(model, path, model, {}, sizes=sizes)
    for factor in (1.001, np.nan):
        with pytest.raises(RunError, match="outputs differ from the network's"):
            write_file(model, path, lambda x: model(x) * factor, {}, sizes=sizes, overwrite=True)  # noqa: B023
    with pytest.raises(RunError, match="Cannot write"):
        write_file(model, path, lambda x: model(x)[:, :2], {}, sizes=sizes, overwrite=True)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]
    write_file(model, path, model, {"class_names": ["other"]}, sizes=sizes, overwrite=True)
    assert "1: other" in inspect(path)


@pytest.mark.parametrize("suffix", [".onnx", ".tflite"])
def test_a_missing_package_is_named_with_its_extra(suffix, network, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, PACKAGES[suffix][0], None)
    extra = {".onnx": "onnx", ".tflite": "litert"}[suffix]
    with pytest.raises(MisuseError, match=rf"pip install 'keras_bot\[{extra}\]'"):
        export_file(network, tmp_path / f"net{suffix}", image_size=32)


def test_another_suffix_is_refused(network, tmp_path):
    with pytest.raises(MisuseError, match=r"Unknown suffix '\.onx'\. Did you mean \.onnx"):
        export_file(network, tmp_path / "net.onx", image_size=32)


@pytest.mark.thorough
@pytest.mark.parametrize("suffix", PACKAGES)
@pytest.mark.parametrize("stride", [8, 32])
def test_a_segmenter_gives_every_pixels_probabilities(suffix, stride, tmp_path):
    need(suffix)
    network = fcn(load_backbone("resnet10_d", width=0.1, output_stride=stride), 3, channels=8)
    network = keras.Model(network.input, network.output["logits"])
    path = tmp_path / f"net{suffix}"
    assert export_file(network, path, image_size=48, transform=None) <= 1e-5
    shown = inspect(path)
    shape = {".keras": "?, ?, ?", ".onnx": "batch, height, width", ".tflite": "?, 48, 48"}[suffix]
    assert f"probabilities float32 ({shape}, 3)" in shown and "resize=none" in shown


@pytest.mark.parametrize(("form", "suffix"), [("keras", ".keras"), ("onnx", ".onnx"), ("litert", ".tflite")])
def test_the_command_writes_and_inspects_it(form, suffix, run_dir, tmp_path):
    need(suffix)
    command = ["export", f"--run_dir={run_dir}", "--name=tiny.v1", f"--output_dir={tmp_path}", f"--format={form}"]
    line = run_command(*command).result
    path = tmp_path / f"tiny.v1{suffix}"
    assert line["format"] == form and line["path"] == str(path) and path.is_file()
    assert line["worst_difference"] <= 1e-5 and "top1" in line
    shown = run_command("inspect", path).out
    assert "resize=to 16x16, bilinear" in shown and "model=cifar_resnet8_d" in shown
    assert "already exists" in expect_misuse(*command)
    assert "is not a SavedModel" in expect_misuse("predict", f"--savedmodel={path}", "photo.jpg")


def test_the_exported_file_is_evaluated_and_trained_on_from(run_dir, tmp_path):
    export = ["export", f"--run_dir={run_dir}", f"--output_dir={tmp_path}", "--format=keras", "--name=net"]
    top1 = run_command(*export).result["top1"]
    found = run_command("evaluate", f"--run_dir={run_dir}", f"--model_file={tmp_path / 'net.keras'}").result
    assert found["top1"] == pytest.approx(top1, abs=1e-6)


def test_an_unknown_format_is_refused(run_dir):
    assert "Unknown format 'tflite'" in expect_misuse("export", f"--run_dir={run_dir}", "--format=tflite")


def test_damaged_files_are_reported(tmp_path, capsys):
    for suffix, packages in PACKAGES.items():
        if all(__import__("importlib.util").util.find_spec(package) for package in packages):
            path = tmp_path / f"net{suffix}"
            path.write_bytes(b"no network")
            assert main(["inspect", str(path)]) == 1
            assert f"net{suffix} as a {suffix} file" in capsys.readouterr().err.replace(" an ", " a ")


@pytest.mark.thorough
def test_a_detector_is_a_keras_file_and_nothing_else(scenes, tmp_path, capsys):
    from keras_bot.tasks.detection.retinanet import RetinaNet

    data = [f"--dataset={scenes['detection']}", "--image_size=64", "--batch_size=4", "--epochs=1"]
    network = ["--task=detection", "--model=resnet10_d", "--width=0.1", "--head_channels=8", "--head=retinanet"]
    run = tmp_path / "run"
    assert main(["train", *data, *network, "--optimizer=adamw", "--learning_rate=0.001", f"--run_dir={run}"]) == 0
    export = ["export", f"--run_dir={run}", f"--output_dir={tmp_path}", "--name=boxes"]
    assert main([*export, "--format=onnx"]) == 2
    assert "--format=onnx does not support detectors" in capsys.readouterr().err
    assert main([*export, "--format=keras"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["worst_difference"] <= 1e-5
    assert isinstance(keras.saving.load_model(tmp_path / "boxes.keras", compile=False), RetinaNet)
    assert main(["inspect", str(tmp_path / "boxes.keras")]) == 0
    assert "2: blue, red" in capsys.readouterr().out
