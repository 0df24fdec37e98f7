"""Names and shapes of other libraries' networks, as they wrote them: where each tensor goes.

shapes.json was written by timm 1.0.31, torchvision 0.29.1 and GluonCV 0.10.5, where they are installed.
"""

import functools
import json
import pathlib

import numpy as np
import pytest

from keras_bot import interop, models
from keras_bot.errors import MisuseError
from keras_bot.interop import architecture, inception_names
from keras_bot.interop.matching import Content, recognise
from keras_bot.interop.preprocessing import DEFAULTS
from keras_bot.models.resnet import DEPTHS

pytestmark = pytest.mark.core

SHAPES = json.loads(pathlib.Path(__file__).with_name("shapes.json").read_text())
NETWORKS = {  # ours, and where some of its layers are, found by reading their definitions
    "timm inception_v3": (
        "inception_v3",
        {"Conv2d_3b_1x1.conv": "stage1_1_conv", "Mixed_6c.branch7x7dbl_4.bn": "stage3_block3_7x7dbl_4_bn"},
    ),
    "torchvision inception_v3": (
        "inception_v3",
        {"Mixed_5b.branch_pool.conv": "stage2_block1_pool_conv", "Mixed_7c.branch3x3_2b.bn": "stage4_block3_3x3_2b_bn"},
    ),
    "gluoncv inceptionv3": (
        "inception_v3",
        {"features.5.1": "stage1_2_bn", "features.10.1.2.0": "stage3_block1_3x3dbl_3_conv"}
        | {"features.17.2.1.1.0.0": "stage4_block3_3x3dbl_3b_conv", "features.7.3.1.0": "stage2_block1_pool_conv"},
    ),
    "timm mobilenetv1_100": (
        "mobilenet_v1_relu6",
        {"blocks.0.0.conv_pw": "stem_block_pointwise_conv", "blocks.3.5.bn1": "stage3_block6_depthwise_bn"},
    ),
    "gluoncv mobilenet1.0": (
        "mobilenet_v1",
        {"features.4": "stem_block_depthwise_bn", "features.78": "stage4_block2_pointwise_conv"},
    ),
}
OURS = {
    "timm resnet18d": "resnet18_d",
    "timm resnet50c": "resnet50_c",
    "timm resnet50d": "resnet50_d",
    "torchvision resnet18": "resnet18_b",
    "torchvision resnet50": "resnet50_b",
    "gluoncv resnet18_v1b": "resnet18_b",
    "gluoncv resnet50_v1": "resnet50_a",
}


@functools.cache
def _random(net):
    draw = np.random.default_rng(0)
    shapes = {name: [int(side) for side in shape.split("x") if side] for name, shape in SHAPES[net].items()}
    return {name: draw.random(shape, "float32") for name, shape in shapes.items()}


@functools.cache
def _resnet18_d():
    return models.create_model("resnet18_d", num_classes=1000)


def _weights(model):
    return {(layer.name, v.name): np.array(v) for layer in model.layers for v in layer.weights}


def test_every_network_of_the_facts_is_tested():
    assert {*OURS, *NETWORKS} == set(SHAPES)


@pytest.mark.parametrize("net", OURS)
def test_a_network_is_recognised(net):
    source, _ = net.split()
    classes = 11 if source == "gluoncv" else 1000
    assert recognise(_random(net), source) == Content(OURS[net], classes, f"{OURS[net]} with {classes} classes")


LARGE = ("timm resnet50c", "torchvision resnet50", "gluoncv resnet50_v1")


