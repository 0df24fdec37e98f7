"""The table of callbacks.

Keras never serializes callbacks, so there is nothing to check about their configs: all rows are without one.
"""

import dataclasses
import json
import types
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from contracts.checks import Row, refuse
from keras_bot.recipe import Recipe
from keras_bot.tasks.detection.task import EvaluateBoxes
from keras_bot.tasks.segmentation.task import KeepFigures
from keras_bot.training.callbacks import EpochLine, RunRecorder
from keras_bot.training.checkpoints.run_directory import RunDirectory
from keras_bot.training.checkpoints.saver import Saver
from keras_bot.training.distributed.selection import build_strategy
from keras_bot.training.evaluate import ExactLoss
from keras_bot.tricks import LearningRateLog, MixUp, MixUpOff, StopOnNonFinite

EPOCHS, STEPS, BATCH, RATE = 2, 3, 2, 0.125  # of the training in `test_callbacks.py`
BOX = [[2.0, 3.0, 12.0, 13.0]]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class CallbackRow(Row):
    """A callback.

    Attributes:
        arguments: folder -> constructor arguments.
        logs: what the callback adds to the logs of an epoch.
        removed: names that it removes.
        check: callback, folder and printed text -> None; asserts what the training leaves.
        one_run: why the same callback is not used for a second training, "" if it can be.
    """

    arguments: Callable = lambda folder: {}
    logs: dict
    removed: tuple[str, ...] = ()
    check: Callable = lambda callback, folder, printed: None
    one_run: str = ""


def mixup_is_on_again(callback, folder, printed):
    assert float(callback.layer.enabled) == 1  # for a training without the callback


def recorder(folder, run=None):
    images = {"images_per_epoch": STEPS * BATCH, "corrupt": types.SimpleNamespace(names=["broken.jpg"])}
    metrics = {"metrics": ("mean_iou",), "history": [], "facts": {"dataset": {"name": "tiny"}}}
    return {"run": run, "save_best": lambda path: path.write_text("best"), **images, **metrics}


def run_files_are_written(callback, folder, printed):
    lines = callback.run.history.read_text().splitlines()
    assert lines[0].startswith("epoch,loss,mean_iou,val_loss,val_mean_iou,seconds")
    assert [line.split(",")[0] for line in lines[1:]] == ["1", "2"]
    written = json.loads(callback.run.metrics.read_text())
    assert written["result"] == callback.result() and written["corrupt_images"] == ["broken.jpg"]
    assert written["result"]["best_mean_iou"] == max(row["val_mean_iou"] for row in callback.history)
    assert callback.run.best.read_text() == "best" and written["dataset"] == {"name": "tiny"}


def lines_are_printed(callback, folder, printed):
    assert [line.split(" - ")[0] for line in printed.splitlines()] == ["epoch 1/2", "epoch 2/2"]
    assert all(line.split(" - ")[1].startswith("val_loss 0.") for line in printed.splitlines())


def saver(folder):
    checkpoints = types.SimpleNamespace(saved=[])
    checkpoints.save = checkpoints.saved.append
    strategy = build_strategy(Recipe(strategy="one_device", batch_size=BATCH))
    timer = RunRecorder(**recorder(folder))
    timer.on_epoch_begin(0)
    options = {"strategy": strategy, "steps_per_epoch": STEPS, "every": 2, "progress": {}}
    return {"checkpoints": checkpoints, "recorder": timer, **options}


def states_are_saved(callback, folder, printed):
    places = [(progress["epochs"], progress["step"]) for progress in callback._checkpoints.saved]
    assert places[:4] == [(0, 2), (1, 0), (1, 1), (2, 0)]


def boxes(folder):
    annotations = types.SimpleNamespace(of=lambda index: (np.array(BOX), np.array([0]), np.array([False])))
    source = types.SimpleNamespace(class_names=("cat", "dog"), annotations=annotations, size=1)
    targets = {"scale": np.ones((1, 2), "float32"), "index": [0], "shape": np.array([[16.0, 16.0]], "float32")}
    batch = (np.zeros((1, 16, 16, 3), "float32"), targets, np.ones(1, "float32"))
    return {"recipe": Recipe(), "source": source, "build_data": lambda: tf.data.Dataset.from_tensors(batch)}


def figures_are_kept(callback, folder, printed):
    assert set(callback._figures["per_class"]) == {"below", "above"} and callback._figures["pixels"]["below"] > 0


ROWS = [
    CallbackRow(
        make=MixUpOff,
        arguments=lambda folder: {"layer": MixUp(), "last_epochs": 1},
        logs={},
        check=mixup_is_on_again,
        refused=(
            *(refuse(last_epochs=wrong) for wrong in (0, -1)),
            refuse(
                "layer must be a keras_bot.tricks.MixUp",
                "received <Dense",
                built=lambda: {"layer": keras.layers.Dense(1)},
            ),
        ),
    ),
    CallbackRow(make=LearningRateLog, logs={"learning_rate": RATE}),
    CallbackRow(make=StopOnNonFinite, logs={}),
    CallbackRow(make=ExactLoss, logs={}, removed=("cross_entropy", "val_cross_entropy")),
    CallbackRow(
        make=EpochLine,
        arguments=lambda folder: {"epochs": EPOCHS, "columns": ("val_loss", "top1")},
        logs={},
        check=lines_are_printed,
    ),
    CallbackRow(
        make=RunRecorder,
        defaults={"history": (), "metrics": ("top1", "top5")},
        arguments=lambda folder: recorder(folder, RunDirectory(folder, Recipe())),
        logs={},
        check=run_files_are_written,
        one_run="It records the history of one run.",
    ),
    CallbackRow(make=Saver, arguments=saver, logs={}, check=states_are_saved),
    CallbackRow(make=EvaluateBoxes, arguments=boxes, logs={"val_map": 1.0}),
    CallbackRow(
        make=KeepFigures,
        arguments=lambda folder: {
            "source": types.SimpleNamespace(class_names=("below", "above")),
            "build_data": lambda: None,
        },
        logs={},
        check=figures_are_kept,
    ),
]
