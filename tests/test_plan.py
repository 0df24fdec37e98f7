"""`--dry_run` prints the numbers that training would use: steps, rates, parameters, FLOPs and decayed variables."""

import types

import keras
import pytest

from keras_bot.errors import MisuseError
from keras_bot.plan import decay_sections, learning_rate_lines, network_line, plan
from keras_bot.recipe import Recipe

BASE = {"epochs": 4, "batch_size": 8, "decay_epochs": (2, 3), "learning_rate": 0.2, "image_size": 6}
STEPS = 10
LEFT_OUT = "images, different ones each epoch, are dropped with the incomplete last batch"


@pytest.fixture(scope="module")
def network():
    """A network of 70 trainable parameters in 5 variables, with 16 x 54 + 8 multiply-adds."""
    inputs = keras.Input((6, 6, 3))
    x = keras.layers.Conv2D(2, 3, use_bias=False, name="convolution")(inputs)
    x = keras.layers.BatchNormalization(name="norm")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, keras.layers.Dense(4, name="head")(x))


class FakeTask:
    """A task on data of known sizes that records the calls; its names must be those of a `Task`."""

    name = "classification"

    def __init__(self, network, size=80, teacher=None):
        self.network, self.size, self.teacher, self.calls = network, size, teacher, []

    def open_source(self, recipe, split, strategy=None, class_names=()):
        self.calls.append((split, class_names))
        size = self.size if split == "train" else 17
        return types.SimpleNamespace(
            name=f"flowers {split}", size=size, num_classes=4, class_names=("a", "b", "c", "d")
        )

    def build_network(self, recipe, source):
        self.calls.append(("network", source.size, keras.config.dtype_policy().name))
        return self.network

    def load_teacher(self, recipe, source, strategy):
        self.calls.append(("teacher", source.size, strategy.replicas))
        return self.teacher


def sections(recipe, task):
    """Returns the lines of each section of the plan by title, without their indentation."""
    parts = [part.split("\n") for part in plan(recipe, task).split("\n\n")]
    assert all(line.startswith("  ") for _, *lines in parts for line in lines)
    return {title: [line[2:] for line in lines] for title, *lines in parts}


def test_every_section_of_a_plain_recipe(network):
    recipe = Recipe(**BASE)
    found = sections(recipe, FakeTask(network))
    assert found == {
        "recipe": [line[2:] for line in recipe.flag_lines()],
        "tricks": ["none: the paper's baseline"],
        "data": ["flowers train: 80 training and 17 evaluation images, 4 classes"],
        "steps": ["10 per epoch, 40 in total"],
        "learning rate": learning_rate_lines(recipe, STEPS),
        "network": [network_line(recipe, network)],
        "decayed: 5 variables": [
            *("convolution/kernel (3, 3, 3, 2)", "norm/gamma (2,)", "norm/beta (2,)"),
            *("head/kernel (2, 4)", "head/bias (4,)"),
        ],
        "not decayed: 0 variables": [],
    }
    assert "batch_size=8" in found["recipe"]


def test_the_tricks_in_use_are_listed(network):
    lines = sections(Recipe(**BASE, no_bias_decay=True, label_smoothing=0.1), FakeTask(network))["tricks"]
    assert len(lines) == 2 and lines != ["none: the paper's baseline"]


@pytest.mark.parametrize(
    ("size", "line"),
    [
        (80, "10 per epoch, 40 in total"),
        (87, f"10 per epoch, 40 in total; 7 {LEFT_OUT}"),
        (88, "11 per epoch, 44 in total"),
    ],
)
def test_the_steps_and_the_images_left_out(size, line, network):
    assert sections(Recipe(**BASE), FakeTask(network, size))["steps"] == [line]


def test_evaluation_data_are_opened_with_the_training_classes(network):
    task = FakeTask(network)
    sections(Recipe(**BASE), task)
    assert task.calls == [
        ("train", ()),
        ("eval", ("a", "b", "c", "d")),
        ("network", 80, "float32"),
        ("teacher", 80, 1),
    ]


def test_the_network_is_built_under_the_recipes_policy(network):
    task = FakeTask(network)
    sections(Recipe(**BASE, precision="mixed_bfloat16"), task)
    assert ("network", 80, "mixed_bfloat16") in task.calls
    assert keras.config.dtype_policy().name == "float32"


def test_the_teacher_is_named(network):
    teacher = types.SimpleNamespace(name="resnet152_d")
    lines = sections(Recipe(**BASE, teacher="runs/teacher"), FakeTask(network, teacher=teacher))["teacher"]
    assert lines == ["resnet152_d of runs/teacher"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 100}, r"^--batch_size=100 is larger than the 80 training images"),
        ({"optimizer": "adamw", "layer_decay": 0.5}, "--layer_decay is only supported for --optimizer=nag"),
        ({"accumulation_steps": 3}, r"^--batch_size=8 is not divisible by 3"),
    ],
)
def test_a_recipe_that_training_would_refuse_is_refused(changes, message, network):
    with pytest.raises(MisuseError, match=message):
        plan(Recipe(**{**BASE, **changes}), FakeTask(network))


