"""Every class of the package that extends Keras has a row in the table of its kind, or is excluded for a reason."""

import ast
import functools
import importlib
import pathlib

import keras
import pytest

from contracts import callbacks, models, test_layers, test_losses, test_metrics, test_optimizers, test_schedules

PACKAGE = pathlib.Path(__file__).parents[2] / "keras_bot"
KINDS = {  # the more special ones first
    keras.optimizers.schedules.LearningRateSchedule: test_schedules.ROWS,
    keras.optimizers.Optimizer: test_optimizers.ROWS,
    keras.losses.Loss: test_losses.ROWS,
    keras.metrics.Metric: test_metrics.ROWS,
    keras.callbacks.Callback: callbacks.ROWS,
    keras.Model: models.ROWS,
    keras.layers.Layer: test_layers.ROWS,
}
EXCLUDED = {
    "keras_bot.tasks.detection.detector.Detector": "Base class: it has no network. RetinaNet and FasterRCNN have rows.",
    "keras_bot.tricks.decay._Decay": "Base class: it has no rates. StepDecay, CosineDecay and PolyDecay have rows.",
    "keras_bot.tricks.loss_scaling.SumFirst": "Mixin: it has no update of its own. NAG and AdamW have rows.",
    "keras_bot.tricks.no_bias_decay.DecayExclusions": "Mixin: it has no update of its own. NAG and AdamW have rows.",
}
PLANTED = """
import keras
from keras import layers
from keras.optimizers import schedules as decays
from keras.losses import Loss as Base
from keras_bot.tricks import NAG

class Mixin: pass
class Own(Mixin): pass
class ByAttribute(keras.callbacks.Callback): pass
class ByPackage(Mixin, layers.Layer): pass
class ByAlias(decays.LearningRateSchedule): pass
class ByName(Base): pass
class OfOurs(NAG): pass
class Child(ByName): pass
def build():
    class Inner(keras.Model): pass
"""


def dotted(node: ast.expr) -> str:
    return f"{dotted(node.value)}.{node.attr}" if isinstance(node, ast.Attribute) else getattr(node, "id", "")


def bases_of(source: str, module: str) -> dict[str, list[str]]:
    """Maps the full name of each class in a file, also within functions, to those of its bases."""
    tree, known = ast.parse(source), {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            known |= {alias.asname or alias.name.split(".")[0]: alias.asname and alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            known |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.ClassDef):
            known[node.name] = f"{module}.{node.name}"

    def full(name):
        first, _, rest = name.partition(".")
        return ".".join(filter(None, (known.get(first) or first, rest)))

    classes = [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    return {f"{module}.{node.name}": [full(dotted(base)) for base in node.bases] for node in classes}


def extensions_of_keras(bases: dict[str, list[str]]) -> set[str]:
    """The classes that inherit from Keras, directly or through others of `bases` with the same last name."""
    found, last = set(), None
    while len(found) != last:
        last = len(found)
        short = {name.rpartition(".")[2] for name in found}
        found |= {
            name
            for name, parents in bases.items()
            if any(
                parent.startswith("keras.") or (parent.startswith("keras_bot.") and parent.rpartition(".")[2] in short)
                for parent in parents
            )
        }
    return found


def module_of(path):
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")


@functools.cache
def all_extensions():
    bases = {}
    for path in PACKAGE.rglob("*.py"):
        bases |= bases_of(path.read_text(encoding="utf-8"), module_of(path))
    return sorted(extensions_of_keras(bases))


def test_classes_are_found_however_they_name_their_base():
    ours = {"keras_bot.tricks.nag.NAG": ["keras.optimizers.Optimizer"]}
    found = extensions_of_keras({**bases_of(PLANTED, "keras_bot.planted"), **ours}) - set(ours)
    names = ("ByAttribute", "ByPackage", "ByAlias", "ByName", "OfOurs", "Child", "Inner")
    assert found == {f"keras_bot.planted.{name}" for name in names}


@pytest.mark.parametrize("name", all_extensions())
def test_every_class_has_a_row_or_a_reason(name):
    module, _, own = name.rpartition(".")
    found = getattr(importlib.import_module(module), own)
    rows = next(rows for kind, rows in KINDS.items() if issubclass(found, kind))
    has_row = found in {row.make for row in rows}
    assert has_row != (name in EXCLUDED), f"{name} needs a row in the table of its kind or a reason in EXCLUDED"


def test_exclusions_are_of_existing_classes():
    assert set(EXCLUDED) <= set(all_extensions())
