"""Files of keras.applications' and keras-hub's networks, with random weights: ours give the same outputs."""

import json

import keras
import numpy as np
import pytest
from PIL import Image

from keras_bot import interop, models
from keras_bot.data.augment import color
from keras_bot.errors import MisuseError
from keras_bot.interop.preprocessing import MEAN, STD


def _randomise(model, **changes):
    draw = np.random.default_rng(0)
    ranges = {"gamma": (0.1, 0.5), "beta": (-0.3, 0.3), "moving_mean": (-0.2, 0.2), "moving_variance": (0.1, 0.5)}
    ranges |= changes
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
    """keras.applications' with its head as logits, what it gives for `_pixels()`, and where it is saved."""
    options = {"weights": None, "classes": 5, "input_shape": (64, 64, 3), "classifier_activation": None}
    net = keras.applications.ResNet50(**options)
    _randomise(net)
    theirs = keras.Model(net.input, [net.output] + [net.get_layer(f"conv{i}_block{n}_out").output for i, n in ENDS])
    caffe = keras.applications.resnet.preprocess_input(_pixels())
    return net, theirs(caffe, training=False), tmp_path_factory.mktemp("applications")


@pytest.mark.thorough
@pytest.mark.parametrize("name", ["net.h5", "net.weights.h5", "net.keras"])
def test_resnet50_of_keras_applications(resnet50, name):
    net, (logits, *ends), folder = resnet50
    (net.save_weights if name.endswith("weights.h5") else net.save)(folder / name)
    model, report = interop.load(folder / name, source="keras_applications")
    assert (report.model, report.num_classes, report.head) == ("resnet50_a", 5, "kept")
    assert len(report.uses) == len(net.variables) and not report.ignored
    assert report.preprocessing["channels"] == "BGR" and any("exactly" in note for note in report.notes)
    normalised = ((_pixels() - MEAN) / STD).astype("float32")
    _agree(model(normalised, training=False), logits)
    ours = models.features(model)(normalised, training=False)
    for level, end in zip(("C2", "C3", "C4", "C5"), ends, strict=True):
        _agree(ours[level], end)


ENDS = ((2, 3), (3, 4), (4, 6), (5, 3))  # stage and its last block


@pytest.mark.thorough
def test_a_batch_in_training_gives_the_same_since_only_statistics_hold_the_bias(resnet50):
    net, _, folder = resnet50
    net.save_weights(folder / "trained.weights.h5")
    model, _ = interop.load(folder / "trained.weights.h5", source="keras_applications")
    pixels = _pixels()
    caffe = keras.applications.resnet.preprocess_input(pixels.copy())
    theirs = keras.Model(net.input, net.get_layer("conv2_block3_out").output)(caffe, training=True)
    end = keras.Model(model.input, model.get_layer("C2").output)
    ours = np.asarray(end(((pixels - MEAN) / STD).astype("float32"), training=True))
    np.testing.assert_allclose(ours, np.asarray(theirs), rtol=0, atol=1e-3)


def _mobilenet(**options):
    return keras.applications.MobileNet(weights=None, classes=5, classifier_activation=None, **options)


@pytest.mark.parametrize("name", ["net.h5", pytest.param("net.weights.h5", marks=pytest.mark.thorough)])
def test_mobilenet_of_keras_applications(name, tmp_path):
    net = _mobilenet(input_shape=(64, 64, 3), alpha=0.25)
    _randomise(net, gamma=(0.5, 2), beta=(-1, 4))
    (net.save_weights if name.endswith("weights.h5") else net.save)(tmp_path / name)
    model = models.create_model("mobilenet_v1_tf", num_classes=5, width=0.25)
    _, report = interop.load(tmp_path / name, model, source="keras_applications", normalisation="theirs")
    assert (report.model, report.head, report.ignored) == ("mobilenet_v1_tf", "kept", ())
    assert len(report.uses) == len(net.weights) and any("multiples of 32" in note for note in report.notes)
    ends = [net.get_layer(f"conv_pw_{block}_relu").output for block in (3, 5, 11, 13)]
    images = _pixels() / 127.5 - 1
    logits, *ends = keras.Model(net.input, [net.output, *ends])(images, training=False)
    assert all(np.asarray(end).max() == 6 for end in ends)
    _agree(model(images, training=False), logits)
    ours = models.features(model)(images, training=False)
    for level, end in zip(("C2", "C3", "C4", "C5"), ends, strict=True):
        _agree(ours[level], end)
    with pytest.raises(MisuseError, match=r"weights of mobilenet_v1: it contains mobilenet_v1_tf with 5 classes"):
        interop.load(tmp_path / name, "mobilenet_v1", source="keras_applications")