@pytest.mark.parametrize("net", [pytest.param(net, marks=[pytest.mark.thorough] * (net in LARGE)) for net in OURS])
def test_every_tensor_is_used_once_and_every_weight_filled(net):
    source, tensors = net.split()[0], _random(net)
    model = models.create_model(OURS[net], num_classes=11 if source == "gluoncv" else 1000)
    report = interop.assign_tensors(model, tensors, source, normalisation="theirs")
    handled = [use.tensor for use in report.uses] + list(report.ignored)
    assert sorted(handled) == sorted(tensors)
    assert all(name.endswith("num_batches_tracked") for name in report.ignored)
    ours, biases = _weights(model), 0
    for use in report.uses:
        theirs = tensors[use.tensor]
        if use.weight == "bias" and use.layer != "predictions":
            biases += 1
            mean = (use.layer.replace("_conv", "_bn"), "moving_mean")
            ours[mean] = ours[mean] + theirs
    for use in report.uses:
        theirs = tensors[use.tensor]
        if use.weight == "bias" and use.layer != "predictions":
            continue
        expected = theirs.transpose(2, 3, 1, 0) if theirs.ndim == 4 else theirs.T
        np.testing.assert_allclose(ours.pop((use.layer, use.weight)), expected, rtol=0, atol=1e-6)
    assert not ours
    assert biases == (32 if net == "gluoncv resnet50_v1" else 0)
    assert report.head == "kept" and len(report.table(verbose=True).splitlines()) > len(report.uses)


@functools.cache
def _network(name):
    return models.create_model(name, num_classes=1000)


@pytest.mark.thorough
@pytest.mark.parametrize("net", NETWORKS)
def test_every_tensor_of_inception_and_mobilenet_has_its_place(net):
    source, (name, known) = net.split()[0], NETWORKS[net]
    numbered = {
        key: np.broadcast_to(np.float32(number), [int(side) for side in shape.split("x") if side])
        for number, (key, shape) in enumerate(SHAPES[net].items())
    }
    classes = 11 if source == "gluoncv" else 1000
    assert recognise(numbered, source) == Content(name, classes, f"{name} with {classes} classes")
    model = _network(name)
    report = interop.assign_tensors(model, numbered, source, normalisation="theirs")
    assert report.model == name and report.head == ("new" if classes == 11 else "kept")
    used = [use.tensor for use in report.uses]
    left = set(numbered) - set(used)
    assert len(used) == len(set(used)) and set(report.ignored) <= left
    parts = ("num_batches_tracked", *(["output."] if classes == 11 else []))
    assert all(key.startswith("AuxLogits") or any(part in key for part in parts) for key in left)
    for use in report.uses:
        variable = getattr(model.get_layer(use.layer), use.weight)
        assert np.asarray(variable).flat[0] == numbered[use.tensor].flat[0], use
    assert len(used) == sum(len(layer.weights) for layer in model.layers) - (2 if classes == 11 else 0)
    found = {use.tensor.rpartition(".")[0]: use.layer for use in report.uses}
    assert {theirs: found[theirs] for theirs in known} == known


@pytest.mark.thorough
def test_the_auxiliary_head_is_reported():
    net = {key: np.zeros([int(side) for side in shape.split("x") if side]) for key, shape in SHAPES[AUXILIARY].items()}
    notes = interop.assign_tensors(_network("inception_v3"), net, "torchvision").notes
    ignored = "the auxiliary head, which is only for training, was ignored"
    assert any(ignored in note and "AuxLogits.conv0.conv.weight" in note for note in notes)
    assert any("transform_input" in note for note in notes)
    with pytest.raises(MisuseError, match=r"no weight for Aux\.weight"):
        interop.assign_tensors(_network("inception_v3"), net | {"Aux.weight": np.zeros(3)}, "torchvision")


AUXILIARY = "torchvision inception_v3"


@pytest.mark.parametrize("first", [0, 1, 94])
def test_kerass_numbers_go_on_through_a_session(first):
    names = [
        f"{kind}_{n}" if n else kind for n in range(first, first + 94) for kind in ("conv2d", "batch_normalization")
    ]
    known = inception_names.keras_layers(sorted([*names, "predictions"]))
    assert len(known) == 189 and len(set(known.values())) == 189
    places = (0, "stem_1_conv"), (4, "stage1_2_conv"), (26, "stage3_block1_3x3_conv"), (93, "stage4_block3_pool_conv")
    assert [known[f"conv2d_{first + n}" if first + n else "conv2d"] for n, _ in places] == [ours for _, ours in places]
    assert known[f"batch_normalization_{first + 93}"] == "stage4_block3_pool_bn"


