"""The page's first sections: results, facts about the training, speed and recipes."""

import dataclasses
import statistics

from keras_bot.recipe import Recipe
from keras_bot.report.markup import Html, element, table
from keras_bot.report.run_files import Run
from keras_bot.report.text import count, decimal, duration, flops, percent
from keras_bot.training.curves import LABELS


def results(runs: list[Run]) -> Html:
    """Tabulates metrics, best main metric, loss, epochs and training time, one row per run."""
    names = runs[0].metric_names
    main = LABELS.get(names[0], names[0])
    head = ["run", *(LABELS.get(name, name) for name in names), f"best {main}", "loss", "epochs", "training"]
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
    return table("Results on the evaluation set, after the last epoch", head, rows, kind="numbers")


def _best(run):
    best = run.metrics["result"][f"best_{run.main_metric}"]
    epochs = zip(run.column(f"val_{run.main_metric}"), run.column("epoch"), strict=True)
    reached = max(epochs, default=None)  # ties go to the last epoch, as in best.keras
    return percent(best) + (f" (epoch {reached[1]:.0f})" if reached else "")


def facts(runs: list[Run]) -> Html:
    """Tabulates network, data, tricks and versions, one column per run."""
    told = [_facts(run) for run in runs]
    names = list(dict.fromkeys(name for facts in told for name in facts))
    rows = [[name, *(facts.get(name, "–") for facts in told)] for name in names]
    return table("What was trained", ["", *(run.name for run in runs)], rows, kind="facts")


def _facts(run):
    dataset, network, classes = run.metrics["dataset"], run.metrics["network"], len(run.class_names)
    tricks = [element("li", trick) for trick in run.metrics["tricks"]]
    told = {
        "directory": str(run.path),
        "task": run.recipe.task,
        "tricks": element("ul", tricks) if tricks else "none",
        "data set": dataset.get("name", "–"),
        "images": f"{count(dataset.get('train_images'))} to train, {count(dataset.get('eval_images'))} to evaluate",
        "classes": count(classes),
        "network": network.get("name", "–"),
        "parameters": count(network.get("parameters")),
        "multiply-adds an image": flops(network.get("flops")),
        "images that couldn't be decoded": count(len(run.metrics.get("corrupt_images", []))),
        "versions": ", ".join(f"{name} {version}" for name, version in run.metrics["versions"].items()) or "–",
    }
    if told["multiply-adds an image"] == "–":
        del told["multiply-adds an image"]
    return told


def throughput(runs: list[Run]) -> Html:
    """Tabulates images per second, seconds per epoch and total training time."""
    head = ["run", "images/s", "seconds an epoch", "training in all", "epochs"]
    rows = []
    for run in runs:
        result, seconds = run.metrics["result"], run.column("seconds")
        median = decimal(statistics.median(seconds[1:] or seconds), 1) if seconds else "–"
        total = duration(result.get("training_seconds"))
        rows.append([run.name, decimal(result.get("images_per_second"), 1), median, total, count(result.get("epochs"))])
    return table(
        "Speed of the training, evaluation not counted (medians over the epochs but the first)",
        head,
        rows,
        kind="numbers",
    )


def recipes(runs: list[Run]) -> Html:
    """Tabulates the recipe fields that differ from the default in some run; all fields in a collapsed table."""
    default = Recipe().as_text()
    told = [run.recipe.as_text() for run in runs]
    helps = {field.name: field.metadata["help"] for field in dataclasses.fields(Recipe)}
    changed = [name for name in helps if any(own.get(name, "") != default.get(name, "") for own in told)]
    head = ["knob", *(run.name for run in runs), "default"]
    few = [_knob(name, told, default) for name in changed]
    every = [[*_knob(name, told, default), helps[name]] for name in helps]
    differ = " Knobs in which the runs differ are marked with ≠." if len(runs) > 1 else ""
    shown = table(f"What differs from the defaults.{differ}", head, few, kind="recipe") if few else None
    whole = table("The whole recipe", [*head, "what it is"], every, kind="recipe")
    return element("div", shown or element("p", "Every knob is at its default."), _folded("The whole recipe", whole))


def _knob(name, told, default):
    """Builds a row: name (marked if runs differ), each run's value (grey if it is the default) and the default."""
    values = [own.get(name, "") for own in told]
    usual = default.get(name, "")
    cells = [element("td", value or "(empty)", class_="usual" if value == usual else None) for value in values]
    return [f"{name} ≠" if len(set(values)) > 1 else name, *cells, element("td", usual or "(empty)", class_="usual")]


def _folded(title, content):
    return element("details", element("summary", title), content)
