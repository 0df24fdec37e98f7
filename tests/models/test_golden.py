"""Parameters, multiply-adds and shapes of every network, against golden.json and against a count by hand.

After a change that means to move them, from the root: PYTHONPATH=. python tests/models/test_golden.py --write
"""

import functools
import json
import pathlib
import sys

import pytest

from keras_bot.models import count_flops, count_parameters, create_model, features, names

pytestmark = pytest.mark.core

DEFAULT = {f"resnet50_{v}" for v in "abcd"} | {
    *("resnet18_d", "resnet18_vd", "cifar_resnet20_a", "cifar_resnet8_d"),
    *("inception_v3", "mobilenet_v1"),
}  # every block, stem and shortcut; the others differ in depth, or in which of these they combine
GOLDEN = pathlib.Path(__file__).with_name("golden.json")


def _each(names):
    return [pytest.param(name, marks=() if name in DEFAULT else pytest.mark.thorough) for name in names]


def _image_size(name):
    return 32 if name.startswith("cifar") else 299 if name.startswith("inception") else 224


@functools.cache
def _measure(name):
    model = create_model(name)
    image = (1, _image_size(name), _image_size(name), 3)
    return {
        "parameters": count_parameters(model),
        "flops": count_flops(model, _image_size(name)),
        "features": {key: list(s[1:]) for key, s in features(model).compute_output_shape(image).items()},
        "output": list(model.compute_output_shape(image)[1:]),
    }


@pytest.mark.parametrize("name", _each(names()))
def test_network_is_as_the_golden_file_says(name):
    assert _measure(name) == json.loads(GOLDEN.read_text())[name]


def test_golden_file_holds_every_network_and_no_other():
    assert sorted(json.loads(GOLDEN.read_text())) == sorted(names())


@pytest.mark.parametrize("name", _each(name for name in names() if "resnet" in name))
def test_network_is_as_counted_by_hand(name):
    measured = _measure(name)
    assert (measured["parameters"], measured["flops"]) == _count_by_hand(name)


def _count_by_hand(name):
    """Parameters and multiply-adds from the papers' tables, with no network built."""
    depth, variant = name.removeprefix("cifar_").removeprefix("resnet").split("_")
    cifar = name.startswith("cifar")
    blocks = {
        "8": (1, 1, 1),
        "10": (1, 1, 1, 1),
        "14": (1, 1, 1, 1),
        "18": (2, 2, 2, 2),
        "26": (2, 2, 2, 2),
        "34": (3, 4, 6, 3),
        "50": (3, 4, 6, 3),
        "101": (3, 4, 23, 3),
        "152": (3, 8, 36, 3),
        "20": (3, 3, 3),
        "32": (5, 5, 5),
        "56": (9, 9, 9),
    }[depth]
    total = [0, 0]

    def conv(size, kernel, inputs, outputs):
        total[0] += kernel * kernel * inputs * outputs + 2 * outputs
        total[1] += kernel * kernel * inputs * outputs * size * size

    if cifar:
        size, inputs = 32, 16
        conv(size, 3, 3, 16)
    else:
        size, inputs = 56, 64
        stem = [(7, 3, 64)] if variant in "ab" else [(3, 3, 32), (3, 32, 32), (3, 32, 64)]
        for kernel, *channels in stem:
            conv(112, kernel, *channels)
    base = inputs
    for stage, count in enumerate(blocks):
        narrow = base * 2**stage
        outputs = narrow * 4 if depth in ("14", "26", "50", "101", "152") else narrow
        for block in range(count):
            before = size
            if stage and not block:
                size //= 2
            if outputs == narrow:
                conv(size, 3, inputs, narrow)
                conv(size, 3, narrow, outputs)
            else:
                conv(size if variant == "a" else before, 1, inputs, narrow)
                conv(size, 3, narrow, narrow)
                conv(size, 1, narrow, outputs)
            if inputs != outputs or (variant == "vd" and not stage and not block):
                conv(size, 1, inputs, outputs)
            inputs = outputs
    total[0] += inputs * 1000 + 1000
    total[1] += inputs * 1000
    return tuple(total)


