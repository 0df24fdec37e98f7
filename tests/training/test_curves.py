"""Reading history.csv, and the axes of the training curves."""

import pytest

from keras_bot.figures import new_figure, style_panel
from keras_bot.training import curves
from keras_bot.training.curves import metric_label, read_history


def test_history_is_read_as_numbers(tmp_path):
    (tmp_path / "history.csv").write_text("epoch,loss,val_top1\n1,1.5,0.25\n2,nan,0.5\n")
    first, second = read_history(tmp_path / "history.csv")
    assert first == {"epoch": 1.0, "loss": 1.5, "val_top1": 0.25}
    assert second["epoch"] == 2 and second["loss"] != second["loss"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no epochs"),
        ("epoch,loss\n", "no epochs"),
        ("loss\n1\n", "no epochs"),
        ("epoch,loss\n1\n", "columns in line 2"),
        ("epoch,loss\n1,2\n1,2,3\n", "columns in line 3"),
        ("epoch,loss\n1,many\n", "many"),
    ],
)
def test_a_damaged_history_is_an_error(text, message, tmp_path):
    (tmp_path / "history.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_history(tmp_path / "history.csv")


def test_metrics_without_a_label_keep_their_name():
    assert (metric_label("top1"), metric_label("f1")) == ("top-1", "f1")


@pytest.mark.parametrize("epochs", [1, 2, 3, 7, 200])
def test_epochs_have_ticks_at_integers(epochs):
    history = [
        {"epoch": epoch, "loss": 1.0, "val_loss": 1.0, "learning_rate": 0.1, "val_top1": 0.5}
        for epoch in range(1, epochs + 1)
    ]
    figure = curves._draw(history, "top1", "")
    for panel in figure.axes:
        low, high = panel.get_xlim()
        ticks = [tick for tick in panel.get_xticks() if low <= tick <= high]
        assert ticks and all(tick == int(tick) for tick in ticks)


def test_a_single_value_has_a_tick():
    panel = new_figure(4, 3).subplots()
    panel.plot([1], [0.5], ".")
    style_panel(panel, whole_x=True)
    low, high = panel.get_xlim()
    assert [tick for tick in panel.get_xticks() if low <= tick <= high] == [1]