@pytest.mark.parametrize("form", ["h5", "weights.h5"])
def test_a_batch_norm_without_gamma_is_read(form, tmp_path):
    norm = keras.layers.BatchNormalization(scale=False, name="norm")
    net = keras.Sequential([keras.Input((2,)), norm])
    net.set_weights([np.full(2, value, "float32") for value in (1, 2, 3)])
    (net.save_weights if form == "weights.h5" else net.save)(tmp_path / f"net.{form}")
    arrays = {name: array.tolist() for name, array in interop.read_tensors(tmp_path / f"net.{form}").items()}
    assert arrays == {"norm/beta": [1, 1], "norm/moving_mean": [2, 2], "norm/moving_variance": [3, 3]}


def _inception(**options):
    return keras.applications.InceptionV3(weights=None, classes=5, classifier_activation=None, **options)


@pytest.mark.thorough
def test_inception_of_keras_applications(tmp_path):
    """By number, which goes on through a session, and without gammas."""
    keras.layers.Conv2D(1, 1), keras.layers.BatchNormalization()  # so that the numbers don't begin at 0
    net = _inception(input_shape=(75, 75, 3))
    _randomise(net, moving_variance=(1, 4))  # with less, what it gives grows from block to block
    net.save_weights(tmp_path / "net.weights.h5")
    model, report = interop.load(tmp_path / "net.weights.h5", source="keras_applications")
    assert (report.model, report.head, report.ignored) == ("inception_v3_tf", "kept", ())
    assert len(report.uses) == len(net.weights) and any("no gamma" in note for note in report.notes)
    assert report.preprocessing["image_size"] == 299 and any("exactly" in note for note in report.notes)
    pixels = _pixels(75, 75)
    ends = [net.get_layer(f"mixed{block}").output for block in (2, 7, 10)]
    logits, *ends = keras.Model(net.input, [net.output, *ends])(pixels / 127.5 - 1, training=False)
    normalised = ((pixels - MEAN) / STD).astype("float32")
    _agree(model(normalised, training=False), logits)
    ours = models.features(model)(normalised, training=False)
    for level, end in zip(("C3", "C4", "C5"), ends, strict=True):
        _agree(ours[level], end)


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("build", "size", "form"), [(_inception, 299, "h5"), (_inception, 299, "keras"), (_mobilenet, 224, "keras")]
)
def test_photos(build, size, form, test_data, tmp_path):
    """Eight, with random batch norms and the statistics of photos: KERAS_BOT_TEST_DATA=… pytest -s -m thorough."""
    files = sorted(test_data.glob("imagenet_samples/n*/*.JP*G"))[::20][:8]
    photos = [np.asarray(Image.open(file).convert("RGB").resize((size, size))) for file in files]
    images = np.stack(photos).astype("float32") / 127.5 - 1
    keras.utils.set_random_seed(0)
    net = build(input_shape=(size, size, 3))
    _randomise(net, gamma=(0.2, 0.8))
    for layer in net.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0
    net(images, training=True)
    net.save(tmp_path / f"net.{form}")
    model, _ = interop.load(tmp_path / f"net.{form}", source="keras_applications", normalisation="theirs")
    theirs, ours = (np.asarray(each(images, training=False)) for each in (net, model))
    print(f"\n{model.name}, {form}: {np.abs(ours - theirs).max():.1e}, up to {np.abs(theirs).max():.2g}")
    assert len(photos) == 8 and np.abs(ours - theirs).max() < 1e-4 < theirs.std()


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


@pytest.mark.thorough
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
    config = {"config": {"image_converter": {"config": converter}}}
    (tmp_path / "preprocessor.json").write_text(json.dumps(config))
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
    with pytest.raises(MisuseError, match=r"contains resnet18_b without a head. Pass num_classes to add a new head"):
        interop.load(tmp_path / "backbone.keras", source="keras_hub")
    model, report = interop.load(tmp_path / "backbone.keras", source="keras_hub", num_classes=3)
    assert (report.head, model.output_shape) == ("new", (None, 3))


def test_keras_files_that_are_none_are_reported(tmp_path):
    layer = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)])
    layer.save_weights(tmp_path / "dense.weights.h5")
    with pytest.raises(MisuseError, match="no supported network of keras_hub, but dense"):
        interop.load(tmp_path / "dense.weights.h5", source="keras_hub")
    content = (tmp_path / "dense.weights.h5").read_bytes()
    (tmp_path / "cut.h5").write_bytes(content[: len(content) // 2])
    with pytest.raises(MisuseError, match=r"Cannot read .*cut.h5: it is damaged, or not a .h5 weight file"):
        interop.load(tmp_path / "cut.h5", source="keras_hub")
    (tmp_path / "empty").mkdir()
    with pytest.raises(MisuseError, match="is not a keras-hub preset"):
        interop.load(tmp_path / "empty", source="keras_hub")
