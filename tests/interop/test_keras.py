"""keras.applications' and keras-hub's networks beside ours, with random weights and statistics, through their files."""

import json

import keras
import numpy as np
import pytest

from keras_bot import interop, models
from keras_bot.data import color
from keras_bot.errors import MisuseError
from keras_bot.interop.preprocessing import MEAN, STD


def _randomise(model):
    draw = np.random.default_rng(0)
    ranges = {"gamma": (0.1, 0.5), "beta": (-0.3, 0.3), "moving_mean": (-0.2, 0.2), "moving_variance": (0.1, 0.5)}
    for variable in model.variables:
        if variable.name in ranges or variable.name == "bias":
            variable.assign(draw.uniform(*ranges.get(variable.name, (-0.3, 0.3)), variable.shape))


def _pixels(height=64, width=64):
    return np.random.default_rng(1).uniform(0, 255, (2, height, width, 3)).astype("float32")


def _agree(ours, theirs):
    theirs = np.asarray(theirs)
    assert ours.shape == theirs.shape and theirs.std() > 1e-3
    np.testing.assert_allclose(np.asarray(ours), theirs, rtol=0, atol=1e-4)


def test_the_mean_and_std_are_the_pipelines():
    assert (MEAN, STD) == (color.MEAN, color.STD)


@pytest.fixture(scope="module")
def resnet50(tmp_path_factory):
    """keras.applications' with its head as logits, and where it is saved."""
    options = {"weights": None, "classes": 5, "input_shape": (64, 64, 3), "classifier_activation": None}
    net = keras.applications.ResNet50(**options)
    _randomise(net)
    return net, tmp_path_factory.mktemp("applications")


@pytest.mark.parametrize("name", ["net.h5", "net.weights.h5", "net.keras"])
def test_resnet50_of_keras_applications(resnet50, name):
    net, folder = resnet50
    (net.save_weights if name.endswith("weights.h5") else net.save)(folder / name)
    model, report = interop.load(folder / name, source="keras_applications")
    assert (report.model, report.num_classes, report.head) == ("resnet50_a", 5, "kept")
    assert len(report.uses) == len(net.variables) and not report.ignored
    assert report.preprocessing["channels"] == "BGR" and any("exactly" in note for note in report.notes)
    pixels = _pixels()
    caffe = keras.applications.resnet.preprocess_input(pixels.copy())
    theirs = keras.Model(net.input, [net.output] + [net.get_layer(f"conv{i}_block{n}_out").output for i, n in ENDS])
    logits, *ends = theirs(caffe, training=False)
    normalised = ((pixels - MEAN) / STD).astype("float32")
    _agree(model(normalised, training=False), logits)
    ours = models.features(model)(normalised, training=False)
    for level, end in zip(("C2", "C3", "C4", "C5"), ends, strict=True):
        _agree(ours[level], end)


ENDS = ((2, 3), (3, 4), (4, 6), (5, 3))  # stage and its last block


def test_a_batch_in_training_gives_the_same_since_only_statistics_hold_the_bias(resnet50):
    net, folder = resnet50
    net.save_weights(folder / "trained.weights.h5")
    model, _ = interop.load(folder / "trained.weights.h5", source="keras_applications")
    pixels = _pixels()
    caffe = keras.applications.resnet.preprocess_input(pixels.copy())
    theirs = keras.Model(net.input, net.get_layer("conv2_block3_out").output)(caffe, training=True)
    end = keras.Model(model.input, model.get_layer("C2").output)
    ours = np.asarray(end(((pixels - MEAN) / STD).astype("float32"), training=True))
    np.testing.assert_allclose(ours, np.asarray(theirs), rtol=0, atol=1e-3)


HUB = {
    "resnet18_b": ([64], [7], "basic_block"),
    "resnet26_b": ([64], [7], "bottleneck_block"),
    "resnet18_vd": ([32, 32, 64], [3, 3, 3], "basic_block_vd"),
    "resnet26_d": ([32, 32, 64], [3, 3, 3], "bottleneck_block_vd"),
}


