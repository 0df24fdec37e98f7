"""Inception-V3 and MobileNet where the ResNets go: parts, starts, fused batch norm, backbones, exports."""

import keras
import numpy as np
import pytest

from keras_bot import models
from keras_bot.bag import active_tricks
from keras_bot.errors import MisuseError
from keras_bot.export.portable import export_file
from keras_bot.export.savedmodel import export_savedmodel, load_savedmodel
from keras_bot.model_files import read_network
from keras_bot.recipe import Recipe
from keras_bot.tasks.backbone import load_backbone
from keras_bot.tasks.classification import build_classifier
from keras_bot.training.finetune import freeze, layer_multipliers, load_weights_from, part_of
from keras_bot.training.fused_batch_norm import fuse_batch_norm

NARROW = {"inception_v3": 0.0625, "mobilenet_v1": 0.125}
FIRST = {  # the first layer with weights in each part
    "inception_v3": {1: "stage1_1_conv", 2: "stage2_block1_1x1_conv", 3: "stage3_block1_3x3_conv"},
    "mobilenet_v1": {1: "stage1_block1_depthwise_conv", 2: "stage2_block1_depthwise_conv"},
}


def network(name, **options):
    return models.create_model(name, num_classes=4, width=NARROW[name], **options)


@pytest.mark.parametrize("name", NARROW)
def test_the_parts_are_the_stages(name):
    model = network(name)
    parts = {layer.name: part_of(layer) for layer in model.layers if layer.weights}
    assert set(parts.values()) == {0, 1, 2, 3, 4, 5} and parts["predictions"] == 5
    assert all(parts[layer] == part for part, layer in FIRST[name].items())
    for level in (2, 3, 4, 5):  # a stage's end is computed by its part and those before it
        inside = keras.Model(model.input, model.get_layer(f"C{level}").output).layers
        assert {parts[layer.name] for layer in inside if layer.weights} == set(range(level))
    decay = layer_multipliers(model, 0.5)
    assert decay["predictions/kernel"] == 1 and min(decay.values()) == 0.5**5
    freeze(model, stages=3)
    assert {part_of(layer) for layer in model.layers if layer.trainable_weights} == {3, 4, 5}
    assert len(fuse_batch_norm(model)) == {"inception_v3": 94, "mobilenet_v1": 27}[name]


def test_unsupported_recipes_are_refused():
    with pytest.raises(MisuseError, match=r"--model=inception_v3 needs --image_size of at least 75, not 64"):
        build_classifier(Recipe(model="inception_v3", image_size=64, width=0.0625), 4)
    with pytest.raises(MisuseError, match="zero_gamma needs residual blocks, but mobilenet_v1 has none"):
        build_classifier(Recipe(model="mobilenet_v1", zero_gamma=True, width=0.125), 4)
    assert active_tricks(Recipe(model="mobilenet_v1")) == active_tricks(Recipe(model="inception_v3")) == []


def test_mobilenet_is_a_backbone_and_inception_is_refused():
    backbone = load_backbone("mobilenet_v1", width=0.125, output_stride=8)
    sizes = [end.shape[1:3] for end in backbone(np.zeros((1, 64, 96, 3), "float32")).values()]
    assert sizes == [(16, 24), (8, 12), (8, 12), (8, 12)]
    with pytest.raises(
        MisuseError, match=r"inception_v3 cannot be a backbone: .* do not cover the image to its border"
    ):
        load_backbone("inception_v3", width=0.0625)


def with_statistics(model):
    draw = np.random.default_rng(0)
    ranges = {"gamma": (0.5, 2), "beta": (-0.3, 0.3), "moving_mean": (-0.3, 0.3), "moving_variance": (0.5, 1)}
    for variable in model.weights:
        if variable.name in ranges:
            variable.assign(draw.uniform(*ranges[variable.name], variable.shape))
    return model


@pytest.mark.thorough
@pytest.mark.parametrize("name", NARROW)
def test_a_savedmodel_gives_the_network_back(name, tmp_path):
    """Inception-V3's dropout has a state of its own."""
    model = with_statistics(network(name))
    size = max(32, models.info(name).smallest_image_size)
    export_savedmodel(model, tmp_path / "net", image_size=size, transform="plain")
    images = np.random.default_rng(0).integers(0, 256, (2, size, size, 3), np.uint8)
    loaded, _ = load_savedmodel(tmp_path / "net")
    probabilities = loaded.serve(images).numpy()
    again, _ = read_network(tmp_path / "net")
    for ours, theirs in zip(model.weights, again.weights, strict=True):
        np.testing.assert_array_equal(np.asarray(ours), np.asarray(theirs))
    assert probabilities.std() > 1e-3 and set(loaded.features(images.astype("float32"))) == {"C2", "C3", "C4", "C5"}
    other = network(name)
    load_weights_from(other, str(tmp_path / "net"))
    for layer in other.layers:
        if part_of(layer) < 5:
            for ours, theirs in zip(layer.get_weights(), model.get_layer(layer.name).get_weights(), strict=True):
                np.testing.assert_array_equal(ours, theirs)


@pytest.mark.thorough
@pytest.mark.parametrize("form", ["keras", "onnx", "tflite"])
@pytest.mark.parametrize("name", NARROW)
def test_files_give_what_the_network_gives(name, form, tmp_path):
    model = with_statistics(network(name))
    size = max(64, models.info(name).smallest_image_size)
    worst = export_file(model, tmp_path / f"net.{form}", image_size=size)
    images = np.random.default_rng(0).standard_normal((2, size, size, 3), dtype="float32")
    assert np.asarray(model(images, training=False)).std() > 1e-2  # so that the comparison means something
    assert worst < 2e-5
    print(f"\n{name}, {form}: {worst:.1e}")
