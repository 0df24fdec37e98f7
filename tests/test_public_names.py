"""The names of `keras_bot`, and the names of version 0.1.0, which still work with a DeprecationWarning."""

import inspect

import numpy as np
import pytest

import keras_bot
from keras_bot import interop, models, surgery, tricks
from keras_bot.deprecation import renamed_arguments
from keras_bot.tricks import distillation, labels, logits, precision
from keras_bot.tricks.mixup import draw_weight, mix_with_reversal


def test_the_public_verbs_are_two_levels_deep_at_most():
    verbs = ["create_model", "evaluate", "export_model", "load_backbone", "load_weights_from", "train"]
    assert all(inspect.isfunction(getattr(keras_bot, name)) for name in verbs)
    assert all(getattr(keras_bot, name).__name__ == name for name in verbs)
    assert set(dir(keras_bot)) == set(keras_bot.__all__)


def test_weights_load_into_another_model(tmp_path):
    source, model = (keras_bot.create_model("cifar_resnet8_a", num_classes=3, width=0.25) for _ in range(2))
    source.save(tmp_path / "net.keras")
    head = model.get_layer("predictions").get_weights()
    keras_bot.load_weights_from(model, tmp_path / "net.keras")
    for layer in model.layers:
        expected = head if layer.name == "predictions" else source.get_layer(layer.name).get_weights()
        for ours, theirs in zip(layer.get_weights(), expected, strict=True):
            np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(
    ("module", "old", "new"),
    [
        (keras_bot, "create", models.create_model),
        (models, "create", models.create_model),
        (interop, "into", interop.assign_tensors),
        (tricks, "Distiller", tricks.DistillationModel),
        (distillation, "Distiller", tricks.DistillationModel),
        (tricks, "check_logits", logits.check_logits),
        (tricks, "draw_weight", draw_weight),
        (tricks, "mix_with_reversal", mix_with_reversal),
        (tricks, "policy_of", precision.policy_of),
        (tricks, "recast", surgery.recast),
        (precision, "recast", surgery.recast),
        (precision, "output_layers", surgery.output_layers),
    ],
)
def test_an_old_name_works_with_a_warning(module, old, new):
    with pytest.warns(DeprecationWarning, match=f"{module.__name__}.{old} is now .*{new.__name__}") as caught:
        assert getattr(module, old) is new
    assert caught[0].filename == __file__
    assert old not in getattr(module, "__all__", ())


def test_the_old_export_function_works_with_a_warning():
    with pytest.warns(DeprecationWarning, match="export_savedmodel"):
        assert keras_bot.export_savedmodel.__name__ == "export_savedmodel"


def test_unknown_names_are_refused():
    for module in (keras_bot, models, tricks, labels):
        with pytest.raises(AttributeError, match="nothing"):
            _ = module.nothing


@pytest.mark.parametrize("schedule", [tricks.CosineDecay, tricks.PolyDecay, tricks.StepDecay])
def test_a_decay_takes_its_old_keyword(schedule):
    rest = {"boundaries": [3]} if schedule is tricks.StepDecay else {"decay_steps": 10}
    with pytest.warns(DeprecationWarning, match=r"\(learning_rate=…\) is now initial_learning_rate") as caught:
        old = schedule(learning_rate=0.1, **rest)
    assert caught[0].filename == __file__
    assert old.get_config() == schedule(initial_learning_rate=0.1, **rest).get_config()
    with pytest.warns(DeprecationWarning, match="initial_learning_rate"):
        assert old.learning_rate == 0.1
    assert "initial_learning_rate" in inspect.signature(schedule).parameters
    with pytest.raises(TypeError, match="learn"):
        schedule(learn=0.1, **rest)


def test_nag_takes_its_old_keywords():
    with pytest.warns(DeprecationWarning) as caught:
        old = tricks.NAG(0.1, weight_decay=1e-3, decay="all", rates={"kernel": 0.5}, name="nag")
    assert {str(warning.message).split(";")[0] for warning in caught} == {
        "NAG(decay=…) is now decayed_variables",
        "NAG(rates=…) is now lr_multipliers",
    }
    options = {"decayed_variables": "all", "lr_multipliers": {"kernel": 0.5}}
    new = tricks.NAG(0.1, weight_decay=1e-3, **options, name="nag")
    assert old.get_config() == new.get_config()
    with pytest.warns(DeprecationWarning):
        assert (old.l2, old.decay, old.rates) == (1e-3, "all", {"kernel": 0.5})
    with pytest.warns(DeprecationWarning), pytest.raises(TypeError, match="received decay and decayed_variables"):
        tricks.NAG(0.1, decay="all", decayed_variables="all")


def test_renamed_arguments_keep_the_signature():
    class Thing:
        @renamed_arguments(old="new")
        def __init__(self, new, other=1):
            self.values = (new, other)

    assert list(inspect.signature(Thing).parameters) == ["new", "other"]
    assert Thing(3, other=2).values == (3, 2)


def test_an_old_import_statement_works():
    names = {}
    with pytest.warns(DeprecationWarning, match=r"keras_bot\.models\.create is now"):
        exec("from keras_bot.tricks import Distiller; from keras_bot.models import create", names)
    assert names["Distiller"].__name__ == "DistillationModel"
