"""`train` calls the parts of a training in order, each with the right arguments; nothing is trained here."""

import contextlib
import types

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_bot import trainer
from keras_bot.bag import active_tricks
from keras_bot.errors import MisuseError
from keras_bot.recipe import Recipe
from keras_bot.trainer import describe, train
from keras_bot.training.preflight import versions

RECIPE = Recipe(batch_size=8, seed=7, no_bias_decay=True, image_size=4)


def source(split, size):
    class_names = ("a", "b", "c")
    facts = {"name": f"flowers {split}", "size": size, "num_classes": 3, "class_names": class_names}
    return types.SimpleNamespace(**facts, fingerprint=lambda: f"checksum of {split}")


TRAIN, EVAL = source("train", 41), source("eval", 9)


class FakeTask:
    """Records its calls in `events` and returns names of the parts."""

    name, metrics = "classification", ("top1",)

    def __init__(self, events):
        self.events = events

    def open_source(self, recipe, split, strategy=None, class_names=()):
        self.events.append(("open", split, strategy, class_names))
        np.random.random()  # preparing a data set also draws random numbers
        return {"train": TRAIN, "eval": EVAL}[split]

    def __getattr__(self, name):
        def call(*arguments):
            self.events.append((name, *arguments, self.in_scope))
            if name == "build_network":
                self.first_draw = np.random.random()
            return f"result of {name}"

        return call

    in_scope = False


class FakeRun(contextlib.AbstractContextManager):
    """Records the calls of `begin`, `fit` and `finish`."""

    corrupt = "the log"

    def __init__(self, events, task, recipe, run_dir, **options):
        self.events = events
        self.events.append(("run", recipe, run_dir, options))

        @contextlib.contextmanager
        def scope():
            task.in_scope = True
            yield
            task.in_scope = False

        self.strategy = types.SimpleNamespace(workers=2, scope=scope)

    def __exit__(self, *error):
        self.events.append("exit")

    def begin(self, *arguments):
        self.events.append(("begin", *arguments))

    def fit(self, *arguments):
        self.events.append(("fit", *arguments))

    def finish(self, *arguments):
        self.events.append(("finish", *arguments))
        return {"top1": 0.5}


@pytest.fixture
def fakes(monkeypatch):
    """A task, and the list of events of a training without its expensive parts."""
    events = []
    task = FakeTask(events)

    def replace(name):
        def call(*arguments, **options):
            events.append((name, *arguments, *([options] if options else []), task.in_scope))
            return f"result of {name}"

        monkeypatch.setattr(trainer, name, call)

    for name in ("build_schedule", "build_optimizer", "compile_trainee"):
        replace(name)
    monkeypatch.setattr(trainer, "describe", lambda *arguments: events.append(("describe", *arguments)) or "the facts")
    monkeypatch.setattr(
        trainer, "TrainingRun", lambda *arguments, **options: FakeRun(events, task, *arguments, **options)
    )
    return task, events


def test_a_training_has_its_parts_in_order(fakes):
    task, events = fakes
    assert train(RECIPE, "runs/one", task=task, progress_bar=False) == {"top1": 0.5}
    strategy = events[1][2]
    network, teacher, trainee = (f"result of {name}" for name in ("build_network", "load_teacher", "build_trainee"))
    parts = {"losses": "result of build_losses", "step_transform": "result of build_step_transform"}
    fit = events[-3]
    assert events == [
        ("run", RECIPE, "runs/one", {"resume": False, "overwrite": False}),
        ("open", "train", strategy, ()),
        ("open", "eval", strategy, ("a", "b", "c")),
        ("build_network", RECIPE, TRAIN, True),
        ("build_schedule", RECIPE, 5, True),
        ("build_optimizer", RECIPE, "result of build_schedule", network, True),
        ("build_losses", TRAIN, True),
        ("build_step_transform", RECIPE, True),
        ("load_teacher", RECIPE, TRAIN, strategy, True),
        ("build_trainee", RECIPE, network, teacher, True),
        ("compile_trainee", RECIPE, trainee, network, "result of build_optimizer", strategy, parts, True),
        ("describe", RECIPE, network, TRAIN, EVAL),
        ("begin", task, network, trainee, "the facts", 5),
        ("build_evaluator", RECIPE, EVAL, "the log", False),
        ("evaluation_data", RECIPE, EVAL, "the log", strategy, False),
        fit,
        ("finish", trainee, "result of build_evaluator"),
        "exit",
    ]
    name, fitted, train_data, *rest = fit
    assert (name, fitted, *rest) == ("fit", trainee, "result of evaluation_data", "result of build_evaluator", False)
    events.clear()
    train_data(2, 3)
    assert events == [("training_data", RECIPE, TRAIN, "the log", strategy, 2, 3, False)]


@pytest.mark.parametrize("flag", ["resume", "overwrite"])
def test_the_flags_reach_the_run(flag, fakes):
    task, events = fakes
    train(RECIPE, "runs/one", task=task, **{flag: True})
    assert events[0][-1] == {"resume": False, "overwrite": False, flag: True}
    assert next(event for event in events if event[0] == "fit")[-1] is None


def test_the_seed_is_set_after_the_data_are_opened(fakes):
    task, _ = fakes
    train(RECIPE, "runs/one", task=task)
    drawn = keras.random.normal((2,), seed=keras.random.SeedGenerator())
    np.random.seed(7)
    assert task.first_draw == np.random.random()
    keras.utils.set_random_seed(7)
    np.testing.assert_array_equal(drawn, keras.random.normal((2,), seed=keras.random.SeedGenerator()))


def test_shards_by_file_have_a_workers_own_steps(fakes):
    task, events = fakes
    recipe = Recipe(batch_size=8, shard_by="file")
    train(recipe, "runs/one", task=task)
    assert ("build_schedule", recipe, 10, True) in events


def test_the_recipes_task_is_the_default(fakes, monkeypatch):
    task, events = fakes
    found = []
    monkeypatch.setattr(trainer, "find_task", lambda name: found.append(name) or task)
    train(RECIPE, "runs/one")
    assert found == ["classification"] and events[-1] == "exit"


def test_a_task_other_than_the_recipes_is_refused(fakes):
    task, events = fakes
    with pytest.raises(MisuseError) as raised:
        train(Recipe(task="segmentation"), "runs/one", task=task)
    message = "The recipe's task is segmentation, but `task` is for classification. Drop one."
    assert str(raised.value) == message and events == []


@pytest.mark.parametrize("task", ["classification", "detection"])
def test_the_facts_of_a_run(task):
    inputs = keras.Input((4, 4, 3))
    outputs = keras.layers.BatchNormalization()(keras.layers.Conv2D(2, 3, use_bias=False)(inputs))
    model = keras.Model(inputs, outputs)
    recipe = Recipe(image_size=4, task=task, no_bias_decay=True)
    facts = describe(recipe, model, TRAIN, EVAL)
    assert facts == {
        "recipe": recipe.as_text(),
        "tricks": active_tricks(recipe),
        "dataset": {
            "name": "flowers train",
            "train_images": 41,
            "eval_images": 9,
            "class_names": ["a", "b", "c"],
            "train_checksum": "checksum of train",
            "eval_checksum": "checksum of eval",
        },
        "network": {
            "name": "resnet50_a",
            "parameters": 3 * 3 * 3 * 2 + 4,
            "flops": 2 * 2 * 54 if task == "classification" else None,
        },
        "versions": versions(),
    }
    assert facts["tricks"] and facts["versions"]["tensorflow"] == tf.__version__
