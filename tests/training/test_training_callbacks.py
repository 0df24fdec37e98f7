"""The recorder writes exact rows, metrics and the best network after every epoch; one line per epoch is printed."""

import json
import types

import pytest

from keras_bot.recipe import Recipe
from keras_bot.training import callbacks
from keras_bot.training.callbacks import EpochLine, RunRecorder
from keras_bot.training.checkpoints.run_directory import RunDirectory

LOGS = {
    "loss": 1.25,
    "top1": 0.5,
    "top5": 0.75,
    "val_loss": 1.5,
    "val_top1": 0.25,
    "val_top5": 0.625,
    "learning_rate": 0.1,
}


class Clock:
    """Replaces the `time` module; `now` is the time in seconds."""

    def __init__(self):
        self.now = 100.0

    def perf_counter(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(callbacks, "time", clock)
    return clock


@pytest.fixture
def run(tmp_path):
    return RunDirectory(tmp_path, Recipe())


def build(run=None, **options):
    """Returns a recorder of 80 images per epoch, and the paths to which it saved the best network."""
    saved, corrupt = [], types.SimpleNamespace(names=["broken.jpg"])
    recorder = RunRecorder(run, {"recipe": {"seed": "0"}}, 80, corrupt, saved.append, **options)
    return recorder, saved


def epoch(recorder, clock, number, train_seconds=4.0, test_seconds=1.0, **logs):
    """Runs the callback's events of an epoch, counted from 0."""
    recorder.on_epoch_begin(number)
    clock.now += train_seconds
    recorder.on_test_begin()
    clock.now += test_seconds
    recorder.on_epoch_end(number, {**LOGS, **logs})


def test_a_row_has_the_logs_and_the_training_time_without_the_evaluation(clock):
    recorder, _ = build()
    epoch(recorder, clock, 0, train_seconds=4, test_seconds=9)
    assert recorder.history == [{"epoch": 1, **LOGS, "seconds": 4.0, "images_per_second": 20.0}]


def test_the_time_before_an_interruption_counts_once(clock):
    recorder, _ = build()
    recorder.seconds_before = 6.0
    epoch(recorder, clock, 0)
    epoch(recorder, clock, 1)
    assert [row["seconds"] for row in recorder.history] == [10.0, 4.0]
    assert [row["images_per_second"] for row in recorder.history] == [8.0, 20.0]


def test_the_seconds_so_far_can_be_read_within_an_epoch(clock):
    recorder, _ = build()
    recorder.seconds_before = 2.0
    recorder.on_epoch_begin(0)
    clock.now += 3
    assert recorder.seconds() == 5.0
    recorder.on_test_begin()
    clock.now += 10
    assert recorder.seconds() == 5.0
    recorder.on_epoch_end(0, LOGS)
    recorder.on_epoch_begin(1)
    clock.now += 7
    assert recorder.seconds() == 7.0  # the first epoch's time is forgotten


def test_the_columns_follow_the_tasks_metrics():
    assert build()[0].columns == (*("loss", "top1", "top5", "val_loss", "val_top1", "val_top5", "learning_rate"),)
    assert build(metrics=("map",))[0].columns == ("loss", "map", "val_loss", "val_map", "learning_rate")


def test_logs_outside_the_columns_are_left_out_and_missing_ones_too(clock, run):
    recorder, _ = build(run, metrics=("map",))
    recorder.on_epoch_begin(0)
    clock.now += 4
    recorder.on_epoch_end(0, {"loss": 1.0, "box_loss": 0.3, "val_loss": 2.0, "val_map": 0.5, "learning_rate": 0.1})
    names = ["epoch", "loss", "val_loss", "val_map", "learning_rate", "seconds", "images_per_second"]
    assert list(recorder.history[0]) == names
    assert run.history.read_text() == ",".join(names) + "\n1,1,2,0.5,0.1,4,20\n"


def test_history_csv_has_one_line_per_epoch(clock, run):
    recorder, _ = build(run)
    epoch(recorder, clock, 0, loss=1.23456789)
    epoch(recorder, clock, 1, val_top1=1 / 3)
    assert run.history.read_text() == (
        "epoch,loss,top1,top5,val_loss,val_top1,val_top5,learning_rate,seconds,images_per_second\n"
        "1,1.23457,0.5,0.75,1.5,0.25,0.625,0.1,4,20\n"
        "2,1.25,0.5,0.75,1.5,0.333333,0.625,0.1,4,20\n"
    )


def test_metrics_json_has_the_facts_the_result_and_the_corrupt_images(clock, run):
    recorder, _ = build(run)
    epoch(recorder, clock, 0)
    text = run.metrics.read_text()
    assert text.endswith("}\n") and "\n  " in text
    assert json.loads(text) == {
        "recipe": {"seed": "0"},
        "result": recorder.result(),
        "corrupt_images": ["broken.jpg"],
    }


def test_the_result_is_the_last_epochs_with_the_best_of_all(clock):
    recorder, _ = build()
    epoch(recorder, clock, 0, train_seconds=80, val_top1=0.5)
    epoch(recorder, clock, 1, train_seconds=8, val_top1=0.75)
    epoch(recorder, clock, 2, train_seconds=4.04, val_top1=0.625, val_loss=3.0, val_top5=0.875)
    assert recorder.result() == {
        "top1": 0.625,
        "top5": 0.875,
        "loss": 3.0,
        "best_top1": 0.75,
        "epochs": 3,
        "images_per_second": 14.9,  # the median of 10 and 19.8; the first epoch contains the start-up
        "training_seconds": 92.0,
    }


def test_the_speed_of_a_single_epoch_is_its_own(clock):
    recorder, _ = build()
    epoch(recorder, clock, 0, train_seconds=80)
    assert recorder.result()["images_per_second"] == 1.0


def test_the_result_has_the_tasks_metrics(clock):
    recorder, _ = build(metrics=("mean_iou", "pixel_accuracy"))
    recorder.on_epoch_begin(0)
    clock.now += 4
    recorder.on_epoch_end(0, {**LOGS, "val_mean_iou": 0.5, "val_pixel_accuracy": 0.9})
    result = recorder.result()
    assert list(result)[:4] == ["mean_iou", "pixel_accuracy", "loss", "best_mean_iou"]
    assert (result["mean_iou"], result["pixel_accuracy"], result["best_mean_iou"]) == (0.5, 0.9, 0.5)


@pytest.mark.parametrize(
    ("tops", "saves"),
    [((0.1, 0.2, 0.3), 3), ((0.3, 0.2, 0.1), 1), ((0.2, 0.2, 0.1), 2), ((0.1, 0.3, 0.2), 2)],
)
def test_the_best_network_is_saved_whenever_no_epoch_was_better(tops, saves, clock, run):
    recorder, saved = build(run)
    for number, top in enumerate(tops):
        epoch(recorder, clock, number, val_top1=top, val_top5=1 - top)
    assert saved == [run.best] * saves


def test_workers_without_the_directory_record_but_do_not_write(clock, tmp_path):
    recorder, saved = build(None)
    epoch(recorder, clock, 0)
    assert len(recorder.history) == 1 and saved == [] and list(tmp_path.iterdir()) == []


def test_a_resumed_recorder_continues_the_history(clock, run):
    before = {"epoch": 1, **LOGS, "val_top1": 0.9, "seconds": 4.0, "images_per_second": 20.0}
    recorder, saved = build(run, history=(before,))
    epoch(recorder, clock, 1)
    assert [row["epoch"] for row in recorder.history] == [1, 2]
    assert recorder.result()["best_top1"] == 0.9 and saved == []
    assert len(run.history.read_text().splitlines()) == 3


def test_the_given_history_is_not_changed(clock):
    given = []
    recorder, _ = build(history=given)
    epoch(recorder, clock, 0)
    assert given == []


def test_a_value_that_is_not_finite_is_never_written(clock, run):
    recorder, _ = build(run)
    with pytest.raises(ValueError, match="not JSON compliant"):
        epoch(recorder, clock, 0, val_loss=float("nan"))
    assert not run.metrics.exists()


def test_one_line_per_epoch_is_printed(capsys):
    line = EpochLine(3, ("loss", "val_top1", "missing"))
    line.on_epoch_end(0, {"val_top1": 1 / 3, "loss": 1.25, "other": 9.0})
    assert capsys.readouterr().out == "epoch 1/3 - loss 1.25 - val_top1 0.3333\n"