def _hub(name):
    hub = pytest.importorskip("keras_hub")
    filters, kernels, block = HUB[name]
    backbone = hub.models.ResNetBackbone(
        input_conv_filters=filters,
        input_conv_kernel_sizes=kernels,
        stackwise_num_filters=[64, 128, 256, 512],
        stackwise_num_blocks=[2, 2, 2, 2],
        stackwise_num_strides=[1, 2, 2, 2],
        block_type=block,
    )
    net = hub.models.ResNetImageClassifier(backbone=backbone, num_classes=5)
    _randomise(net)
    return net


@pytest.mark.parametrize("name", HUB)
def test_networks_of_keras_hub(name, tmp_path):
    net = _hub(name)
    net.save_weights(tmp_path / "net.weights.h5")
    model, report = interop.load(tmp_path / "net.weights.h5", source="keras_hub", normalisation="theirs")
    assert report.model == model.name == name and len(report.uses) == len(net.weights)
    for height, width in ((64, 64), (75, 49)):
        images = (_pixels(height, width) - 120) / 60
        _agree(model(images, training=False), net(images, training=False))
        ours = models.features(model)(images, training=False)
        theirs = keras.Model(net.backbone.input, net.backbone.pyramid_outputs)(images, training=False)
        for level in (2, 3, 4, 5):
            _agree(ours[f"C{level}"], theirs[f"P{level}"])


def test_a_preset_of_keras_hub_and_its_preprocessing(tmp_path):
    net = _hub("resnet18_vd")
    net.save_to_preset(tmp_path)
    scale, offset = [1 / 58.0, 1 / 57.0, 1 / 56.0], [-123 / 58.0, -117 / 57.0, -104 / 56.0]
    converter = {"image_size": [192, 192], "interpolation": "bicubic", "scale": scale, "offset": offset}
    told = {"config": {"image_converter": {"config": converter}}}
    (tmp_path / "preprocessor.json").write_text(json.dumps(told))
    model, report = interop.load(tmp_path, source="keras_hub")
    assert report.head == "kept" and len(report.uses) == len(net.weights)
    assert report.preprocessing["image_size"] == 192
    np.testing.assert_allclose(report.preprocessing["mean"], (123, 117, 104))
    pixels = _pixels(96, 96)
    theirs = np.asarray(net(pixels * np.float32(scale) + np.float32(offset), training=False))
    ours = np.asarray(model(((pixels - MEAN) / STD).astype("float32"), training=False))
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=0.02 * np.abs(theirs).max())  # all but the border is exact


def test_a_backbone_has_no_head(tmp_path):
    net = _hub("resnet18_b")
    net.backbone.save(tmp_path / "backbone.keras")
    with pytest.raises(MisuseError, match=r"Expected num_classes for a new head.*resnet18_b without a head"):
        interop.load(tmp_path / "backbone.keras", source="keras_hub")
    model, report = interop.load(tmp_path / "backbone.keras", source="keras_hub", num_classes=3)
    assert (report.head, model.output_shape) == ("new", (None, 3))


def test_keras_files_that_are_none_are_told(tmp_path):
    layer = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)])
    layer.save_weights(tmp_path / "dense.weights.h5")
    with pytest.raises(MisuseError, match="no ResNet of keras_hub's: it has dense"):
        interop.load(tmp_path / "dense.weights.h5", source="keras_hub")
    content = (tmp_path / "dense.weights.h5").read_bytes()
    (tmp_path / "cut.h5").write_bytes(content[: len(content) // 2])
    with pytest.raises(MisuseError, match=r"Can't read .*cut.h5, which is damaged or no .h5 file"):
        interop.load(tmp_path / "cut.h5", source="keras_hub")
    (tmp_path / "empty").mkdir()
    with pytest.raises(MisuseError, match="Expected a keras-hub preset"):
        interop.load(tmp_path / "empty", source="keras_hub")