def test_the_plan_needs_no_other_workers(network, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", '{"cluster": {"worker": ["a:1", "b:2"]}, "task": {"type": "worker", "index": 1}}')
    recipe = Recipe(**BASE, strategy="multi_worker")
    assert "strategy=multi_worker" in sections(recipe, FakeTask(network))["recipe"]


def test_the_recipes_task_is_the_default(network, monkeypatch):
    task, found = FakeTask(network), []
    monkeypatch.setattr("keras_bot.plan.find_task", lambda name: found.append(name) or task)
    plan(Recipe(**BASE))
    assert found == ["classification"] and task.calls


def test_the_size_of_the_network(network):
    line = "resnet50_a: 70 parameters, 8.72e-07 GFLOPs (multiply-adds) at 6x6"
    assert network_line(Recipe(**BASE), network) == line


@pytest.mark.parametrize("task", ["detection", "segmentation"])
def test_other_tasks_have_no_flops(task, network):
    line = network_line(Recipe(**BASE, task=task, model="resnet18_d"), network)
    assert line == "resnet18_d: 70 parameters, head included"


@pytest.mark.parametrize(
    ("changes", "lines"),
    [
        (
            {"schedule": "step"},
            [
                "step        0, epoch    0.00: 0.2  (peak)",
                "step       20, epoch    2.00: 0.02  (decay at epoch 2)",
                "step       30, epoch    3.00: 0.002  (decay at epoch 3)",
                "step       39, epoch    3.90: 0.002  (last step)",
            ],
        ),
        (
            {"schedule": "step", "warmup_epochs": 1.2, "linear_scaling": True, "decay_epochs": (2,)},
            [
                "step        0, epoch    0.00: 0.000520833  (first step)",
                "step        6, epoch    0.60: 0.00364583  (half the warmup)",
                "step       12, epoch    1.20: 0.00625  (peak)",
                "step       20, epoch    2.00: 0.000625  (decay at epoch 2)",
                "step       39, epoch    3.90: 0.000625  (last step)",
            ],
        ),
        (
            {"schedule": "cosine", "warmup_epochs": 1},
            [
                "step        0, epoch    0.00: 0.02  (first step)",
                "step        5, epoch    0.50: 0.12  (half the warmup)",
                "step       10, epoch    1.00: 0.2  (peak)",
                "step       17, epoch    1.70: 0.174314  (1/4 of the decay)",
                "step       24, epoch    2.40: 0.110453  (2/4 of the decay)",
                "step       31, epoch    3.10: 0.0412215  (3/4 of the decay)",
                "step       39, epoch    3.90: 0.00054781  (last step)",
            ],
        ),
        (
            {"schedule": "constant"},
            [
                "step        0, epoch    0.00: 0.2  (peak)",
                "step        9, epoch    0.90: 0.2  (1/4 of the decay)",
                "step       19, epoch    1.90: 0.2  (2/4 of the decay)",
                "step       29, epoch    2.90: 0.2  (3/4 of the decay)",
                "step       39, epoch    3.90: 0.2  (last step)",
            ],
        ),
    ],
    ids=str,
)
def test_the_learning_rate_at_its_milestones(changes, lines):
    actual = [line.split(": ") for line in learning_rate_lines(Recipe(**{**BASE, **changes}), STEPS)]
    expected = [line.split(": ") for line in lines]
    assert [step for step, _ in actual] == [step for step, _ in expected]
    for (_, ours), (_, reference) in zip(actual, expected, strict=True):
        rate, name = ours.split("  ")
        expected_rate, expected_name = reference.split("  ")
        assert float(rate) == pytest.approx(float(expected_rate), rel=1e-5) and name == expected_name


def test_decays_after_the_end_are_left_out():
    lines = learning_rate_lines(Recipe(**{**BASE, "decay_epochs": (3, 4, 9)}), STEPS)
    assert [line.split("(")[1] for line in lines] == ["peak)", "decay at epoch 3)", "last step)"]


@pytest.mark.parametrize(
    ("changes", "decayed", "excluded"),
    [
        ({}, "kernel gamma beta kernel bias", ""),
        ({"no_bias_decay": True}, "kernel kernel", "gamma beta bias"),
        ({"weight_decay": 0.0}, "", "kernel gamma beta kernel bias"),
        ({"weight_decay": 0.0, "no_bias_decay": True}, "", "kernel gamma beta kernel bias"),
    ],
    ids=str,
)
def test_the_variables_with_and_without_decay(changes, decayed, excluded, network):
    found = decay_sections(Recipe(**changes), network)
    names = [[line.split(" ")[0].split("/")[-1] for line in lines] for lines in found.values()]
    assert names == [decayed.split(), excluded.split()]
    assert list(found) == [
        f"decayed: {len(decayed.split())} variables",
        f"not decayed: {len(excluded.split())} variables",
    ]
