"""The page's calibration section and its section on the logit gap, which label smoothing narrows (Figure 4)."""

import math

import numpy as np

from keras_bot.report import charts
from keras_bot.report.markup import Html, element, table
from keras_bot.report.reliability import BINS, optimal_gap, reliability, shared_edges
from keras_bot.report.run_files import Run
from keras_bot.report.text import count, decimal, percent, plural, points

_WHAT = (
    "Confidence is the probability that a network gives its answer; a calibrated one is right as often as it is sure. "
    f"ECE is the mean distance of the two over {BINS} bins of confidence, weighed by their images; NLL is the mean of "
    "−log p of the true class."
)


def calibration(runs: list[Run]) -> Html:
    """Builds the calibration table, one row per run, and a reliability diagram for each run."""
    numbered = [(number, run) for number, run in enumerate(runs) if run.predictions]
    head = ["run", "images", "top-1", "top-5", "mean confidence", "confidence − top-1, points", "ECE", "NLL"]
    rows = []
    for _, run in numbered:
        told = run.predictions.figures()
        over, shares = told["mean_confidence"] - told["top1"], ("top1", "top5", "mean_confidence")
        images = count(len(run.predictions.labels))
        found = [percent(told[name]) for name in shares]
        rows.append([run.name, images, *found, points(over), percent(told["ece"]), decimal(told["nll"], 4)])
    diagrams = [_diagram(number, run) for number, run in numbered]
    shown = table("Calibration on the evaluation set", head, rows, kind="numbers")
    lines = [element("p", _WHAT), element("p", _looked_at([run for _, run in numbered]))]
    return element("div", lines, shown, element("div", diagrams, class_="grid"))


def _looked_at(runs):
    """Describes which networks saw which images; flags of the report may select images other than the training's."""
    sets = {run.predictions.source: [] for run in runs}
    for run in runs:
        unreadable = len(run.predictions.unreadable)
        left_out = f" (without {plural(unreadable, 'image')} that can't be decoded)" if unreadable else ""
        sets[run.predictions.source].append(f"{run.name}{left_out}")
    told = "; ".join(f"{source} by model.keras of {', '.join(names)}" for source, names in sets.items())
    return f"This part and all below are of predictions for each image of {told}."


def _diagram(number, run):
    answers = run.predictions
    diagram, told = reliability(answers.confidence, answers.correct), answers.figures()
    means = f"mean confidence {percent(told['mean_confidence'])}, top-1 {percent(told['top1'])}"
    caption = f"{run.name}: ECE {percent(told['ece'])}, {means}. "
    key = "Bars: accuracy; dashed: its distance from the bin's confidence; above: the bin's share of the images."
    alt = f"Reliability diagram of {caption}"
    return charts.figure(charts.reliability_chart(diagram, color=number, alt=alt), caption + key)


def gaps(runs: list[Run]) -> Html:
    """Plots the distribution of the gap for each run, with the theoretical optimum under label smoothing."""
    numbered = [(number, run) for number, run in enumerate(runs) if run.predictions]
    head = ["run", "classes", "label smoothing ε", "mean gap", "standard deviation", "optimal gap under ε"]
    rows, lines, marks = [], [], []
    edges = shared_edges([run.predictions.gap for _, run in numbered])
    for number, run in numbered:
        gap, classes, epsilon = run.predictions.gap, len(run.predictions.class_names), run.recipe.label_smoothing
        density, _ = np.histogram(gap, edges, density=True)
        middles = (edges[1:] + edges[:-1]) / 2
        x, y = [edges[0], *middles, edges[-1]], [0.0, *density, 0.0]
        lines.append(charts.Line(run.name, x, y, number, filled=True))
        mean, best = float(gap.mean(dtype=np.float64)), optimal_gap(classes, epsilon)
        marks.append(charts.Mark(f"{run.name}: mean gap {mean:.2f}", mean, number, dashed=True))
        if math.isfinite(best):
            marks.append(charts.Mark(f"{run.name}: optimal gap {best:.2f}", best, number))
        spread = float(gap.std(dtype=np.float64))
        rows.append([run.name, count(classes), f"{epsilon:g}", decimal(mean), decimal(spread), decimal(best)])
    alt = "Density of the gap between the largest logit and the mean of the others; " + "; ".join(
        mark.name for mark in marks
    )
    options = {"x_label": "largest logit − mean of the others", "y_label": "density", "from_zero": True}
    chart = charts.line_chart(lines, marks=marks, alt=alt, **options)
    smoothed = [run for _, run in numbered if run.recipe.label_smoothing]
    caption = "Dashed: the mean. " + ("Solid upright line: the optimum under smoothing." if smoothed else "")
    names = [(run.name, number, False) for number, run in numbered]
    key = charts.legend(names) if len(names) > 1 else None
    shown = table("The gap on the evaluation set, in nats", head, rows, kind="numbers")
    return element("div", _why(smoothed), key, charts.figure(chart, caption), shown, class_="wide")


def _why(smoothed):
    text = (
        "The paper's Figure 4: without smoothing the loss is least at an infinite gap between the logit of the true "
        "class and the others; under smoothing with ε over K classes at log((K − 1)(1 − ε)/ε)."
    )
    mixed = [run.name for run in smoothed if run.recipe.mixup_alpha or run.recipe.teacher]
    if mixed:
        text += (
            f" Mixup and distillation, as in {', '.join(mixed)}, change the targets too: the optimum there is another."
        )
    return element("p", text)
