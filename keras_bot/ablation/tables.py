"""An ablation's table as Markdown, CSV and JSON."""

import csv
import io
import json
import re

from keras_bot.errors import one_line
from keras_bot.training.curves import metric_label

_UNKNOWN = "–"
_COMPARED = {"cumulative": "the row above", "leave_one_out": "the first row"}


def as_json(summary: dict) -> str:
    """Formats the summary of `results.summarise` as JSON."""
    return json.dumps(summary, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def as_markdown(summary: dict) -> str:
    """Formats the table as Markdown, in percent with intervals as ±, followed by the failed runs."""
    label, several = metric_label(summary["metric"]), len(summary["seeds"]) > 1
    columns = ["row", f"{label} (%)", f"difference from {_COMPARED[summary['mode']]} (points)"]
    columns += ["interval excludes 0", "best epoch (%)", "s/epoch", "parameters", "GFLOPs", "paper (%)", "seeds"]
    seeds = ", ".join(map(str, summary["seeds"]))
    caption = f"{label} after the last epoch, seed {seeds}."
    if several:
        caption = (
            f"{label} after the last epoch, mean over seeds {seeds}. ± is the 95 % confidence interval (Student's t); "
            "differences are paired by seed."
        )
    lines = [
        caption,
        "",
        f"| {' | '.join(columns)} |",
        "|---" * len(columns) + "|",
        *(f"| {' | '.join(_cells(row, summary['timing'][row['name']]))} |" for row in summary["rows"]),
    ]
    failed = [
        f"- {_code(row['name'])}, seed {seed} failed: {one_line(reason)}"
        for row in summary["rows"]
        for seed, reason in row["failed"].items()
    ]
    return "\n".join([*lines, *([""] * bool(failed)), *failed]) + "\n"


def _cells(row, timing):
    difference = row["difference"] or {"mean": None, "interval": None, "excludes_zero": None}
    failed = f" finished, {len(row['failed'])} failed" if row["failed"] else ""
    flops, seconds = row["flops"], timing["seconds_per_epoch"]
    return [
        _code(row["name"]).replace("|", r"\|"),
        _with_interval(row["mean"], row["interval"], ""),
        _with_interval(difference["mean"], difference["interval"], "+"),
        {True: "yes", False: "no", None: _UNKNOWN}[difference["excludes_zero"]],
        _with_interval(row["best"], None, ""),
        _UNKNOWN if seconds is None else f"{seconds:.3g}",
        _UNKNOWN if row["parameters"] is None else f"{row['parameters']:,}",
        _UNKNOWN if flops is None else f"{flops / 1e9:.3g}",
        _with_interval(row["paper"], None, ""),
        f"{len(row['seeds'])}{failed}",
    ]


def _code(name):
    """Returns a name as inline code, fenced by more backticks than any run of them in the name."""
    text = one_line(name)
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    pad = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{fence}{pad}{text}{pad}{fence}"


def _with_interval(mean, interval, sign):
    if mean is None:
        return _UNKNOWN
    half_width = f" ± {50 * (interval[1] - interval[0]):.2f}" if interval else ""
    return f"{100 * mean:{sign}.2f}{half_width}"


def as_csv(summary: dict) -> str:
    """Formats one line per row, in fractions; seeds and values are space-separated, unknown cells empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, _flat(summary["rows"][0], {}).keys(), lineterminator="\n")
    writer.writeheader()
    for row in summary["rows"]:
        cells = _flat(row, summary["timing"][row["name"]])
        writer.writerow({name: one_line(cell) if isinstance(cell, str) else cell for name, cell in cells.items()})
    return text.getvalue()


def _flat(row, timing):
    low, high = row["interval"] or (None, None)
    difference = row["difference"] or {}
    difference_low, difference_high = difference.get("interval") or (None, None)
    return {
        "name": row["name"],
        "recipe_file": row["recipe_file"],
        "seeds": " ".join(map(str, row["seeds"])),
        "values": " ".join(map(str, row["values"])),
        "mean": row["mean"],
        "low": low,
        "high": high,
        "difference_to": difference.get("to"),
        "difference": difference.get("mean"),
        "difference_low": difference_low,
        "difference_high": difference_high,
        "excludes_zero": {True: "true", False: "false", None: None}[difference.get("excludes_zero")],
        "best": row["best"],
        "seconds_per_epoch": timing.get("seconds_per_epoch"),
        "parameters": row["parameters"],
        "flops": row["flops"],
        "paper": row["paper"],
        "failed": "; ".join(f"seed {seed}: {reason}" for seed, reason in row["failed"].items()),
    }
