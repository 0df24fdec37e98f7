"""Results, tables and plots of runs with known metrics."""

import csv
import io
import json
import struct

import pytest

from keras_bot.ablation.plots import draw_mean_curves, draw_table
from keras_bot.ablation.results import RunResults, mean_curves, read_results, summarise
from keras_bot.ablation.rows import Row
from keras_bot.ablation.tables import as_csv, as_json, as_markdown
from keras_bot.errors import RunError
from keras_bot.recipe import Recipe

ROWS = [
    Row("1_base", "x/1_base.flags", Recipe(), {"top1": 75.87}),
    Row("2_warmup", "x/2_warmup.flags", Recipe(warmup_epochs=5)),
    Row("3_gamma", "x/3_gamma.flags", Recipe(zero_gamma=True)),
]


def run_results(value, curve=(0.1, 0.5)):
    return RunResults(value, max(curve), tuple(curve), (9.0, 2.0, 3.0), 12345, 3_860_000_000)


def make_summary(mode="cumulative"):
    runs = {
        ("1_base", 0): run_results(0.70),
        ("1_base", 1): run_results(0.80),
        ("1_base", 2): run_results(0.90, (0.2, 0.9)),
        ("2_warmup", 0): run_results(0.71),
        ("2_warmup", 1): run_results(0.82),
        ("2_warmup", 2): run_results(0.93),
        ("3_gamma", 1): run_results(0.75),
    }
    failures = {("3_gamma", 0): "The loss became nan (exit code 1)"}
    return summarise(ROWS, [0, 1, 2], runs, failures, metric="top1", mode=mode), runs


def test_cumulative_rows_are_compared_with_the_row_above():
    base, warmup, gamma = make_summary()[0]["rows"]
    assert base["mean"] == pytest.approx(0.8) and base["difference"] is None and base["paper"] == 0.7587
    assert base["interval"] == pytest.approx([0.8 - 0.248414, 0.8 + 0.248414], abs=1e-6)
    assert base["best"] == pytest.approx((0.5 + 0.5 + 0.9) / 3)
    assert warmup["difference"]["to"] == "1_base" and warmup["difference"]["mean"] == pytest.approx(0.02)
    assert gamma["seeds"] == [1] and gamma["interval"] is None and gamma["difference"]["to"] == "2_warmup"
    assert gamma["difference"]["seeds"] == [1] and gamma["difference"]["mean"] == pytest.approx(-0.07)
    assert gamma["failed"] == {"0": "The loss became nan (exit code 1)"}
    assert make_summary()[0]["timing"]["1_base"] == {"seconds_per_epoch": 2.5}  # without each run's first epoch


def test_leave_one_out_rows_are_compared_with_the_first():
    assert [row["difference"] and row["difference"]["to"] for row in make_summary("leave_one_out")[0]["rows"]] == [
        None,
        "1_base",
        "1_base",
    ]


def test_markdown_is_in_percent_with_failed_runs_below():
    lines = as_markdown(make_summary()[0]).splitlines()
    table = [line for line in lines if line.startswith("|")]
    assert len(table) == 5 and len({line.count("|") for line in table}) == 1
    assert table[2] == ("| `1_base` | 80.00 ± 24.84 | – | – | 63.33 | 2.5 | 12,345 | 3.86 | 75.87 | 3 |")
    assert "| 82.00 ± 27.33 | +2.00 ± 2.48 | no |" in table[3]
    assert "| 75.00 | -7.00 | – |" in table[4] and table[4].endswith("| 1 finished, 1 failed |")
    assert lines[-1] == "- `3_gamma`, seed 0 failed: The loss became nan (exit code 1)"


def test_csv_and_json_have_the_same_content():
    summary, _ = make_summary()
    lines = list(csv.DictReader(io.StringIO(as_csv(summary))))
    assert [line["name"] for line in lines] == ["1_base", "2_warmup", "3_gamma"]
    assert [float(line["mean"]) for line in lines] == [row["mean"] for row in summary["rows"]]
    assert lines[1]["values"] == "0.71 0.82 0.93" and lines[1]["difference_to"] == "1_base"
    assert lines[1]["excludes_zero"] == "false" and lines[0]["difference"] == ""
    assert lines[2]["failed"] == "seed 0: The loss became nan (exit code 1)"
    assert json.loads(as_json(summary)) == summary


def size_of(png):
    assert png.startswith(b"\x89PNG")
    return struct.unpack(">II", png[16:24])


def test_plots_are_drawn_with_missing_runs():
    summary, runs = make_summary()
    curves = mean_curves(ROWS, runs)
    assert list(curves) == ["1_base", "2_warmup", "3_gamma"]
    assert curves["1_base"] == [pytest.approx((0.4 / 3, 0.1, 0.2)), pytest.approx((1.9 / 3, 0.5, 0.9))]
    assert min(size_of(draw_table(summary))) > 200 and min(size_of(draw_mean_curves(summary, curves))) > 400
    empty = summarise(ROWS, [0], {}, {("1_base", 0): "it failed"}, metric="top1", mode="cumulative")
    assert size_of(draw_table(empty)) and size_of(draw_mean_curves(empty, {}))
    assert "| `1_base` | – |" in as_markdown(empty) and len(as_csv(empty).splitlines()) == 4


def test_the_papers_value_is_drawn_only_if_known():
    summary, _ = make_summary()
    with_paper = draw_table(summary)
    summary["rows"][0]["paper"] = None
    assert draw_table(summary) != with_paper and "75.87" not in as_markdown(summary)


def test_results_are_read_from_a_run_directory(tmp_path):
    metrics = {"result": {"map": 0.25, "best_map": 0.5}, "network": {"parameters": 7, "flops": None}}
    (tmp_path / "metrics.json").write_text(json.dumps(metrics))
    (tmp_path / "history.csv").write_text("epoch,val_map,seconds\n1,0.5,9\n2,0.25,3\n")
    assert read_results(tmp_path, "map") == RunResults(0.25, 0.5, (0.5, 0.25), (9.0, 3.0), 7, None)
    with pytest.raises(RunError, match="Cannot read the results"):
        read_results(tmp_path, "top1")