@pytest.mark.parametrize(
    ("name", "parameters", "gflops"),
    [
        ("resnet50_a", 25_557_032, 3.8),
        ("resnet50_b", 25_557_032, 4.1),
        ("resnet50_c", 25_576_264, 4.3),
        ("resnet50_d", 25_576_264, 4.3),
    ],
)
def test_table_5(name, parameters, gflops):
    measured = _measure(name)
    assert measured["parameters"] == parameters
    assert measured["flops"] / 1e9 == pytest.approx(gflops, abs=0.06)  # the paper's 3.8 is 3.86, cut


def _add_up(convolutions, features):
    """Parameters and multiply-adds of (positions, weights, channels), batch norms and a head of 1000 included."""
    parameters = sum(weights + 2 * channels for _, weights, channels in convolutions)
    flops = sum(positions * weights for positions, weights, _ in convolutions)
    return parameters + 1000 * features + 1000, flops + 1000 * features


@pytest.mark.parametrize("name", ["mobilenet_v1", "mobilenet_v1_relu6", "mobilenet_v1_tf"])
def test_mobilenet_is_as_counted_by_hand(name):
    """From table 1 of its paper."""
    convolutions, inputs, side = [(112 * 112, 9 * 3 * 32, 32)], 32, 112
    for stride, outputs in zip(
        (1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1), (64, 128, 128, 256, 256, *[512] * 6, 1024, 1024), strict=True
    ):
        side //= stride
        convolutions += [(side * side, 9 * inputs, inputs), (side * side, inputs * outputs, outputs)]
        inputs = outputs
    measured = _measure(name)
    assert (measured["parameters"], measured["flops"]) == _add_up(convolutions, 1024) == (4_231_976, 568_740_352)


@pytest.mark.parametrize(
    ("width", "parameters", "mega_flops"), [(0.25, 470_072, 41), (0.5, 1_331_592, 149), (0.75, 2_585_560, 325)]
)
def test_narrow_mobilenets_are_the_known_ones(width, parameters, mega_flops):
    """Of table 6 of its paper: 0.5, 1.3, 2.6 million parameters; 41, 149, 325 million multiply-adds."""
    model = create_model("mobilenet_v1", width=width)
    assert count_parameters(model) == parameters
    assert count_flops(model, 224) / 1e6 == pytest.approx(mega_flops, abs=0.5)


@pytest.mark.parametrize("name", ["inception_v3", "inception_v3_tf"])
def test_inception_is_as_counted_by_hand(name):
    """From the tables and figures 5, 6, 7 and 10 of its paper; widths as TensorFlow published them."""
    convolutions = []

    def add(side, inputs, *layers):
        for area, outputs in layers:
            convolutions.append((side * side, area * inputs * outputs, outputs))
            inputs = outputs

    for side, inputs, layer in ((149, 3, (9, 32)), (147, 32, (9, 32)), (147, 32, (9, 64)), (73, 64, (1, 80))):
        add(side, inputs, layer)
    add(71, 80, (9, 192))
    for inputs, pooled in ((192, 32), (256, 64), (288, 64)):
        for branch in ([(1, 64)], [(1, 48), (25, 64)], [(1, 64), (9, 96), (9, 96)], [(1, pooled)]):
            add(35, inputs, *branch)
    add(17, 288, (9, 384))
    add(35, 288, (1, 64), (9, 96))
    add(17, 96, (9, 96))
    for narrow in (128, 160, 160, 192):
        five = [(7, narrow)] * 3
        for branch in ([(1, 192)], [(1, narrow), (7, narrow), (7, 192)], [(1, narrow), *five, (7, 192)], [(1, 192)]):
            add(17, 768, *branch)
    add(17, 768, (1, 192))
    add(8, 192, (9, 320))
    add(17, 768, (1, 192), (7, 192), (7, 192))
    add(8, 192, (9, 192))
    for inputs in (1280, 2048):
        for branch in ([(1, 320)], [(1, 384), (3, 384)], [(1, 448), (9, 384), (3, 384)], [(1, 192)]):
            add(8, inputs, *branch)
        add(8, 384, (3, 384))
        add(8, 384, (3, 384))
    measured = _measure(name)
    assert (measured["parameters"], measured["flops"]) == _add_up(convolutions, 2048)
    assert measured["parameters"] == 23_834_568 and measured["flops"] / 1e9 == pytest.approx(5.7, abs=0.05)


if __name__ == "__main__" and sys.argv[1:] == ["--write"]:
    GOLDEN.write_text(json.dumps({name: _measure(name) for name in names()}, indent=1) + "\n")
