"""Any name can be drawn and tabulated, and a picture that cannot be drawn is only a warning."""

import csv
import io
import json
import re
import warnings

import pytest
from PIL import Image

from keras_bot.ablation import plots
from keras_bot.ablation.driver import Ablation, _Progress
from keras_bot.ablation.ledger import Ledger
from keras_bot.ablation.results import RunResults, mean_curves, summarise
from keras_bot.ablation.rows import TABLES, Row
from keras_bot.ablation.tables import as_csv, as_json, as_markdown
from keras_bot.ablation.validate import TrainerInfo
from keras_bot.errors import one_line
from keras_bot.figures import label_text, optional_picture
from keras_bot.recipe import Recipe
from keras_bot.report.markup import element
from keras_bot.training.curves import draw_curves

NAMES = (
    "$\\frac$",
    "cost $5 {to} $7",
    "a_{b^c$x_$",
    "_under",
    "new\nline",
    "tab\there\r",
    "bell\a\x00\x1b[31m",
    "猫😀 قط",
    "half\udcff",
    "a|b`c``d",
    "`quoted`",
    "x" * 300,
)
ROWS = [Row(name, f"recipes/{name}.flags", Recipe(batch_size=8 + place)) for place, name in enumerate(NAMES)]
RUNS = {(name, 0): RunResults(0.5, 0.6, (0.4, 0.6), (1.0, 2.0), 10, 100) for name in NAMES}


@pytest.fixture
def summary():
    return summarise(ROWS, [0], RUNS, {(NAMES[4], 0): "it\nfailed"}, metric="top1", mode="cumulative")


@pytest.fixture
def drawn(monkeypatch):
    """The figures that `plots` writes."""
    figures, png = [], plots._png
    monkeypatch.setattr(plots, "_png", lambda figure: figures.append(figure) or png(figure))
    return figures


@pytest.fixture(autouse=True)
def no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def test_labels_are_one_line_of_printable_text():
    assert label_text("cat") == "cat" and label_text("a\nb\tc") == "a b c" and label_text("a\x00\udcff") == "a��"
    assert label_text("猫😀") == "猫😀" and label_text("_$\\frac$") == "_$\\frac$"
    assert label_text("abcdefghij", 5) == "ab…ij" and label_text("abcdefghij", 4) == "ab…j"
    assert len(label_text("x" * 300)) == 40


def test_the_plots_of_an_ablation_show_every_name_literally(summary, drawn):
    for content in (plots.draw_table(summary), plots.draw_mean_curves(summary, mean_curves(ROWS, RUNS))):
        assert Image.open(io.BytesIO(content)).size[0] > 400
    labels = [label_text(name) for name in NAMES]
    table, curves = (figure.axes[0] for figure in drawn)
    assert [text.get_text() for text in table.get_yticklabels()] == labels
    assert [text.get_text() for text in curves.get_legend().get_texts()] == labels


@pytest.mark.thorough
def test_the_curves_of_a_run_can_have_any_title(tmp_path, capsys):
    history = [{"epoch": 1, "loss": 1.0, "val_loss": 1.0, "learning_rate": 0.1, "val_top1": 0.5}]
    for place, name in enumerate(NAMES):
        draw_curves(history, tmp_path / f"{place}.png", title=f"resnet on {name}")
        with Image.open(tmp_path / f"{place}.png") as picture:
            assert picture.size[0] > 400
    assert capsys.readouterr().err == ""


def test_curves_that_cannot_be_written_are_a_warning(tmp_path, capsys):
    history = [{"epoch": 1, "loss": 1.0, "val_loss": 1.0, "learning_rate": 0.1, "val_top1": 0.5}]
    draw_curves(history, tmp_path / "gone" / "curves.png")
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("keras-bot: warning: cannot create") and "No such file" in line


def test_markdown_has_one_line_per_row_for_any_name(summary):
    lines = as_markdown(summary).splitlines()
    table = [line for line in lines if line.startswith("|")]
    assert len(table) == 2 + len(NAMES)
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table}) == 1
    assert table[2].startswith("| `$\\frac$` |") and "| `new\\nline` |" in table[6]
    assert table[11].startswith("| ```a\\|b`c``d``` |") and table[12].startswith("| `` `quoted` `` |")
    assert lines[-1] == "- `new\\nline`, seed 0 failed: it\\nfailed"


def test_csv_has_one_line_per_row_and_json_restores_the_names(summary):
    lines = as_csv(summary).splitlines()
    assert [line["name"] for line in csv.DictReader(lines)] == [one_line(name) for name in NAMES]
    assert json.loads(as_json(summary)) == summary


def test_markup_can_be_encoded_for_any_name():
    for name in NAMES:
        element("p", name, title=name).encode()


@pytest.fixture
def progress(tmp_path):
    ablation = Ablation(tmp_path, ROWS, [0])
    ledger = Ledger(tmp_path)
    ledger.trainer = TrainerInfo(("top1",), ())
    ledger.begin(ablation.runs(), mode="cumulative", seeds=[0])
    progress = _Progress(ablation, ledger, print)
    progress._results = RUNS
    return progress


def test_all_files_of_an_ablation_are_written(progress, tmp_path, capsys):
    progress.write_tables()
    assert all((tmp_path / name).stat().st_size for name in TABLES)
    assert json.loads((tmp_path / "table.json").read_text(encoding="utf-8"))["rows"][8]["name"] == NAMES[8]
    Ledger(tmp_path).new_rows(ROWS)
    assert capsys.readouterr().err == ""


def test_the_flagfile_of_a_run_has_one_comment_line(progress, tmp_path):
    run = progress._ablation.runs()[4]
    progress.start(run, resume=False)
    lines = run.flagfile.read_text(encoding="utf-8").splitlines()
    assert lines[1:] == list(run.recipe.flag_lines()) and lines[0].startswith("# Row new\\nline (recipes/")


def test_plots_that_fail_are_warnings_and_keep_the_tables(progress, tmp_path, capsys, monkeypatch):
    def fail(*_):
        raise ValueError("no\nway.")

    monkeypatch.setattr(plots, "draw_table", fail)
    monkeypatch.setattr(plots, "draw_mean_curves", fail)
    assert progress.write_tables()["rows"]
    assert {path.name for path in tmp_path.iterdir()} == {"ablation.json", "table.json", "table.csv", "table.md"}
    first, second = capsys.readouterr().err.splitlines()
    assert first == f"keras-bot: warning: cannot create {tmp_path / 'table.png'}: no way. All other files are complete."
    assert "curves.png" in second


def test_an_interruption_is_not_a_warning(tmp_path):
    with pytest.raises(KeyboardInterrupt), optional_picture(tmp_path / "x.png"):
        raise KeyboardInterrupt
