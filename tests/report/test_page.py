"""The page of hand-made runs: its numbers, its markup, and that it loads nothing from elsewhere."""

import dataclasses
import html.parser
import pathlib
import re

import numpy as np
import pytest

from keras_bot.errors import MisuseError
from keras_bot.recipe import Recipe
from keras_bot.report import charts
from keras_bot.report.markup import VOID, Html, element, table
from keras_bot.report.page import build_page, check_one_task
from keras_bot.report.predictions import Mistake, Predictions
from keras_bot.report.run_files import RunRecord, name_runs

EVIL = "<script>alert('x')</script>\"&\x07"


class Checker(html.parser.HTMLParser):
    """Fails if a tag is not closed; collects the text, the ids and the references."""

    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.open, self.references, self.ids, self.text, self.scripts = [], [], [], [], 0

    def handle_starttag(self, tag, attributes):
        self.scripts += tag == "script"
        self.references += [value for name, value in attributes if name in ("src", "href", "srcset", "xlink:href")]
        self.ids += [value for name, value in attributes if name == "id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data):
        if not {"script", "style"} & set(self.open):
            self.text.append(data)


def check(page):
    """Returns the text of a page after checking that it is well-formed and has no external references."""
    checker = Checker()
    checker.feed(page)
    checker.close()
    assert checker.open == [] and page.startswith("<!doctype html>")
    assert all(reference.startswith(("data:", "#")) for reference in checker.references), checker.references
    assert {reference[1:] for reference in checker.references if reference[0] == "#"} <= set(checker.ids)
    assert len(checker.ids) == len(set(checker.ids)) and checker.scripts == 1
    style = page[page.index("<style>") : page.index("</style>")]
    assert "url(" not in style and "@import" not in style
    return " ".join("".join(checker.text).split())


def make_predictions(classes=3, images=60, side=8, names=None, seed=0):
    draw = np.random.default_rng(seed)
    labels = draw.integers(0, classes, images).astype(np.int32)
    predicted = np.where(draw.uniform(size=images) < 0.7, labels, draw.integers(0, classes, images)).astype(np.int32)
    sure = draw.uniform(1 / classes, 1, images).astype(np.float32)
    names = names or tuple(f"kind{k}" for k in range(classes))
    wrong = np.flatnonzero(labels != predicted)[:5]
    picture = draw.integers(0, 256, (side, side, 3), np.uint8)
    mistakes = [
        Mistake(picture, int(i), f"{names[0]}[{i}]", labels[i], predicted[i], float(sure[i]), 0.01) for i in wrong
    ]
    return Predictions(
        "a set eval",
        names,
        labels,
        predicted,
        confidence=sure,
        true_probability=np.where(labels == predicted, sure, 0.01),
        rank=np.where(labels == predicted, 0, 2),
        gap=draw.normal(4, 1, images).astype(np.float32),
        loss=draw.exponential(1, images).astype(np.float32),
        mistakes=tuple(mistakes),
    )


def make_run(name="one", predictions=None, epochs=3, **fields):
    predictions = predictions or make_predictions()
    rows = np.arange(1, epochs + 1)
    columns = {"loss": 2 / rows, "val_loss": 2.1 / rows, "top1": rows / 9, "val_top1": rows / 10, "val_top5": rows / 5}
    columns |= {"learning_rate": 0.1 / rows, "seconds": rows + 10.0, "images_per_second": 100 / rows}
    history = [{"epoch": float(e), **{n: float(c[e - 1]) for n, c in columns.items()}} for e in rows]
    result = {"top1": 0.3, "top5": 0.6, "loss": 0.7, "best_top1": 0.3, "epochs": epochs, "training_seconds": 3725}
    metrics = {
        "tricks": ["cosine decay (5.1)"],
        "dataset": {
            "name": "a set",
            "train_images": 1000,
            "eval_images": 60,
            "class_names": list(predictions.class_names),
        },
        "network": {"name": "cifar_resnet20_d", "parameters": 272474, "flops": 40813184},
        "versions": {"keras": "3.15.1"},
        "result": result | {"images_per_second": 50.0},
    }
    return RunRecord(name, pathlib.Path("runs") / name, Recipe(**fields), metrics, history, predictions=predictions)


def test_the_page_of_a_run_shows_its_numbers():
    run = make_run(label_smoothing=0.1, schedule="cosine")
    _, page = build_page([run])
    text = check(page)
    own = run.predictions
    right = sum(int(a == b) for a, b in zip(own.labels, own.predicted, strict=True)) / 60
    expected = [
        "30.00 %",
        "272,474",
        "40.8 M",
        "1 h 2 min",
        "12.5",
        "label_smoothing",
        "cosine decay (5.1)",
        "keras 3.15.1",
    ]
    expected += [
        f"{right * 100:.2f} %",
        f"{sum(map(float, own.confidence)) / 60 * 100:.2f} %",
        "2.890",
    ]  # log(2 * 0.9 / 0.1)
    expected += [f"{sum(map(float, own.loss)) / 60:.4f}", f"{sum(map(float, own.gap)) / 60:.3f}", "(epoch 3)"]
    assert [part for part in expected if part not in text] == []
    changed = page[page.index("Fields with non-default") : page.index("<details>")]
    assert set(re.findall(r'<th scope="row">(\w+)', changed)) == {"label_smoothing", "schedule"}
    assert page.count("<img") == len(own.mistakes) and page.count('class="scroll"') >= 6


def test_several_runs_are_compared():
    runs = [make_run("one"), make_run("two", make_predictions(seed=0), mixup_alpha=0.2, label_smoothing=0.1)]
    _, page = build_page(runs)
    text = check(page)
    assert "2 runs: one, two" in text and "mixup_alpha ≠" in text and "Accuracy of each class, side by side" in text
    assert page.count("Reliability diagram of ") == 2 and "∞" in text and "distillation (two)" in text
    assert page.count('class="area"') == 2  # the two densities in one chart
    other = dataclasses.replace(runs[1], predictions=make_predictions(seed=9))
    assert "not comparable" in check(build_page([runs[0], other])[1])


@pytest.mark.parametrize("classes", [2, 30, 31, 1000])
def test_the_page_is_readable_for_any_number_of_classes(classes):
    _, page = build_page([make_run(predictions=make_predictions(classes, images=3000))])
    check(page)
    assert ('class="confusion"' in page) == (classes <= 30) and ("compact" in page.split("<main>")[1]) == (classes > 30)
    assert len(page) < 600_000 and page.count("<tr>") < classes + 200


def test_names_from_files_cannot_become_markup():
    predictions = make_predictions(names=(EVIL, "b", "c"))
    run = dataclasses.replace(make_run(EVIL, predictions), notes=(EVIL,), path=pathlib.Path(EVIL))
    run.metrics["tricks"].append(EVIL)
    run.metrics["dataset"]["name"] = run.metrics["network"]["name"] = run.metrics["versions"]["keras"] = EVIL
    _, page = build_page([run, make_run("two", predictions, dataset=EVIL)])
    text = check(page)
    assert "<script>alert" not in page and "<script>alert('x')</script>\"&" in text and "\x07" not in page


def test_missing_parts_are_noted_and_the_rest_is_shown():
    bare = dataclasses.replace(make_run("bare"), predictions=None, history=[], notes=("No predictions: gone.",))
    runs, page = build_page([bare])
    text = check(page)
    assert "No predictions: gone." in text and "272,474" in text and runs == [bare]
    assert "Calibration" not in text and "Curves" not in text
    assert "bare: No predictions" in check(build_page([bare, make_run("whole")])[1])
    gone = build_page([dataclasses.replace(bare, recipe=Recipe(task="detection"))])[0][0].notes
    assert any("table.md" in note for note in gone) and any("predictions.png" in note for note in gone)


def test_runs_of_several_tasks_are_rejected():
    with pytest.raises(MisuseError, match="of a single task, received runs/a"):
        check_one_task([make_run("a"), make_run("b", task="detection")])


def test_histories_with_gaps_and_of_one_epoch_are_drawn():
    run = make_run(epochs=1)
    check(build_page([run])[1])
    run = make_run(epochs=5)
    run.history[2]["val_loss"] = float("nan")
    del run.history[0]["loss"]
    page = build_page([run])[1]
    check(page)
    assert "nan" not in " ".join(re.findall("<svg.*?</svg>", page))
    assert page.count('class="line') == 8, "loss and top-1 twice, top-5, learning rate, images/s, and the density"


def test_runs_are_named_by_the_parts_of_their_paths_that_differ(tmp_path):
    def names(*paths):
        return name_runs([tmp_path / path for path in paths])

    assert names("a/seed0") == ["a/seed0"] and names("a/b") == ["b"]
    assert names("a/cosine/seed0", "a/mixup/seed0") == ["cosine", "mixup"]
    assert names("a/seed0", "a/seed1") == ["seed0", "seed1"]
    assert names("a/b", "a") == ["a/b", "a"]
    with pytest.raises(MisuseError, match="twice"):
        names("a/b", "a/../a/b")


def test_ticks_are_round_numbers_within_the_range():
    assert charts.ticks(0, 1) == [0, 0.2, 0.4, 0.6, 0.8, 1]
    assert charts.ticks(0.27, 0.81) == [0.4, 0.6, 0.8]
    for low, high in ((0, 3e-5), (17, 90), (-2, 1e6)):
        inner = charts.ticks(low, high)
        assert 3 <= len(inner) <= 7 and low <= inner[0] and inner[-1] <= high + 1e-9 * high


def test_markup_escapes_everything_but_html():
    assert element("p", "<&>", Html("<b>x</b>"), None, [1, "é"], title='"<') == (
        '<p title="&quot;&lt;">&lt;&amp;&gt;<b>x</b>1é</p>'
    )
    assert element("td", "a\ud800\x00b", hidden=True, class_=None) == "<td hidden>a?�b</td>"
    assert "<caption>a&lt;b</caption>" in table("a<b", ["x"], [["<y>"]])
