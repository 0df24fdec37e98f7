"""Figures, tables and pictures of runs with known records."""

import csv
import io
import json
import struct

import pytest

from keras_bot.ablation.plots import draw_curves, draw_table
from keras_bot.ablation.results import RunFigures, mean_curves, read_run, summarise
from keras_bot.ablation.rows import Row
from keras_bot.ablation.tables import as_csv, as_json, as_markdown
from keras_bot.errors import RunError
from keras_bot.recipe import Recipe

ROWS = [
    Row("1_base", "x/1_base.flags", Recipe(), {"top1": 75.87}),
    Row("2_warmup", "x/2_warmup.flags", Recipe(warmup_epochs=5)),
    Row("3_gamma", "x/3_gamma.flags", Recipe(zero_gamma=True)),
]


def figures(value, curve=(0.1, 0.5)):
    return RunFigures(value, max(curve), tuple(curve), (9.0, 2.0, 3.0), 12345, 3_860_000_000)


def summary(mode="cumulative"):
    runs = {
        ("1_base", 0): figures(0.70),
        ("1_base", 1): figures(0.80),
        ("1_base", 2): figures(0.90, (0.2, 0.9)),
        ("2_warmup", 0): figures(0.71),
        ("2_warmup", 1): figures(0.82),
        ("2_warmup", 2): figures(0.93),
        ("3_gamma", 1): figures(0.75),
    }
    failures = {("3_gamma", 0): "The loss became nan (exit code 1)"}
    return summarise(ROWS, [0, 1, 2], runs, failures, metric="top1", mode=mode), runs


def test_the_summary_compares_each_row_with_the_one_above():
    base, warmup, gamma = summary()[0]["rows"]
    assert base["mean"] == pytest.approx(0.8) and base["difference"] is None and base["paper"] == 0.7587
    assert base["interval"] == pytest.approx([0.8 - 0.248414, 0.8 + 0.248414], abs=1e-6)
    assert base["best"] == pytest.approx((0.5 + 0.5 + 0.9) / 3)
    assert warmup["difference"]["to"] == "1_base" and warmup["difference"]["mean"] == pytest.approx(0.02)
    assert gamma["seeds"] == [1] and gamma["interval"] is None and gamma["difference"]["to"] == "2_warmup"
    assert gamma["difference"]["seeds"] == [1] and gamma["difference"]["mean"] == pytest.approx(-0.07)
    assert gamma["failed"] == {"0": "The loss became nan (exit code 1)"}
    assert summary()[0]["timing"]["1_base"] == {"seconds_per_epoch": 2.5}  # without each run's first epoch


def test_leave_one_out_compares_with_the_full_one():
    assert [row["difference"] and row["difference"]["to"] for row in summary("leave_one_out")[0]["rows"]] == [
        None,
        "1_base",
        "1_base",
    ]


def test_markdown_is_a_table_in_percent_with_what_failed_below():
    lines = as_markdown(summary()[0]).splitlines()
    table = [line for line in lines if line.startswith("|")]
    assert len(table) == 5 and len({line.count("|") for line in table}) == 1
    assert table[2] == ("| `1_base` | 80.00 ± 24.84 | – | – | 63.33 | 2.5 | 12,345 | 3.86 | 75.87 | 3 |")
    assert "| 82.00 ± 27.33 | +2.00 ± 2.48 | no |" in table[3]
    assert "| 75.00 | -7.00 | – |" in table[4] and table[4].endswith("| 1 done, 1 failed |")
    assert lines[-1] == "- `3_gamma`, seed 0 failed: The loss became nan (exit code 1)"


def test_csv_and_json_hold_the_same():
    told, _ = summary()
    lines = list(csv.DictReader(io.StringIO(as_csv(told))))
    assert [line["name"] for line in lines] == ["1_base", "2_warmup", "3_gamma"]
    assert [float(line["mean"]) for line in lines] == [row["mean"] for row in told["rows"]]
    assert lines[1]["values"] == "0.71 0.82 0.93" and lines[1]["difference_to"] == "1_base"
    assert lines[1]["excludes_zero"] == "false" and lines[0]["difference"] == ""
    assert lines[2]["failed"] == "seed 0: The loss became nan (exit code 1)"
    assert json.loads(as_json(told)) == told


def size_of(png):
    assert png.startswith(b"\x89PNG")
    return struct.unpack(">II", png[16:24])


def test_the_pictures_are_drawn_with_what_there_is():
    told, runs = summary()
    curves = mean_curves(ROWS, runs)
    assert list(curves) == ["1_base", "2_warmup", "3_gamma"]
    assert curves["1_base"] == [pytest.approx((0.4 / 3, 0.1, 0.2)), pytest.approx((1.9 / 3, 0.5, 0.9))]
    assert min(size_of(draw_table(told))) > 200 and min(size_of(draw_curves(told, curves))) > 400
    nothing = summarise(ROWS, [0], {}, {("1_base", 0): "it failed"}, metric="top1", mode="cumulative")
    assert size_of(draw_table(nothing)) and size_of(draw_curves(nothing, {}))
    assert "| `1_base` | – |" in as_markdown(nothing) and len(as_csv(nothing).splitlines()) == 4


def test_the_paper_is_marked_only_where_there_is_a_figure_of_it():
    told, _ = summary()
    with_it = draw_table(told)
    told["rows"][0]["paper"] = None
    assert draw_table(told) != with_it and "75.87" not in as_markdown(told)


def test_records_are_read(tmp_path):
    told = {"result": {"map": 0.25, "best_map": 0.5}, "network": {"parameters": 7, "flops": None}}
    (tmp_path / "metrics.json").write_text(json.dumps(told))
    (tmp_path / "history.csv").write_text("epoch,val_map,seconds\n1,0.5,9\n2,0.25,3\n")
    assert read_run(tmp_path, "map") == RunFigures(0.25, 0.5, (0.5, 0.25), (9.0, 3.0), 7, None)
    with pytest.raises(RunError, match="Can't read the records"):
        read_run(tmp_path, "top1")
