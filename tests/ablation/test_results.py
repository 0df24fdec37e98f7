"""Results are read from a run's files; the summary's means, differences and times are exact."""

import json

import pytest

from keras_bot.ablation.results import RunResults, mean_curves, read_results, summarise
from keras_bot.ablation.rows import Row
from keras_bot.errors import RunError
from keras_bot.recipe import Recipe

ROWS = [
    Row("a", "a.flags", Recipe(), {"top1": 76.5}),
    Row("b", "b.flags", Recipe(seed=0, task="classification"), {"": 70.0}),
    Row("c", "c.flags", Recipe(), {"top5": 90.0}),
]


def results(value, best=None, curve=(0.1, 0.2), seconds=(9.0, 2.0, 4.0)):
    return RunResults(value, best or value, curve, seconds, 100, 5000)


def summary(runs, seeds=(0, 1), failures=(), mode="cumulative", rows=ROWS):
    return summarise(rows, seeds, runs, dict(failures), metric="top1", mode=mode)


def test_a_row_over_two_seeds():
    runs = {("a", 0): results(0.5, 0.75), ("a", 1): results(0.7, 0.8, seconds=(5.0, 6.0))}
    found = summary(runs, rows=ROWS[:1])
    row = found["rows"][0]
    assert found["mode"] == "cumulative" and found["task"] == "classification" and found["seeds"] == [0, 1]
    assert found["metric"] == "top1" and found["timing"] == {"a": {"seconds_per_epoch": 4.0}}  # of 2, 4, 6
    interval = row.pop("interval")
    assert interval == pytest.approx([0.6 - 12.7062 * 0.1, 0.6 + 12.7062 * 0.1], abs=1e-4)
    assert row.pop("mean") == pytest.approx(0.6) and row.pop("best") == pytest.approx(0.775)
    assert row == {
        **{"name": "a", "recipe_file": "a.flags", "seeds": [0, 1], "values": [0.5, 0.7], "difference": None},
        **{"parameters": 100, "flops": 5000, "paper": 0.765, "failed": {}},
    }


def test_a_row_without_results():
    found = summary({}, rows=ROWS[:1], failures={("a", 1): "failed"})
    assert found["rows"] == [
        {
            **{"name": "a", "recipe_file": "a.flags", "seeds": [], "values": [], "mean": None, "interval": None},
            **{"difference": None, "best": None, "parameters": None, "flops": None, "paper": 0.765},
            "failed": {"1": "failed"},
        }
    ]
    assert found["timing"] == {"a": {"seconds_per_epoch": None}}


@pytest.mark.parametrize(("mode", "others"), [("cumulative", [None, "a", "b"]), ("leave_one_out", [None, "a", "a"])])
def test_rows_are_compared_with_the_row_above_or_the_first(mode, others):
    runs = {("a", 0): results(0.5), ("b", 0): results(0.6), ("c", 0): results(0.8)}
    differences = [row["difference"] for row in summary(runs, mode=mode)["rows"]]
    assert [each and each["to"] for each in differences] == others
    assert differences[2]["mean"] == pytest.approx(0.2 if mode == "cumulative" else 0.3)
    assert differences[1]["mean"] == pytest.approx(0.1) and differences[1]["seeds"] == [0]


def test_a_row_without_seeds_in_common_has_no_difference():
    runs = {("a", 0): results(0.5), ("b", 1): results(0.6)}
    assert summary(runs, rows=ROWS[:2])["rows"][1]["difference"] is None


def test_only_the_requested_seeds_count():
    runs = {("a", seed): results(0.5 + seed / 10) for seed in range(3)}
    failures = {("a", 5): "failed"}
    row = summary(runs, seeds=(2, 0), rows=ROWS[:1], failures=failures)["rows"][0]
    assert row["seeds"] == [2, 0] and row["values"] == [0.7, 0.5] and row["failed"] == {}


def test_the_papers_value_is_the_metrics_or_the_unnamed_one():
    assert [row["paper"] for row in summary({})["rows"]] == [0.765, 0.7, None]


def test_the_time_of_a_single_epoch_counts():
    assert summary({("a", 0): results(0.5, seconds=(9.1234,))})["timing"]["a"] == {"seconds_per_epoch": 9.123}


def test_mean_curves_have_the_lowest_and_the_highest_seed():
    runs = {("a", 0): results(0.5, curve=(0.1, 0.6)), ("a", 1): results(0.5, curve=(0.3, 0.2))}
    curves = mean_curves(ROWS, runs)
    assert list(curves) == ["a"]
    assert [pytest.approx(point) for point in curves["a"]] == [(0.2, 0.1, 0.3), (0.4, 0.2, 0.6)]


METRICS = {"result": {"top1": 0.5, "best_top1": 0.7}, "network": {"parameters": 10, "flops": None}}


def write(folder, metrics, history="epoch,val_top1,val_top5,seconds\n1,0.6,0.8,5\n2,0.5,0.9,2\n"):
    (folder / "metrics.json").write_text(json.dumps(metrics))
    (folder / "history.csv").write_text(history)


def test_results_are_read(tmp_path):
    write(tmp_path, METRICS)
    expected = RunResults(0.5, 0.7, curve=(0.6, 0.5), seconds=(5.0, 2.0), parameters=10, flops=None)
    assert read_results(tmp_path, "top1") == expected


def test_the_best_of_a_metric_that_selects_no_network_is_its_curves(tmp_path):
    write(tmp_path, {**METRICS, "result": {"top5": 0.9, "best_top1": 0.7}})
    assert read_results(tmp_path, "top5").best == 0.9 and read_results(tmp_path, "top5").curve == (0.8, 0.9)


@pytest.mark.parametrize(
    ("metrics", "history"),
    [
        ([], "epoch,val_top1,seconds\n1,1,1\n"),
        ({"network": METRICS["network"]}, "epoch,val_top1,seconds\n1,1,1\n"),
        ({"result": METRICS["result"]}, "epoch,val_top1,seconds\n1,1,1\n"),
        (METRICS, "epoch,val_top5,seconds\n1,1,1\n"),
        (METRICS, "epoch,val_top1\n1,1\n"),
        (METRICS, ""),
    ],
)
def test_damaged_results_are_an_error(metrics, history, tmp_path):
    write(tmp_path, metrics, history)
    with pytest.raises(RunError) as raised:
        read_results(tmp_path, "top1")
    assert str(raised.value).startswith(f"Cannot read the results in {tmp_path}: ")
    assert str(raised.value).endswith(". Its files were edited or damaged.")
