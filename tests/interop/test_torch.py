"""timm's and torchvision's networks and ours give the same outputs; needs PyTorch, unlike the default tests.

KERAS_BOT_TEST_DATA=… KERAS_BACKEND=torch pytest tests/interop/test_torch.py -s shows the differences.
"""

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch")
timm = pytest.importorskip("timm")
timm_resnet = pytest.importorskip("timm.models.resnet")
torchvision = pytest.importorskip("torchvision")

import keras  # noqa: E402  # after PyTorch

from keras_bot import interop, models  # noqa: E402
from keras_bot.errors import MisuseError  # noqa: E402
from keras_bot.interop.preprocessing import DEFAULTS, MEAN, STD, default_preprocessing  # noqa: E402

pytestmark = pytest.mark.core

BLOCKS = {
    18: (2, 2, 2, 2),
    26: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}
TWEAKS = {"b": {}, "c": {"stem_type": "deep"}, "d": {"stem_type": "deep", "avg_down": True}}
CASES = [("timm", depth, variant) for depth in BLOCKS for variant in TWEAKS]
CASES += [("torchvision", depth, "b") for depth in BLOCKS if depth != 26]
OTHERS = {  # (library, its name): ours, the size of images, the modules that give C2 … C5
    ("timm", "inception_v3"): ("inception_v3", 299, ("Conv2d_4a_3x3", "Mixed_5d", "Mixed_6e", "Mixed_7c")),
    ("torchvision", "inception_v3"): ("inception_v3", 299, ("Conv2d_4a_3x3", "Mixed_5d", "Mixed_6e", "Mixed_7c")),
    ("timm", "mobilenetv1_100"): ("mobilenet_v1_relu6", 224, ("blocks.1", "blocks.2", "blocks.3", "blocks.4")),
}


def _photos(folder, size):
    files = sorted(folder.glob("imagenet_samples/n*/*.JP*G"))[::20][:8]
    images = [Image.open(file).convert("RGB").resize((size, size), Image.Resampling.BILINEAR) for file in files]
    assert len(images) == 8
    return np.stack([np.asarray(image) for image in images])


@pytest.fixture(scope="module")
def pixels(test_data):
    """Eight photos, uint8 (8, 224, 224, 3)."""
    return _photos(test_data, 224)


def _normalised(pixels, mean, std):
    return ((pixels - np.array(mean)) / np.array(std)).astype("float32")


def _build(library, depth, variant, classes=11):
    if library == "torchvision":
        return getattr(torchvision.models, f"resnet{depth}")(num_classes=classes)
    block = timm_resnet.BasicBlock if depth in (18, 34) else timm_resnet.Bottleneck
    return timm_resnet.ResNet(block, BLOCKS[depth], num_classes=classes, stem_width=32, **TWEAKS[variant])


