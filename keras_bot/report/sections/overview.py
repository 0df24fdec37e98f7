"""The page's first sections: results, training settings, speed and recipes."""

import dataclasses
import statistics

from keras_bot.recipe import Recipe
from keras_bot.report.formatting import count, decimal, duration, flops, percent
from keras_bot.report.markup import Html, element, table
from keras_bot.report.run_files import RunRecord
from keras_bot.training.curves import metric_label


def results(runs: list[RunRecord]) -> Html:
    """Tabulates metrics, best main metric, loss, epochs and training time, one row per run."""
    names = runs[0].metric_names
    head = ["run", *map(metric_label, names), f"best {metric_label(names[0])}", "loss", "epochs", "training time"]
    rows = [
        [
            run.name,
            *(percent(run.metrics["result"].get(name)) for name in names),
            _best(run),
            decimal(run.metrics["result"].get("loss")),
            count(run.metrics["result"].get("epochs")),
            duration(run.metrics["result"].get("training_seconds")),
        ]
        for run in runs
    ]
    return table("Results on the evaluation set after the last epoch", head, rows, kind="numbers")


def _best(run):
    best = run.metrics["result"][f"best_{run.main_metric}"]
    epochs = zip(run.column(f"val_{run.main_metric}"), run.column("epoch"), strict=True)
    best_epoch = max(epochs, default=None)  # ties go to the last epoch, as in best.keras
    return percent(best) + (f" (epoch {best_epoch[1]:.0f})" if best_epoch else "")


def facts(runs: list[RunRecord]) -> Html:
    """Tabulates network, data, tricks and versions, one column per run."""
    columns = [_facts(run) for run in runs]
    names = list(dict.fromkeys(name for column in columns for name in column))
    rows = [[name, *(column.get(name, "–") for column in columns)] for name in names]
    return table("Network, data and tricks", ["", *(run.name for run in runs)], rows, kind="facts")


def _facts(run):
    dataset, network = run.metrics["dataset"], run.metrics["network"]
    tricks = [element("li", trick) for trick in run.metrics["tricks"]]
    values = {
        "run directory": str(run.path),
        "task": run.recipe.task,
        "tricks": element("ul", tricks) if tricks else "none",
        "data set": dataset.get("name", "–"),
        "images": f"{count(dataset.get('train_images'))} training, {count(dataset.get('eval_images'))} evaluation",
        "classes": count(len(run.class_names)),
        "network": network.get("name", "–"),
        "parameters": count(network.get("parameters")),
    }
    if network.get("flops") is not None:
        values["multiply-adds per image"] = flops(network["flops"])
    values["images that could not be decoded"] = count(len(run.metrics.get("corrupt_images", [])))
    versions = ", ".join(f"{name} {version}" for name, version in run.metrics["versions"].items())
    return {**values, "versions": versions or "–"}


def throughput(runs: list[RunRecord]) -> Html:
    """Tabulates images per second, seconds per epoch and total training time."""
    head = ["run", "images/s", "seconds per epoch", "total training time", "epochs"]
    rows = []
    for run in runs:
        result, seconds = run.metrics["result"], run.column("seconds")
        median = decimal(statistics.median(seconds[1:] or seconds), 1) if seconds else "–"
        total = duration(result.get("training_seconds"))
        rows.append([run.name, decimal(result.get("images_per_second"), 1), median, total, count(result.get("epochs"))])
    caption = "Training speed without evaluation (images/s and seconds per epoch: median without the first epoch)"
    return table(caption, head, rows, kind="numbers")


def recipes(runs: list[RunRecord]) -> Html:
    """Tabulates the recipe fields that differ from the default in at least one run; all fields in a collapsed table."""
    default = Recipe().as_text()
    values = [run.recipe.as_text() for run in runs]
    helps = {field.name: field.metadata["help"] for field in dataclasses.fields(Recipe)}
    changed = [name for name in helps if any(fields.get(name, "") != default.get(name, "") for fields in values)]
    head = ["field", *(run.name for run in runs), "default"]
    changed_rows = [_field_row(name, values, default) for name in changed]
    all_rows = [[*_field_row(name, values, default), helps[name]] for name in helps]
    caption = "Fields with non-default values." + (" ≠: differs between the runs." if len(runs) > 1 else "")
    short = table(caption, head, changed_rows, kind="recipe") if changed else None
    full = table("All fields of the recipe", [*head, "meaning"], all_rows, kind="recipe")
    none_changed = element("p", "All fields have their default values.")
    return element("div", short or none_changed, element("details", element("summary", "All fields"), full))


def _field_row(name, values, default):
    """Builds a row: name (marked if runs differ), each run's value (grey if it is the default) and the default."""
    own_values, default_value = [fields.get(name, "") for fields in values], default.get(name, "")
    cells = [
        element("td", value or "(empty)", class_="default" if value == default_value else None)
        for value in [*own_values, default_value]
    ]
    return [f"{name} ≠" if len(set(own_values)) > 1 else name, *cells]
