"""The report: a self-contained HTML page about one or several runs, which needs no network access."""

import numpy as np

from keras_bot import __version__
from keras_bot.errors import MisuseError
from keras_bot.report.markup import Html, element, join
from keras_bot.report.run_files import Run
from keras_bot.report.sections import calibration as certainty
from keras_bot.report.sections import mistakes, overview, progress
from keras_bot.report.sections.task_files import classes_and_pictures
from keras_bot.report.style import SCRIPT, STYLE
from keras_bot.report.text import count, duration, flops, percent
from keras_bot.training.curves import LABELS

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


def check_one_task(runs: list[Run]):
    """Raises MisuseError unless all runs have the same task."""
    if len({run.recipe.task for run in runs}) > 1:
        told = " and ".join(f"{run.path} ({run.recipe.task})" for run in runs)
        raise MisuseError(f"Expected runs of one task, received {told}. Make a page of each task.")


def build_page(runs: list[Run]) -> tuple[list[Run], Html]:
    """Returns the runs, with notes on everything missing, and the page, in which all text from files is escaped.

    Args:
        runs: at least one, all of one task.
    """
    runs, sections = _sections(runs)
    title = runs[0].name if len(runs) == 1 else f"{len(runs)} runs: {', '.join(run.name for run in runs)}"
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        element("title", f"{title} – keras_bot"),
        element("style", Html(STYLE)),
    )
    links = [element("li", element("a", heading, href=f"#{name}")) for name, heading, _ in sections]
    top = element(
        "header",
        element("h1", title),
        _tiles(runs[0]) if len(runs) == 1 else None,
        element("nav", element("ul", links), aria_label="parts of the page"),
        _notes(runs),
    )
    body = [
        element("section", element("h2", heading, id=name), content, aria_labelledby=name)
        for name, heading, content in sections
    ]
    script = element("script", Html(SCRIPT))
    told = element("footer", f"Made by keras-bot report, keras_bot {__version__}, of the files in the run directories.")
    page = element("html", head, element("body", top, element("main", body), told, script), lang="en")
    return runs, join([Html("<!doctype html>\n"), page, "\n"])


def _sections(runs) -> tuple[list[Run], list[tuple[str, str, Html]]]:
    """Returns the runs, with notes on missing parts, and (id, heading, content) of each section of the page."""
    parts = [
        ("results", "Results", join([overview.results(runs), overview.facts(runs)])),
        ("recipe", "Recipe", overview.recipes(runs)),
        ("curves", "Curves", progress.curves(runs)),
        ("speed", "Speed", overview.throughput(runs)),
    ]
    if runs[0].recipe.task == "classification":
        parts += _of_classifiers([run for run in runs if run.predictions], runs)
    else:
        shown = []
        for place, run in enumerate(runs):
            content, missing = classes_and_pictures(run)
            shown.append(join([element("h3", run.name) if len(runs) > 1 else None, content]))
            for note in missing:
                runs = [*runs[:place], runs[place].with_note(note), *runs[place + 1 :]]
        parts.append(("classes", "Classes and predictions", join(shown)))
    return runs, [part for part in parts if part[2]]


def _of_classifiers(predicted, runs):
    """Builds the sections for the runs with predictions. Colours follow the position among all runs."""
    if not predicted:
        return []
    beside = None
    if len(predicted) > 1:
        same = _same_images(predicted)
        beside = mistakes.classes_beside(predicted) if same else _other_images(predicted)
    errors = [
        join(
            [
                element("h3", run.name) if len(runs) > 1 else None,
                mistakes.confusion_matrix(run),
                mistakes.class_table(run),
            ]
        )
        for run in predicted
    ]
    pictures = [
        join([element("h3", run.name) if len(runs) > 1 else None, mistakes.mistaken_images(run)]) for run in predicted
    ]
    return [
        ("calibration", "Calibration", certainty.calibration(runs)),
        ("gap", "The gap between logits", certainty.gaps(runs)),
        ("confusion", "Which classes are confused", join([beside, *errors])),
        ("mistakes", "The most confident mistakes", join(pictures)),
    ]


def _same_images(runs):
    first = runs[0].predictions
    others = [run.predictions for run in runs[1:]]
    return all(a.class_names == first.class_names and np.array_equal(a.labels, first.labels) for a in others)


def _other_images(runs):
    told = ", ".join(f"{run.name} on {run.predictions.source}" for run in runs)
    return element("p", f"The runs were evaluated on different images ({told}): their figures can't be compared.")


def _tiles(run):
    """Shows the key figures of a run."""
    result, network = run.metrics["result"], run.metrics["network"]
    told = {LABELS.get(name, name): percent(result.get(name)) for name in run.metric_names}
    if run.predictions:
        told["calibration error (ECE)"] = percent(run.predictions.figures()["ece"])
    told["parameters"] = count(network.get("parameters"))
    if network.get("flops"):
        told["multiply-adds"] = flops(network["flops"])
    told["training"] = duration(result.get("training_seconds"))
    pairs = [element("div", element("dt", name), element("dd", value)) for name, value in told.items()]
    return element("dl", pairs, class_="tiles")


def _notes(runs):
    """Lists what is missing and why."""
    lines = [f"{run.name}: {note}" if len(runs) > 1 else note for run in runs for note in run.notes]
    if not lines:
        return None
    return element("div", element("ul", [element("li", line) for line in lines]), class_="note", role="note")
