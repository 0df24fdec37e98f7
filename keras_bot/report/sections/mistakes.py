"""Errors of a network: confusion matrix, confused pairs, accuracy per class, the most confident mistakes."""

import io

import numpy as np
from PIL import Image

from keras_bot.report import confusion
from keras_bot.report.markup import Html, element, picture, table
from keras_bot.report.predictions import Predictions
from keras_bot.report.run_files import Run
from keras_bot.report.text import count, percent, plural

_READABLE = 30  # largest number of classes for a matrix in numbers
_OPEN = 40  # largest number of classes for a table that isn't collapsed
_PAIRS = 15
_SMALL = 64  # images up to this many pixels wide and high are stored losslessly
_RIGHT, _WRONG = (42, 120, 214), (214, 84, 32)


def confusion_matrix(run: Run) -> Html:
    """Shows the confusion matrix in numbers for few classes, else as a picture, and the most confused pairs."""
    answers = run.predictions
    few = len(answers.class_names) <= _READABLE
    return element("div", _cells(answers) if few else _compact(answers), _pairs(answers), class_="beside")


def _cells(answers):
    names = answers.class_names
    counts = confusion.matrix(answers.labels, answers.predicted, len(names))
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    head = ["true class", *(element("th", element("span", name), scope="col", class_="turned") for name in names)]
    rows = [
        [names[k], *(_cell(counts[k, j], shares[k, j], k == j, names[k], names[j]) for j in range(len(names)))]
        for k in range(len(names))
    ]
    caption = (
        "Confusion matrix: true classes down, answers across. The stronger the colour, the larger the row's share "
        "(blue: right; orange: wrong, by the root of the share)"
    )
    return table(caption, head, rows, kind="confusion")


def _cell(number, share, right, true, predicted):
    kind = "right" if right else "wrong"
    return element(
        "td",
        number if number else "",
        class_=kind,
        style=f"--share:{(share if right else share**0.5) * 100:.0f}%" if number else None,
        title=f"{true} taken for {predicted}: {number} ({percent(share)})" if number else None,
    )


def _compact(answers):
    """Draws the matrix with shares as opacity, so that it suits light and dark pages."""
    classes = len(answers.class_names)
    shares = confusion.blocks(answers.labels, answers.predicted, classes)
    size = len(shares)
    diagonal = np.eye(size, dtype=bool)
    errors = np.where(diagonal, 0, shares)
    opacity = np.where(diagonal, shares, np.sqrt(errors / max(errors.max(), 1e-12)))
    colors = np.where(diagonal[..., None], _RIGHT, _WRONG)
    pixels = np.concatenate([colors, np.rint(opacity * 255)[..., None]], axis=-1).astype(np.uint8)
    zoom = max(1, 400 // size)
    shown = Image.fromarray(pixels.repeat(zoom, 0).repeat(zoom, 1), "RGBA")
    group = "" if size == classes else f", in {size} groups of neighbouring classes"
    within = "" if size == classes else " or of the same group"
    caption = (
        f"Confusion matrix of {classes:,} classes{group}: true classes down, answers across. Blue: right{within}; "
        f"orange: wrong, the opacity the root of the row's share, the strongest {percent(errors.max())}."
    )
    image = picture(_encode(shown, "png"), "png", caption, width=size * zoom, height=size * zoom)
    return element("figure", image, element("figcaption", caption), class_="compact")


def _pairs(answers):
    names, pairs = answers.class_names, confusion.confused_pairs(answers.labels, answers.predicted)
    if not pairs:
        return element("p", "No image was taken for another class.")
    rows = [[names[p.true], names[p.predicted], count(p.count), percent(p.share)] for p in pairs[:_PAIRS]]
    more = f", the first {_PAIRS} of {len(pairs):,}" if len(pairs) > _PAIRS else ""
    head = ["true class", "taken for", "images", "of the class"]
    return table(f"The most confused pairs{more}", head, rows, kind="numbers second-text")


def class_table(run: Run) -> Html:
    """Lists all classes, lowest accuracy first; collapsed if there are many."""
    answers = run.predictions
    names = answers.class_names
    figures = confusion.class_figures(answers.labels, answers.predicted, len(names))
    rows = [
        [
            names[one.label],
            count(one.images),
            percent(one.accuracy),
            f"{names[one.worst.predicted]} ({one.worst.count:,})" if one.worst else "–",
        ]
        for one in figures
    ]
    head = ["class", "images", "accuracy", "most common wrong answer"]
    caption = "Accuracy of each class, the least first"
    shown = table(caption, head, rows, kind="numbers last-text", sortable=True)
    if len(names) <= _OPEN:
        return shown
    worst = table(f"The {_PAIRS} classes of the least accuracy", head, rows[:_PAIRS], kind="numbers last-text")
    return element("div", worst, element("details", element("summary", f"All {len(names)} classes"), shown))


def classes_beside(runs: list[Run]) -> Html:
    """Tabulates the accuracy of each class for each run; the runs must share classes and images."""
    first = runs[0].predictions
    figures = [
        {one.label: one for one in confusion.class_figures(a.labels, a.predicted, len(a.class_names))}
        for a in (run.predictions for run in runs)
    ]
    rows = [
        [name, count(figures[0][k].images), *(percent(told[k].accuracy) for told in figures)]
        for k, name in enumerate(first.class_names)
    ]
    head = ["class", "images", *(run.name for run in runs)]
    shown = table("Accuracy of each class, side by side", head, rows, kind="numbers", sortable=True)
    if len(rows) <= _OPEN:
        return shown
    return element("details", element("summary", f"Accuracy of all {len(rows)} classes, side by side"), shown)


def mistaken_images(run: Run) -> Html:
    """Shows the most confident wrong answers with their images."""
    answers = run.predictions
    wrong = int((~answers.correct).sum())
    if not answers.mistakes:
        return element("p", "There are no mistakes to show.")
    told = (
        f"The {plural(len(answers.mistakes), 'wrong answer')} of the greatest confidence, of {count(wrong)} in "
        f"{plural(len(answers.labels), 'image')}, as the network saw them. A label may be what is wrong."
    )
    items = [element("li", _mistake(mistake, answers)) for mistake in answers.mistakes]
    return element("div", element("p", told), element("ul", items, class_="mistakes"))


def _mistake(mistake, answers: Predictions):
    names = answers.class_names
    true, predicted = names[mistake.true], names[mistake.predicted]
    small = max(mistake.image.shape) <= _SMALL
    kind = "png" if small else "jpeg"
    alt = f"{mistake.name}: {true}, taken for {predicted}"
    lines = [
        element("strong", predicted, " ", element("span", percent(mistake.confidence), class_="sure")),
        element("span", f"true: {true} ", element("span", percent(mistake.true_probability), class_="sure")),
        element("small", mistake.name),
    ]
    image = picture(_encode(Image.fromarray(mistake.image), kind), kind, alt, class_="pixels" if small else None)
    return element("figure", image, element("figcaption", lines))


def _encode(image, kind):
    buffer = io.BytesIO()
    image.save(buffer, kind, **({"quality": 88} if kind == "jpeg" else {"optimize": True}))
    return buffer.getvalue()
