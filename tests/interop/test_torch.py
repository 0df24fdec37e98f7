"""timm's and torchvision's networks beside ours, in one process: needs PyTorch, which the default tests do without.

KERAS_BOT_TEST_DATA=… KERAS_BACKEND=torch pytest tests/interop/test_torch.py -s shows the differences.
"""

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch")
timm_resnet = pytest.importorskip("timm.models.resnet")
torchvision = pytest.importorskip("torchvision")

import keras  # noqa: E402  # after PyTorch

from keras_bot import interop, models  # noqa: E402
from keras_bot.interop.preprocessing import DEFAULTS, MEAN, STD  # noqa: E402

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


@pytest.fixture(scope="module")
def pixels(test_data):
    """Eight photos, uint8 (8, 224, 224, 3)."""
    files = sorted(test_data.glob("imagenet_samples/n*/*.JP*G"))[::20][:8]
    images = [Image.open(file).convert("RGB").resize((224, 224), Image.Resampling.BILINEAR) for file in files]
    assert len(images) == 8
    return np.stack([np.asarray(image) for image in images])


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
    lasts = [getattr(block, "bn3", block.bn2) for i in (1, 2, 3, 4) for block in getattr(net, f"layer{i}")]

    def uniform(tensor, low, high):
        tensor.data.copy_(low + (high - low) * torch.rand(tensor.shape, generator=draw))

    for norm in norms:
        uniform(norm.weight, 0.1, 0.3 if norm in lasts else 0.7)  # large ones enlarge the rounding, too
        uniform(norm.bias, -0.3, 0.3)
        norm.momentum = 1.0
    with torch.no_grad():
        net.train()(images)
        for norm in norms:
            norm.running_mean += 0.1 * norm.running_var.sqrt() * torch.randn(norm.running_mean.shape, generator=draw)
            norm.running_var *= 0.8 + 0.4 * torch.rand(norm.running_var.shape, generator=draw)
    return net.eval()


def _theirs(net, images):
    """Logits and the ends of the stages, channels last."""
    ends, hooks = {}, []
    for level in (2, 3, 4, 5):
        stage = getattr(net, f"layer{level - 1}")
        hooks.append(stage.register_forward_hook(lambda _m, _i, out, key=f"C{level}": ends.update({key: out})))
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
    told = ", ".join(f"{key} {value:.1e}" for key, value in worst.items())
    print(f"\n{library} {model.name}: {told}; normalised by us {border:.1e}; up to {scale:.1f}, C5 {largest:.0f}")
    assert max(worst.values()) < 1e-4
    assert border < 2e-2 * scale