def test_other_forms_of_a_network_are_refused():
    """The weights fit, but mean something else."""
    narrow = {"width": 0.0625, "num_classes": 5}
    for name, source, looks in (
        ("mobilenet_v1", "timm", "mobilenet_v1_relu6"),
        ("mobilenet_v1_tf", "gluoncv", "mobilenet_v1"),
        ("inception_v3_tf", "torchvision", "inception_v3"),
    ):
        net = next(net for net in NETWORKS if net.startswith(source) and NETWORKS[net][0] == looks)
        tensors = {
            key: np.zeros([int(side) for side in shape.split("x") if side]) for key, shape in SHAPES[net].items()
        }
        with pytest.raises(MisuseError, match=rf"the {source} weights of {name}: it contains {looks} "):
            interop.assign_tensors(models.create_model(name, **narrow), tensors, source)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("layer4.1.bn2.running_var"), r"has no tensor for stage4_block2_2_bn/moving_variance\."),
        (lambda t: t.update(extra=np.ones(3)), r"the network has no weight for extra\."),
        (lambda t: t.update({"layer1.0.conv1.bias": np.ones(3)}), r"1_block1_1_conv/bias is \(3,\) instead of \(64,\)"),
        (
            lambda t: t.update({"layer1.0.conv1.weight": np.ones((64, 32, 3, 3))}),
            r"stage1_block1_1_conv/kernel is \(3, 3, 32, 64\) instead of \(3, 3, 64, 64\)",
        ),
        (lambda t: t.update({"layer1.0.conv3.weight": np.ones((64, 64, 1, 1))}), "contains resnet26_d"),
        (
            lambda t: [t.pop(k) for k in list(t) if k.startswith("layer4.1.")],
            "2, 2, 2, 1 basic blocks with a deep stem",
        ),
        (
            lambda t: [t.pop(k) for k in list(t) if k.startswith("layer")],
            "no supported network of timm, but conv1.0.weight",
        ),
        (lambda t: t.clear(), "no tensors"),
    ],
)
def test_what_does_not_fit_is_reported_and_the_model_left_alone(change, message):
    tensors, model = dict(_random("timm resnet18d")), _resnet18_d()
    before = _weights(model)
    change(tensors)
    with pytest.raises(MisuseError, match=message):
        interop.assign_tensors(model, tensors, "timm", file="net.safetensors")
    for place, value in _weights(model).items():
        np.testing.assert_array_equal(value, before[place])


def test_another_network_is_distinguished_from_the_one_wanted():
    with pytest.raises(MisuseError, match=r"weights of resnet18_d: it contains resnet50_c with 1000 classes"):
        interop.assign_tensors(_resnet18_d(), _random("timm resnet50c"), "timm")
    with pytest.raises(MisuseError, match=r"of resnet50_a: it contains resnet50_b with 1000 classes"):
        narrow = models.create_model("resnet50_a", width=0.125)
        interop.assign_tensors(narrow, _random("torchvision resnet50"), "torchvision")
    cifar = models.create_model("cifar_resnet20_a")
    with pytest.raises(MisuseError, match="'cifar_resnet20_a' is not one of"):
        interop.assign_tensors(cifar, _random("timm resnet18d"), "timm")


def test_a_network_with_other_places_of_pools_is_refused():
    tensors = _random("torchvision resnet18")
    moved = {
        name.replace("downsample.1", "downsample.2").replace("downsample.0", "downsample.1"): t
        for name, t in tensors.items()
    }
    with pytest.raises(MisuseError, match="2, 2, 2, 2 basic blocks with a 7x7 stem and pooled shortcuts"):
        interop.assign_tensors(_resnet18_d(), moved, "timm")


