"""Errors of a network: confusion matrix, confused pairs, accuracy per class, the most confident mistakes."""

import io

import numpy as np
from PIL import Image

from keras_bot.report import confusion
from keras_bot.report.formatting import count, percent, plural
from keras_bot.report.markup import Html, element, picture, table
from keras_bot.report.predictions import Predictions
from keras_bot.report.run_files import RunRecord

_MAX_NUMBERED = 30  # largest number of classes for a matrix in numbers
_MAX_EXPANDED = 40  # largest number of classes for a table that isn't collapsed
_MAX_ROWS = 15
_SMALL = 64  # images up to this many pixels wide and high are stored losslessly
_RIGHT, _WRONG = (42, 120, 214), (214, 84, 32)


def confusion_matrix(run: RunRecord) -> Html:
    """Shows the confusion matrix, as numbers for few classes and else as a picture, and the most confused pairs."""
    predictions = _predictions(run)
    few = len(predictions.class_names) <= _MAX_NUMBERED
    matrix = _cells(predictions) if few else _compact(predictions)
    return element("div", matrix, _pairs(predictions), class_="side-by-side")


def _predictions(run: RunRecord) -> Predictions:
    if run.predictions is None:
        raise ValueError(f"The run {run.name} has no predictions.")
    return run.predictions


def _cells(predictions):
    names = predictions.class_names
    counts = confusion.matrix(predictions.labels, predictions.predicted, len(names))
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    head = ["true class", *(element("th", element("span", name), scope="col", class_="turned") for name in names)]
    rows = [
        [names[k], *(_cell(counts[k, j], shares[k, j], k == j, names[k], names[j]) for j in range(len(names)))]
        for k in range(len(names))
    ]
    caption = (
        "Confusion matrix: one row per true class, one column per predicted class. Stronger colours mean larger shares "
        "of the row (blue: correct; orange: wrong, scaled by the square root of the share)."
    )
    return table(caption, head, rows, kind="confusion")


def _cell(number, share, right, true, predicted):
    kind = "right" if right else "wrong"
    return element(
        "td",
        number if number else "",
        class_=kind,
        style=f"--share:{(share if right else share**0.5) * 100:.0f}%" if number else None,
        title=f"{true} predicted as {predicted}: {number} ({percent(share)})" if number else None,
    )


def _compact(predictions):
    """Draws the matrix with shares as opacity, so that it suits light and dark pages."""
    classes = len(predictions.class_names)
    shares = confusion.blocks(predictions.labels, predictions.predicted, classes)
    size = len(shares)
    diagonal = np.eye(size, dtype=bool)
    errors = np.where(diagonal, 0, shares)
    opacity = np.where(diagonal, shares, np.sqrt(errors / max(errors.max(), 1e-12)))
    colors = np.where(diagonal[..., None], _RIGHT, _WRONG)
    pixels = np.concatenate([colors, np.rint(opacity * 255)[..., None]], axis=-1).astype(np.uint8)
    zoom = max(1, 400 // size)
    matrix = Image.fromarray(pixels.repeat(zoom, 0).repeat(zoom, 1), "RGBA")
    groups = "" if size == classes else f" in {size} groups of neighbouring classes"
    correct = "correct" if size == classes else "correct or in the same group"
    caption = (
        f"Confusion matrix of {classes:,} classes{groups}: one row per true class, one column per predicted class. "
        f"Blue: {correct}; orange: wrong, with an opacity that grows with the square root of the row's share (largest: "
        f"{percent(errors.max())})."
    )
    image = picture(_encode(matrix, "png"), "png", caption, width=size * zoom, height=size * zoom)
    return element("figure", image, element("figcaption", caption), class_="compact")


def _pairs(predictions):
    names, pairs = predictions.class_names, confusion.confused_pairs(predictions.labels, predictions.predicted)
    if not pairs:
        return element("p", "No image was misclassified.")
    rows = [[names[p.true], names[p.predicted], count(p.count), percent(p.share)] for p in pairs[:_MAX_ROWS]]
    more = f" ({_MAX_ROWS} of {len(pairs):,})" if len(pairs) > _MAX_ROWS else ""
    head = ["true class", "predicted class", "images", "share of the true class"]
    return table(f"Most confused pairs of classes{more}", head, rows, kind="numbers second-text")


def class_table(run: RunRecord) -> Html:
    """Lists all classes, lowest accuracy first; collapsed if there are many."""
    predictions = _predictions(run)
    names = predictions.class_names
    results = confusion.class_results(predictions.labels, predictions.predicted, len(names))
    rows = [
        [
            names[one.label],
            count(one.images),
            percent(one.accuracy),
            f"{names[one.worst.predicted]} ({one.worst.count:,})" if one.worst else "–",
        ]
        for one in results
    ]
    head = ["class", "images", "accuracy", "most frequent wrong prediction"]
    caption = "Accuracy of each class, lowest first"
    full = table(caption, head, rows, kind="numbers last-text", sortable=True)
    if len(names) <= _MAX_EXPANDED:
        return full
    worst = table(f"The {_MAX_ROWS} classes with the lowest accuracy", head, rows[:_MAX_ROWS], kind="numbers last-text")
    return element("div", worst, element("details", element("summary", f"All {len(names)} classes"), full))


def class_comparison(runs: list[RunRecord]) -> Html:
    """Tabulates the accuracy of each class for each run; the runs must share classes and images."""
    results = [
        {one.label: one for one in confusion.class_results(p.labels, p.predicted, len(p.class_names))}
        for p in map(_predictions, runs)
    ]
    rows = [
        [name, count(results[0][k].images), *(percent(by_class[k].accuracy) for by_class in results)]
        for k, name in enumerate(_predictions(runs[0]).class_names)
    ]
    head = ["class", "images", *(run.name for run in runs)]
    full = table("Accuracy of each class, side by side", head, rows, kind="numbers", sortable=True)
    if len(rows) <= _MAX_EXPANDED:
        return full
    return element("details", element("summary", f"Accuracy of all {len(rows)} classes, side by side"), full)


def mistaken_images(run: RunRecord) -> Html:
    """Shows the most confident wrong predictions with their images."""
    predictions = _predictions(run)
    wrong = int((~predictions.correct).sum())
    if not predictions.mistakes:
        return element("p", "There are no mistakes to show.")
    images = plural(len(predictions.labels), "image")
    counts = f"{count(len(predictions.mistakes))} of {plural(wrong, 'mistake')} in {images}"
    text = f"{counts}, the most confident first, shown as the network's input. Some labels may be wrong."
    items = [element("li", _mistake(mistake, predictions)) for mistake in predictions.mistakes]
    return element("div", element("p", text), element("ul", items, class_="mistakes"))


def _mistake(mistake, predictions: Predictions):
    names = predictions.class_names
    true, predicted = names[mistake.true], names[mistake.predicted]
    small = max(mistake.image.shape) <= _SMALL
    kind = "png" if small else "jpeg"
    alt = f"{mistake.name}: {true}, predicted as {predicted}"
    lines = [
        element("strong", predicted, " ", element("span", percent(mistake.confidence), class_="probability")),
        element("span", f"true: {true} ", element("span", percent(mistake.true_probability), class_="probability")),
        element("small", mistake.name),
    ]
    image = picture(_encode(Image.fromarray(mistake.image), kind), kind, alt, class_="pixels" if small else None)
    return element("figure", image, element("figcaption", lines))


def _encode(image, kind):
    buffer = io.BytesIO()
    image.save(buffer, kind, **({"quality": 88} if kind == "jpeg" else {"optimize": True}))
    return buffer.getvalue()