def _with_statistics(net, images):
    """Random scales and shifts, and the statistics of real images, then moved a little: as in a trained network."""
    draw = torch.Generator().manual_seed(0)
    norms = [module for module in net.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    # Small ones at the ends of the blocks, as training makes them; with large ones rounding grows from block to block.
    lasts = [getattr(block, "bn3", block.bn2) for i in (1, 2, 3, 4) for block in getattr(net, f"layer{i}", ())]

    def uniform(tensor, low, high):
        tensor.data.copy_(low + (high - low) * torch.rand(tensor.shape, generator=draw))

    for norm in norms:
        uniform(norm.weight, *((0.05, 0.15) if norm in lasts else (0.2, 0.8)))
        uniform(norm.bias, -0.3, 0.3)
        norm.momentum = 1.0
    with torch.no_grad():
        net.train()(images)
        for norm in norms:
            norm.running_mean += 0.1 * norm.running_var.sqrt() * torch.randn(norm.running_mean.shape, generator=draw)
            norm.running_var *= 0.8 + 0.4 * torch.rand(norm.running_var.shape, generator=draw)
    return net.eval()


STAGES = ("layer1", "layer2", "layer3", "layer4")


def _theirs(net, images, stages=STAGES):
    """Logits and the ends of the stages, channels last."""
    ends, hooks = {}, []
    for level, stage in enumerate(stages, start=2):
        module = net.get_submodule(stage)
        hooks.append(module.register_forward_hook(lambda _m, _i, out, key=f"C{level}": ends.update({key: out})))
    with torch.no_grad():
        logits = net(images).numpy()
    for hook in hooks:
        hook.remove()
    return logits, {key: end.permute(0, 2, 3, 1).numpy() for key, end in ends.items()}


def _ours(model, images):
    ends = models.features(model)
    together = keras.Model(model.input, [model.output, *(ends.output[key] for key in ("C2", "C3", "C4", "C5"))])
    logits, *ends = [keras.ops.convert_to_numpy(part) for part in together(images, training=False)]
    return logits, dict(zip(("C2", "C3", "C4", "C5"), ends, strict=True))


def _save(net, path):
    torch.save(net.state_dict(), path)
    return path


@pytest.mark.parametrize(("library", "depth", "variant"), CASES)
def test_logits_and_features_are_theirs(library, depth, variant, pixels, tmp_path):
    images = _normalised(pixels, DEFAULTS[library]["mean"], DEFAULTS[library]["std"])
    channels_first = torch.from_numpy(images).permute(0, 3, 1, 2)
    net = _with_statistics(_build(library, depth, variant), channels_first[:, :, ::2, ::2])
    file = _save(net, tmp_path / "net.pth")
    model, report = interop.load(file, source=library, normalisation="theirs")
    assert report.model == model.name == f"resnet{depth}_{variant}"
    assert len(report.uses) + len(report.ignored) == len(net.state_dict())
    worst = {}
    for part in (slice(None), slice(0, 161)):  # and of an odd size, where pooling differs if anywhere
        logits, ends = _theirs(net, channels_first[:, :, part, :])
        our_logits, our_ends = _ours(model, images[:, part])
        worst["logits"] = max(worst.get("logits", 0), np.abs(our_logits - logits).max())
        for key, end in ends.items():
            assert our_ends[key].shape == end.shape
            worst[key] = max(worst.get(key, 0), np.abs(our_ends[key] - end).max())
    interop.load(file, model, source=library)
    folded = _ours(model, _normalised(pixels, MEAN, STD))[0]
    border = np.abs(folded - _theirs(net, channels_first)[0]).max()
    scale, largest = np.abs(logits).max(), np.abs(ends["C5"]).max()
    summary = ", ".join(f"{key} {value:.1e}" for key, value in worst.items())
    print(f"\n{library} {model.name}: {summary}; normalised by us {border:.1e}; up to {scale:.1f}, C5 {largest:.0f}")
    assert max(worst.values()) < 1e-4
    assert border < 2e-2 * scale


@pytest.mark.parametrize(
    ("library", "name"), [pytest.param(*key, marks=[pytest.mark.thorough] * ("inception_v3" in key)) for key in OTHERS]
)
def test_inception_and_mobilenet_are_theirs(library, name, test_data, tmp_path):
    ours, size, stages = OTHERS[library, name]
    pixels, theirs = _photos(test_data, size), default_preprocessing(library, ours)
    torch.manual_seed(0)
    if library == "torchvision":
        net = torchvision.models.inception_v3(num_classes=11, init_weights=True, transform_input=True)
        given = _normalised(
            pixels, DEFAULTS[library]["mean"], DEFAULTS[library]["std"]
        )  # transform_input does the rest
    else:
        net, given = timm.create_model(name, num_classes=11), _normalised(pixels, theirs["mean"], theirs["std"])
    channels_first = torch.from_numpy(given).permute(0, 3, 1, 2)
    net = _with_statistics(net, channels_first)
    file = _save(net, tmp_path / "net.pth")
    model, report = interop.load(file, source=library, normalisation="theirs")
    assert report.model == model.name == ours and report.preprocessing["image_size"] == size
    assert len(report.uses) + len(report.ignored) == len(net.state_dict())
    assert any("AuxLogits" in note for note in report.notes) == (library == "torchvision")
    worst = {}
    for part in (slice(None), slice(0, 161)):
        logits, ends = _theirs(net, channels_first[:, :, part], stages)
        our_logits, our_ends = _ours(model, _normalised(pixels[:, part], theirs["mean"], theirs["std"]))
        worst["logits"] = max(worst.get("logits", 0), np.abs(our_logits - logits).max())
        for key, end in ends.items():
            assert our_ends[key].shape == end.shape
            worst[key] = max(worst.get(key, 0), np.abs(our_ends[key] - end).max() / np.abs(end).max())
    interop.load(file, model, source=library)
    folded, folded_ends = _ours(model, _normalised(pixels, MEAN, STD))
    logits, ends = _theirs(net, channels_first, stages)
    border = np.abs(folded - logits).max()
    summary = ", ".join(f"{key} {value:.1e}" for key, value in worst.items())
    scale = np.abs(logits).max()
    largest = ", ".join(f"{np.abs(end).max():.3g}" for end in ends.values())
    print(f"\n{library} {ours}: {summary}; by us {border:.1e}; up to {scale:.1f} ± {logits.std():.2g}, {largest}")
    assert max(worst.values()) < 1e-4 < logits.std()  # of features it is a part of their greatest
    inner = np.abs(folded_ends["C2"] - ends["C2"])[:, 3:-3, 3:-3].max()  # what no padding reaches
    assert inner < 1e-4
    assert border < 1e-4 or ours == "mobilenet_v1_relu6"  # the only one that pads its first convolution


@pytest.mark.parametrize("name", [pytest.param("inception_v3", marks=pytest.mark.thorough), "mobilenet_v1_relu6"])
def test_timm_loads_our_inception_and_mobilenet_strictly(name, test_data, tmp_path):
    model = models.create_model(name, num_classes=11)
    draw = np.random.default_rng(0)
    for value in model.weights:
        if value.path.endswith(("gamma", "beta", "moving_mean", "moving_variance", "bias")):
            value.assign(draw.uniform(0.1, 1, value.shape))
    config = interop.save_timm(model, tmp_path / "net.safetensors")
    overlay = {"pretrained_cfg_overlay": config["pretrained_cfg"], "checkpoint_path": str(tmp_path / "net.safetensors")}
    net = timm.create_model(config["architecture"], num_classes=config["num_classes"], **overlay).eval()
    cfg = timm.data.resolve_data_config({}, model=net)
    pixels = _photos(test_data, cfg["input_size"][-1])
    assert len(pixels[0]) == models.info(name).image_size
    images = _normalised(pixels, 255 * np.array(cfg["mean"]), 255 * np.array(cfg["std"]))
    with torch.no_grad():
        theirs = net(torch.from_numpy(images).permute(0, 3, 1, 2)).numpy()
    ours = keras.ops.convert_to_numpy(model(_normalised(pixels, MEAN, STD), training=False))
    worst = np.abs(ours - theirs).max()
    print(f"\nto timm, {name}: {worst:.1e}, ± {theirs.std():.2g}")
    assert worst < 1e-4 < theirs.std()


def test_timm_loads_what_we_save_strictly_and_agrees(pixels, tmp_path):
    model = models.create_model("resnet26_d", num_classes=11)
    draw = np.random.default_rng(0)
    for value in model.weights:
        if value.path.endswith(("gamma", "beta", "moving_mean", "moving_variance", "bias")):
            value.assign(draw.uniform(0.1, 0.5, value.shape))
    config = interop.save_timm(model, tmp_path / "net.safetensors")
    overlay = {"pretrained_cfg_overlay": config["pretrained_cfg"], "checkpoint_path": str(tmp_path / "net.safetensors")}
    net = timm.create_model(config["architecture"], num_classes=config["num_classes"], **overlay).eval()
    cfg = timm.data.resolve_data_config({}, model=net)
    images = _normalised(pixels, 255 * np.array(cfg["mean"]), 255 * np.array(cfg["std"]))
    with torch.no_grad():
        theirs = net(torch.from_numpy(images).permute(0, 3, 1, 2)).numpy()
    ours = keras.ops.convert_to_numpy(model(_normalised(pixels, MEAN, STD), training=False))
    assert np.abs(ours - theirs).max() < 1e-4 < theirs.std()


def _small(**changes):
    return timm_resnet.ResNet(timm_resnet.BasicBlock, BLOCKS[18], num_classes=5, **changes)


def test_a_checkpoint_of_training_and_of_several_gpus(tmp_path):
    state = _small().state_dict()
    wrapped = {f"module.backbone.{name}": value for name, value in state.items()}
    torch.save({"epoch": 3, "state_dict": wrapped, "optimizer": {}}, tmp_path / "net.pth")
    tensors = interop.read_tensors(tmp_path / "net.pth")
    assert set(tensors) == set(state)
    assert interop.load(tmp_path / "net.pth", source="timm")[1].model == "resnet18_b"


def test_halves_are_widened(tmp_path):
    torch.save({name: value.bfloat16() for name, value in _small().state_dict().items()}, tmp_path / "net.pt")
    assert interop.read_tensors(tmp_path / "net.pt")["fc.weight"].dtype == np.float32


def test_pickled_objects_are_refused_and_other_content_too(tmp_path):
    torch.save(_small(), tmp_path / "net.pth")
    with pytest.raises(MisuseError, match=r"damaged, or contains pickled Python objects.*state_dict\(\)"):
        interop.load(tmp_path / "net.pth", source="timm")
    torch.save([torch.ones(2)], tmp_path / "list.pth")
    with pytest.raises(MisuseError, match=r"contains a list\. Save a state_dict"):
        interop.load(tmp_path / "list.pth", source="timm")
    whole = (tmp_path / "list.pth").read_bytes()
    (tmp_path / "cut.pth").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(MisuseError, match="damaged"):
        interop.load(tmp_path / "cut.pth", source="timm")


@pytest.mark.parametrize(
    "changes", [{"stem_type": "deep_tiered", "avg_down": True}, {"stem_type": "deep", "stem_width": 64}]
)
def test_other_stems_are_recognised_by_their_shapes(changes, tmp_path):
    """timm's resnet18t and 18s, if there were such."""
    file = _save(_small(**{"stem_width": 32, **changes}), tmp_path / "net.pth")
    with pytest.raises(MisuseError, match=r"stem_.* instead of "):
        interop.load(file, source="timm")


def test_groups_and_other_layers_are_reported(tmp_path):
    file = _save(torchvision.models.resnext50_32x4d(), tmp_path / "groups.pth")
    with pytest.raises(MisuseError, match=r"stage1_block1_1_conv/kernel is \(1, 1, 64, 128\)"):
        interop.load(file, source="torchvision")
    file = _save(_small(block_args={"attn_layer": "se"}), tmp_path / "attention.pth")
    with pytest.raises(MisuseError, match=r"no weight for layer1\.0\.se\.fc1\.weight"):
        interop.load(file, source="timm")