def test_unknown_words_are_refused():
    for options, message in (
        ({"source": "tim"}, "Unknown source 'tim'. Did you mean timm"),
        ({"source": "timm", "head": "keeep"}, "Unknown head"),
        ({"source": "timm", "normalisation": "our"}, "Unknown normalisation"),
        ({"source": "timm", "preprocessing": {"channels": "bgr"}}, "Unknown channel order 'bgr'. Known: BGR, RGB"),
    ):
        with pytest.raises(MisuseError, match=message):
            interop.assign_tensors(_resnet18_d(), _random("timm resnet18d"), **options)


def test_a_part_of_the_preprocessing_is_completed():
    mean = {"mean": (1.0, 2.0, 3.0)}
    report = interop.assign_tensors(_resnet18_d(), _random("timm resnet18d"), "timm", preprocessing=mean)
    assert report.preprocessing == DEFAULTS["timm"] | {"mean": (1.0, 2.0, 3.0), "takes": "ours"}


def test_of_basic_blocks_a_is_b():
    same = [depth for depth in DEPTHS if architecture.same_network(f"resnet{depth}_a", f"resnet{depth}_b")]
    assert same == [10, 18, 34]
    model = models.create_model("resnet18_a", num_classes=1000)
    assert interop.assign_tensors(model, _random("torchvision resnet18"), "torchvision").model == "resnet18_a"


@pytest.mark.parametrize(("classes", "head"), [(1000, "kept"), (7, "new")])
def test_the_head_is_kept_for_as_many_classes_or_new(classes, head):
    model = models.create_model("resnet18_d", num_classes=classes)
    before = np.array(model.get_layer("predictions").kernel)
    report = interop.assign_tensors(model, _random("timm resnet18d"), "timm")
    assert (report.head, report.num_classes, report.file_classes) == (head, classes, 1000)
    assert (np.array(model.get_layer("predictions").kernel) == before).all() == (head == "new")
    assert any("head was not used" in note for note in report.notes) == (head == "new")


def test_a_network_without_a_top_takes_no_head():
    model = models.create_model("resnet18_d", include_top=False)
    report = interop.assign_tensors(model, _random("timm resnet18d"), "timm")
    assert (report.head, report.num_classes) == ("none", None)


def test_paddles_blocks_are_numbered_through_and_their_dense_kernel_is_ours():
    """By PaddleClas' names; nothing of it is installed anywhere here."""
    model = models.create_model("resnet18_vd", num_classes=3, width=0.125)
    layers = {"predictions": "fc"}
    for number, (stage, block) in enumerate((s, b) for s in (1, 2, 3, 4) for b in (1, 2)):
        for theirs, ours in (("conv0", "1"), ("conv1", "2"), ("short", "shortcut")):
            for kind in ("conv", "bn"):
                layers[f"stage{stage}_block{block}_{ours}_{kind}"] = f"blocks.{number}.{theirs}.{kind}"
    layers |= {f"stem_{i + 1}_{kind}": f"stem.{i}.{kind}" for i in range(3) for kind in ("conv", "bn")}
    words = {"kernel": "weight", "gamma": "weight", "beta": "bias", "bias": "bias"}
    words |= {"moving_mean": "_mean", "moving_variance": "_variance"}
    draw = np.random.default_rng(0)
    values = {place: draw.random(value.shape, "float32") for place, value in _weights(model).items()}
    tensors = {
        f"{layers[layer]}.{words[weight]}": value.transpose(3, 2, 0, 1) if value.ndim == 4 else value
        for (layer, weight), value in values.items()
    }
    assert interop.assign_tensors(model, tensors, "paddleclas", normalisation="theirs").model == "resnet18_vd"
    for place, value in _weights(model).items():
        np.testing.assert_array_equal(value, values[place])
