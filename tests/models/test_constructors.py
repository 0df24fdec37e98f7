import inspect
import pydoc

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
def test_constructor_is_create_model(name, monkeypatch):
    calls = []
    monkeypatch.setattr(
        "keras_bot.models.catalogue._create_model", lambda *args, **options: calls.append((args, options))
    )
    getattr(models, _public(name))(num_classes=3, width=0.5)
    assert calls == [((name,), {"num_classes": 3, "width": 0.5})]


def test_constructor_gives_the_same_network():
    ours, other = (
        models.ResNet18D(num_classes=3, width=0.1),
        models.create_model("resnet18_d", num_classes=3, width=0.1),
    )
    assert ours.get_config() == other.get_config()


def test_a_constructor_lists_its_options_and_refuses_others():
    assert "num_classes" in inspect.signature(models.ResNet50D).parameters
    assert "name" not in inspect.signature(models.ResNet50D).parameters
    assert models.ResNet50D.__name__ == "ResNet50D"
    assert "resnet50_d" in models.ResNet50D.__doc__
    with pytest.raises(TypeError):
        models.ResNet50D(nun_classes=3)


def test_constructors_are_listed_and_documented():
    constructors = [name for name in dir(models.catalogue) if not name.startswith("_")]
    assert len(constructors) == 48 == len(models.names())
    assert set(constructors) < set(models.__all__) and set(models.__all__) <= set(dir(models))
    assert all(getattr(models, name).__name__ == name for name in constructors)
    text = pydoc.plain(pydoc.render_doc(models))
    assert all(f"{name}(*, num_classes" in text for name in constructors)


def test_info_needs_no_network():
    assert models.info("resnet50_d") == models.ModelInfo("resnet50_d", "resnet", "D", has_residual_blocks=True)
    assert models.info("cifar_resnet20_a").image_size == 32 and models.info("cifar_resnet20_a").variant == "A"
    assert models.info("resnet18_vd").variant == "VD"
    assert models.info("inception_v3").smallest_image_size == 75
    assert {models.info(name).family for name in models.names()} == {"resnet", "cifar_resnet", "inception", "mobilenet"}
    with pytest.raises(ValueError, match=r"Unknown model 'resnet50d'. Did you mean .*resnet50_d"):
        models.info("resnet50d")


@pytest.mark.parametrize(
    ("old", "new"),
    [("variant", "variant"), ("usual_image_size", "image_size"), ("smallest_image_size", "smallest_image_size")],
)
def test_old_queries_still_work(old, new):
    with pytest.warns(DeprecationWarning, match=rf"info\(name\)\.{new}"):
        assert getattr(models, old)("resnet50_d") == getattr(models.info("resnet50_d"), new)


def test_create_still_works():
    for module in (models, models.networks):
        with pytest.warns(DeprecationWarning, match="create_model"):
            assert module.create is models.create_model
