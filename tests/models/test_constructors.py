import inspect

import pytest

from keras_bot import models

pytestmark = pytest.mark.core


OTHERS = {
    "inception_v3": "InceptionV3",
    "inception_v3_tf": "InceptionV3TF",
    "mobilenet_v1": "MobileNetV1",
    "mobilenet_v1_relu6": "MobileNetV1ReLU6",
    "mobilenet_v1_tf": "MobileNetV1TF",
}


def _public(name):
    if name in OTHERS:
        return OTHERS[name]
    family, variant = name.rsplit("_", 1)
    return family.replace("cifar_", "Cifar").replace("resnet", "ResNet") + variant.upper()


def test_every_network_has_a_constructor():
    assert {_public(name) for name in models.names()} <= set(models.__all__)
    assert all(hasattr(models, name) for name in models.__all__)


@pytest.mark.parametrize("name", models.names())
def test_constructor_is_create(name, monkeypatch):
    calls = []
    monkeypatch.setattr("keras_bot.models.catalogue.create", lambda *args, **options: calls.append((args, options)))
    getattr(models, _public(name))(num_classes=3, width=0.5)
    assert calls == [((name,), {"num_classes": 3, "width": 0.5})]


def test_constructor_gives_the_same_network():
    ours, other = (
        models.ResNet18D(num_classes=3, width=0.1),
        models.create("resnet18_d", num_classes=3, width=0.1),
    )
    assert ours.get_config() == other.get_config()


def test_constructor_tells_its_options_and_refuses_others():
    assert "num_classes" in inspect.signature(models.ResNet50D).parameters
    assert "name" not in inspect.signature(models.ResNet50D).parameters
    assert models.ResNet50D.__name__ == "ResNet50D"
    assert "resnet50_d" in models.ResNet50D.__doc__
    with pytest.raises(TypeError):
        models.ResNet50D(nun_classes=3)
