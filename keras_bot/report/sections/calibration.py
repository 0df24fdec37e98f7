"""The page's calibration section and its section on the logit gap, which label smoothing narrows (Figure 4)."""

import math

import numpy as np

from keras_bot.report import charts
from keras_bot.report.formatting import count, decimal, percent, plural, points
from keras_bot.report.markup import Html, element, table
from keras_bot.report.reliability import BINS, optimal_gap, reliability, shared_edges
from keras_bot.report.run_files import RunRecord

_EXPLANATION = (
    "Confidence is the probability of the predicted class. A network is calibrated if its accuracy equals its "
    "confidence. The expected calibration error (ECE) is the mean absolute difference between the two over "
    f"{BINS} confidence bins, weighted by the number of images in each; NLL is the mean of −log p of the true class."
)


def calibration(runs: list[RunRecord]) -> Html:
    """Builds the calibration table, one row per run, and a reliability diagram for each run."""
    numbered = [(number, run, run.predictions) for number, run in enumerate(runs) if run.predictions]
    head = ["run", "images", "top-1", "top-5", "mean confidence", "confidence − top-1 (points)", "ECE", "NLL"]
    rows = []
    for _, run, predictions in numbered:
        metrics = predictions.metrics()
        shares = [percent(metrics[name]) for name in ("top1", "top5", "mean_confidence")]
        over = points(metrics["mean_confidence"] - metrics["top1"])
        images = count(len(predictions.labels))
        rows.append([run.name, images, *shares, over, percent(metrics["ece"]), decimal(metrics["nll"], 4)])
    diagrams = [_diagram(number, run) for number, run, _ in numbered]
    metrics_table = table("Calibration on the evaluation set", head, rows, kind="numbers")
    lines = [element("p", _EXPLANATION), element("p", _evaluated_images([run for _, run, _ in numbered]))]
    return element("div", lines, metrics_table, element("div", diagrams, class_="grid"))


def _evaluated_images(runs):
    """Describes which networks predicted which images; the report's flags may select a different set from the run's."""
    sets: dict[str, list[str]] = {run.predictions.source: [] for run in runs}
    for run in runs:
        unreadable = len(run.predictions.unreadable)
        excluded = f" (without {plural(unreadable, 'image')} that could not be decoded)" if unreadable else ""
        sets[run.predictions.source].append(f"{run.name}{excluded}")
    parts = "; ".join(f"model.keras of {', '.join(names)} on {source}" for source, names in sets.items())
    return f"This section and the following ones are based on the predictions for each image: {parts}."


def _diagram(number, run):
    predictions = run.predictions
    diagram, metrics = reliability(predictions.confidence, predictions.correct), predictions.metrics()
    means = f"mean confidence {percent(metrics['mean_confidence'])}, top-1 {percent(metrics['top1'])}"
    caption = f"{run.name}: ECE {percent(metrics['ece'])}, {means}. "
    key = "Bars: accuracy of the bin; dashed: its difference from the bin's confidence; top: the bin's share of images."
    alt = f"Reliability diagram of {caption}"
    return charts.figure(charts.reliability_chart(diagram, color=number, alt=alt), caption + key)


def gaps(runs: list[RunRecord]) -> Html:
    """Plots the distribution of the gap for each run, with the theoretical optimum under label smoothing."""
    numbered = [(number, run, run.predictions) for number, run in enumerate(runs) if run.predictions]
    head = ["run", "classes", "label smoothing ε", "mean gap", "standard deviation", "optimal gap for ε"]
    rows, lines, marks = [], [], []
    edges = shared_edges([predictions.gap for _, _, predictions in numbered])
    for number, run, predictions in numbered:
        gap, classes, epsilon = predictions.gap, len(predictions.class_names), run.recipe.label_smoothing
        density, _ = np.histogram(gap, edges, density=True)
        middles = (edges[1:] + edges[:-1]) / 2
        x, y = [edges[0], *middles, edges[-1]], [0.0, *density, 0.0]
        lines.append(charts.Line(run.name, x, y, number, filled=True))
        mean, best = float(gap.mean(dtype=np.float64)), optimal_gap(classes, epsilon)
        marks.append(charts.Mark(f"{run.name}: mean gap {mean:.2f}", mean, number, dashed=True))
        if math.isfinite(best):
            marks.append(charts.Mark(f"{run.name}: optimal gap {best:.2f}", best, number))
        deviation = float(gap.std(dtype=np.float64))
        rows.append([run.name, count(classes), f"{epsilon:g}", decimal(mean), decimal(deviation), decimal(best)])
    alt = "Density of the gap between the largest logit and the mean of the others; " + "; ".join(
        mark.name for mark in marks
    )
    x_label, y_label = "largest logit − mean of the others", "density"
    chart = charts.line_chart(lines, marks=marks, alt=alt, x_label=x_label, y_label=y_label, y_limits=(0, math.inf))
    smoothed = [run for _, run, _ in numbered if run.recipe.label_smoothing]
    caption = "Dashed line: mean." + (" Solid vertical line: optimum for the label smoothing." if smoothed else "")
    names = [(run.name, number, False) for number, run, _ in numbered]
    key = charts.legend(names) if len(names) > 1 else None
    gap_table = table("Gap on the evaluation set, in nats", head, rows, kind="numbers")
    return element("div", _theory(smoothed), key, charts.figure(chart, caption), gap_table, class_="wide")


def _theory(smoothed):
    text = (
        "The gap is the largest logit minus the mean of the other logits. As in the paper's Figure 4: without label "
        "smoothing, the loss is smallest for an infinite gap; with smoothing ε over K classes, for a gap of "
        "log((K − 1)(1 − ε)/ε)."
    )
    mixed = [run.name for run in smoothed if run.recipe.mixup_alpha or run.recipe.teacher]
    if mixed:
        text += f" Mixup or distillation ({', '.join(mixed)}) also changes the targets and thereby the optimum."
    return element("p", text)
