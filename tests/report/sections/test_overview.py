"""The tables of results, facts, speed and recipes have each run's numbers in the right cells."""

import dataclasses
import pathlib

from html_tables import read_tables

from keras_bot.recipe import Recipe
from keras_bot.report.run_files import RunRecord
from keras_bot.report.sections.overview import facts, recipes, results, throughput

METRICS = {
    "tricks": ["cosine <5.1>", "mixup"],
    "dataset": {"name": "flowers", "train_images": 1000, "eval_images": 60, "class_names": ["a", "b"]},
    "network": {"name": "resnet50_d", "parameters": 25576264, "flops": 4330000000},
    "versions": {"keras": "3.15", "tensorflow": "2.21"},
    "result": {
        **{"top1": 0.3, "top5": 0.625, "loss": 0.71, "best_top1": 0.4, "epochs": 3},
        **{"training_seconds": 3725, "images_per_second": 50.04},
    },
    "corrupt_images": ["x"],
}
HISTORY = [
    {"epoch": 1.0, "val_top1": 0.1, "seconds": 90.0},
    {"epoch": 2.0, "val_top1": 0.4, "seconds": 30.0},
    {"epoch": 3.0, "val_top1": 0.4, "seconds": 20.0},
]
ONE = RunRecord("one", pathlib.Path("runs/one"), Recipe(), METRICS, HISTORY)
EMPTY = RunRecord(
    "two",
    pathlib.Path("runs/two"),
    Recipe(schedule="cosine", seed=3),
    {
        **{"tricks": [], "versions": {}, "network": {}, "dataset": {"class_names": ["a", "b", "c"]}},
        "result": {"best_top1": 0.5},
    },
    [],
)


def test_the_results_of_each_run():
    (found,) = read_tables(results([ONE, EMPTY]))
    assert found.caption == "Results on the evaluation set after the last epoch" and found.kind == "numbers"
    assert found.head == ["run", "top-1", "top-5", "best top-1", "loss", "epochs", "training time"]
    assert found.rows == [
        ["one", "30.00 %", "62.50 %", "40.00 % (epoch 3)", "0.710", "3", "1 h 2 min"],
        ["two", "–", "–", "50.00 %", "–", "–", "–"],
    ]


def test_the_results_of_another_task():
    result = {"mean_iou": 0.5, "pixel_accuracy": 0.75, "best_mean_iou": 0.5}
    (found,) = read_tables(results([dataclasses.replace(EMPTY, metrics={**EMPTY.metrics, "result": result})]))
    assert found.head[:4] == ["run", "mIoU", "pixel accuracy", "best mIoU"]
    assert found.rows[0][:4] == ["two", "50.00 %", "75.00 %", "50.00 %"]


def test_the_facts_of_each_run():
    (found,) = read_tables(facts([ONE, EMPTY]))
    assert found.head == ["", "one", "two"] and found.caption == "Network, data and tricks"
    assert found.rows == [
        ["run directory", "runs/one", "runs/two"],
        ["task", "classification", "classification"],
        ["tricks", "cosine <5.1>mixup", "none"],
        ["data set", "flowers", "–"],
        ["images", "1,000 training, 60 evaluation", "– training, – evaluation"],
        ["classes", "2", "3"],
        ["network", "resnet50_d", "–"],
        ["parameters", "25,576,264", "–"],
        ["multiply-adds per image", "4.33 G", "–"],
        ["images that could not be decoded", "1", "0"],
        ["versions", "keras 3.15, tensorflow 2.21", "–"],
    ]


def test_the_speed_of_each_run():
    (found,) = read_tables(throughput([ONE, EMPTY]))
    assert found.head == ["run", "images/s", "seconds per epoch", "total training time", "epochs"]
    assert found.rows == [["one", "50.0", "25.0", "1 h 2 min", "3"], ["two", "–", "–", "–", "–"]]
    single = dataclasses.replace(ONE, history=HISTORY[:1])
    assert read_tables(throughput([single]))[0].rows[0][2] == "90.0"


def test_only_changed_fields_are_in_the_short_table():
    short, full = read_tables(recipes([ONE, EMPTY]))
    assert short.head == ["field", "one", "two", "default"]
    assert short.rows == [["schedule ≠", "step", "cosine", "step"], ["seed ≠", "0", "3", "0"]]
    assert short.caption == "Fields with non-default values. ≠: differs between the runs."
    assert full.head == [*short.head, "meaning"] and len(full.rows) == len(dataclasses.fields(Recipe))
    by_name = {row[0]: row[1:] for row in full.rows}
    assert by_name["epochs"] == ["120", "120", "120", "number of epochs (2.1; 200 with mixup, 5.4)"]
    assert by_name["data_dir"][:3] == ["(empty)"] * 3 and by_name["distill_hard_weight"][:3] == ["(empty)"] * 3


def test_runs_of_one_recipe_do_not_differ():
    recipe = Recipe(seed=5)
    runs = [dataclasses.replace(run, recipe=recipe) for run in (ONE, EMPTY)]
    (short, _), one = read_tables(recipes(runs)), read_tables(recipes(runs[:1]))[0]
    assert short.rows == [["seed", "5", "5", "0"]] and one.rows == [["seed", "5", "0"]]
    assert one.caption == "Fields with non-default values."


def test_default_values_are_grey_and_a_default_recipe_has_no_short_table():
    page = recipes([ONE, EMPTY])
    assert '<td class="default">step</td><td>cosine</td><td class="default">step</td>' in page
    plain = recipes([ONE])
    assert len(read_tables(plain)) == 1 and "<p>All fields have their default values.</p>" in plain
