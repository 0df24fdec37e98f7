"""A backbone is built as the recipe sets, and a recipe that detection or segmentation cannot use is refused."""

import dataclasses
import re

import keras
import pytest

from keras_bot.errors import MisuseError
from keras_bot.recipe import Recipe
from keras_bot.tasks import backbone
from keras_bot.tasks.backbone import as_backbone, build_backbone, check_recipe

RECIPE = Recipe(task="segmentation", model="resnet10_d", width=0.5)


def build_network(levels=("C2", "C3", "C4", "C5")):
    """A network with the layers of `models.create_model` in small."""
    inputs = keras.Input((None, None, 3))
    x = keras.layers.Conv2D(2, 1, 4, "same", name="stem_conv")(inputs)
    for number, level in enumerate(levels, 1):
        x = keras.layers.Conv2D(2, 1, 1, name=f"stage{number}_conv")(x)
        x = keras.layers.BatchNormalization(name=level)(x)
    return keras.Model(inputs, x, name="tiny")


@pytest.fixture
def calls(monkeypatch):
    """The calls that build the network, in order; each returns a small one."""
    events = []

    def replace(name, result=None):
        def call(*arguments, **options):
            names = [argument.name if isinstance(argument, keras.Model) else argument for argument in arguments]
            events.append((name, *names, options))
            return result(*arguments) if result else None

        return call

    monkeypatch.setattr(backbone.models, "create_model", replace("create_model", lambda name: build_network()))
    monkeypatch.setattr(backbone, "load_weights_from", replace("load_weights_from"))
    monkeypatch.setattr(backbone, "dilate", replace("dilate", lambda model, stride: model))
    monkeypatch.setattr(backbone, "freeze", replace("freeze"))
    return events


FROZEN = ("freeze", "tiny_backbone", {"batch_norm": False, "stages": 0})


@pytest.mark.parametrize(
    ("changes", "default_stride", "events"),
    [
        ({}, 32, [("freeze", "tiny", {"stages": 0, "batch_norm": False})]),
        ({}, 8, [("dilate", "tiny", 8, {}), ("freeze", "tiny", {"stages": 0, "batch_norm": False})]),
        (
            {"output_stride": 16},
            8,
            [("dilate", "tiny", 16, {}), ("freeze", "tiny", {"stages": 0, "batch_norm": False})],
        ),
        ({"output_stride": 32}, 8, [("freeze", "tiny", {"stages": 0, "batch_norm": False})]),
        ({"frozen_stages": 3}, 32, [("freeze", "tiny", {"stages": 3, "batch_norm": False})]),
        ({"freeze_bn": True}, 32, [("freeze", "tiny", {"stages": 0, "batch_norm": True})]),
        (
            {"init_from": "other", "freeze_bn": True},
            8,
            [
                ("load_weights_from", "tiny", "other", {}),
                ("dilate", "tiny", 8, {}),
                ("freeze", "tiny", {"stages": 0, "batch_norm": True}),
            ],
        ),
    ],
    ids=str,
)
def test_weights_are_loaded_then_dilated_then_frozen(changes, default_stride, events, calls):
    build_backbone(dataclasses.replace(RECIPE, **changes), default_stride)
    created = ("create_model", "resnet10_d", {"include_top": False, "width": 0.5, "zero_gamma": False})
    assert calls == [created, *events, FROZEN]


def test_zero_gamma_reaches_the_network_and_the_stride_is_32_by_default(calls):
    build_backbone(dataclasses.replace(RECIPE, zero_gamma=True))
    assert calls[0][-1]["zero_gamma"] is True and not any(call[0] == "dilate" for call in calls)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"output_stride": 4}, "--output_stride must be 8, 16, 32, received 4."),
        ({"model": "cifar_resnet8_d"}, "--model=cifar_resnet8_d has no features C2 … C5. Use a network for ImageNet."),
    ],
)
def test_other_strides_and_networks_are_refused(changes, message, monkeypatch):
    monkeypatch.setattr(backbone.models, "create_model", lambda name, **_: build_network(("C2",)))
    with pytest.raises(MisuseError, match=f"^{re.escape(message)}$"):
        build_backbone(dataclasses.replace(RECIPE, **changes))


def test_a_network_that_does_not_cover_the_image_is_refused(calls, monkeypatch):
    monkeypatch.setattr(backbone, "covers_the_image", lambda model: False)
    with pytest.raises(MisuseError, match=r"^--model=resnet10_d cannot be a backbone: Inception-V3's features"):
        build_backbone(RECIPE)


@pytest.mark.parametrize("trainable", [True, False])
@pytest.mark.parametrize("freeze_bn", [True, False])
def test_a_backbone_shares_the_networks_layers_by_level(trainable, freeze_bn):
    network = build_network()
    made = as_backbone(network, trainable=trainable, freeze_bn=freeze_bn, levels=("C3", "C5"))
    assert list(made.output) == ["C3", "C5"] and made.name == "tiny_backbone"
    assert made.pyramid_level_inputs == {"P3": "C3", "P5": "C5"}
    assert made.pyramid_outputs == {"P3": made.output["C3"], "P5": made.output["C5"]}
    layers = {layer.name: layer for layer in network.layers}
    assert all(layers[layer.name] is layer for layer in made.layers)
    assert {layers[name].trainable for name in ("stem_conv", "stage1_conv", "stage4_conv")} == {trainable}
    assert layers["C5"].trainable is not freeze_bn if trainable else True


@pytest.mark.parametrize("head", ["", "fcn", "deeplabv3plus"])
def test_a_recipe_of_the_task_is_accepted(head):
    check_recipe(dataclasses.replace(RECIPE, head=head, min_zoom=1.0, max_zoom=1.0), ("fcn", "deeplabv3plus"))


CLASSIFICATION = "is only supported for --task=classification."


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"head": "retinanet"}, "--head must be fcn, c4 or deeplabv3plus for --task=segmentation, received retinanet."),
        ({"teacher": "t"}, f"--teacher {CLASSIFICATION}"),
        ({"mixup_alpha": 0.2}, f"--mixup_alpha {CLASSIFICATION}"),
        ({"label_smoothing": 0.1}, f"--label_smoothing {CLASSIFICATION}"),
        ({"accumulation_steps": 2}, f"--accumulation_steps {CLASSIFICATION}"),
        ({"augment_on": "device"}, f"--augment_on {CLASSIFICATION}"),
        ({"shard_by": "file"}, f"--shard_by {CLASSIFICATION}"),
        ({"cache": True}, f"--cache {CLASSIFICATION}"),
        ({"scaled_eval": True}, f"--scaled_eval {CLASSIFICATION}"),
        ({"min_zoom": 2.0, "max_zoom": 1.5}, "--min_zoom must be at most --max_zoom, received 2.0 and 1.5."),
    ],
    ids=str,
)
def test_flags_that_the_task_does_not_support_are_refused(changes, message):
    with pytest.raises(MisuseError, match=f"^{re.escape(message)}$"):
        check_recipe(dataclasses.replace(RECIPE, **changes), ("fcn", "c4", "deeplabv3plus"))


def test_another_backend_is_refused(monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(MisuseError, match=r"^--task=segmentation needs KERAS_BACKEND=tensorflow, not jax\.$"):
        check_recipe(RECIPE, ("fcn",))
