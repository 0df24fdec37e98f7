"""`keras-bot data` and `keras-bot data convert` as a user runs them."""

import fcntl
import json
import os
import pty
import struct
import subprocess
import sys
import termios

import pytest

from keras_bot.cli.main import main


def error_line(capsys):
    """Returns stderr, which must be a single line."""
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    return lines[0]


def test_data_prints_sizes_and_classes(image_folder, capsys):
    folder = image_folder(classes=3, train=5, val=2)
    (folder / "classes.csv").write_text("folder,name\nclass2,crane\nclass0,\nclass1,tench\n")
    assert main(["data", f"--dataset={folder}"]) == 0
    shown = capsys.readouterr().out
    assert "train: 15 training images, 6 evaluation images" in shown
    assert "3 classes: crane, class0, tench" in shown


def test_a_grid_does_not_overwrite_other_files(tmp_path, capsys):
    (tmp_path / "notes.txt").write_text("mine")
    assert main(["data", "--dataset=digits", f"--grid={tmp_path / 'notes.txt'}"]) == 2
    assert "--grid must end in .png" in error_line(capsys) and (tmp_path / "notes.txt").read_text() == "mine"


def test_convert_writes_shards_and_prints_one_line_per_shard(image_folder, tmp_path, capsys):
    folder, out = image_folder(classes=3, train=5, val=2, name="my photos é"), tmp_path / "out put"
    command = ["data", "convert", str(folder), str(out), "--shards=2", "--validation_shards=1", "--first_label=1"]
    for _ in range(2):  # the second time, all shards exist
        assert main(command) == 0
        shown = capsys.readouterr()
        assert shown.out.splitlines() == [
            f"Scanning {folder}",
            "train-00000-of-00002 is complete: 7 of 21 images",
            "train-00001-of-00002 is complete: 15 of 21 images",
            "validation-00000-of-00001 is complete: 21 of 21 images",
            "train: 15 images in 2 shards",
            "validation: 6 images in 1 shard",
            f"3 classes; sizes and checksums in {out}/manifest.json",
        ]
        assert not shown.err
    assert json.loads((out / "manifest.json").read_text())["first_label"] == 1


def test_convert_shows_a_bar_on_a_terminal(image_folder, tmp_path):
    folder = image_folder(classes=2, train=5, val=1)
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("4H", 24, 80, 0, 0))
    command = [sys.executable, "-m", "keras_bot", "data", "convert", str(folder), str(tmp_path / "out")]
    run = subprocess.run(command, stdout=subprocess.PIPE, stderr=follower, text=True)
    os.close(follower)
    shown = os.read(leader, 100_000).decode()
    os.close(leader)
    assert run.returncode == 0 and "is complete" not in run.stdout
    assert "12/12" in shown and "100%" in shown and "images" in shown


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "Pass the image folder and the output folder, received []"),
        (["{folder}"], 2, "Pass the image folder and the output folder"),
        (["{folder}", "{tmp}/a", "{tmp}/b"], 2, "Pass the image folder and the output folder"),
        (["{folder}", "{tmp}/out", "--shard=2"], 2, "Unknown flag --shard. Did you mean --shards?"),
        (["{folder}", "{tmp}/out", "--shards=two"], 2, "--shards"),
        (["{folder}", "{tmp}/out", "--shards=99"], 2, "shards must be from 1 to 6 for 6 train images, received 99"),
        (["{folder}", "{tmp}/out", "--seed=-1"], 2, "seed must be from 0 to"),
        (["{tmp}/none", "{tmp}/out"], 2, "No folder"),
        (["{folder}", "{folder}"], 2, "images contains other files"),
        (["{folder}", "/dev/null/out"], 1, "Can't write to /dev/null/out"),
    ],
)
def test_misuse_is_reported_in_one_line(image_folder, tmp_path, capsys, arguments, code, message):
    folder = image_folder(classes=2, train=3, val=1)
    assert main(["data", "convert", *(a.format(folder=folder, tmp=tmp_path) for a in arguments)]) == code
    assert message in error_line(capsys)
    assert not (tmp_path / "out").exists()


def test_a_class_file_that_disagrees_is_reported_in_one_line(image_folder, tmp_path, capsys):
    folder = image_folder(classes=2)
    (folder / "classes.csv").write_text("folder,name\nclass0,a\nclass9,b\n")
    for command in (["data", f"--dataset={folder}"], ["data", "convert", str(folder), str(tmp_path / "out")]):
        assert main(command) == 2
        assert "train has no folder for 'class9'; it doesn't list train's folder 'class1'" in error_line(capsys)


def test_an_interrupted_conversion_keeps_complete_shards(image_folder, tmp_path, capsys, monkeypatch):
    from keras_bot.cli.commands import data

    folder, out = image_folder(classes=2, train=5, val=1), tmp_path / "out"

    class Interrupted(data._Progress):
        def __call__(self, done, images, shard):
            super().__call__(done, images, shard)
            if done == 7:
                raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(data, "_Progress", Interrupted)
        assert main(["data", "convert", str(folder), str(out), "--shards=2"]) == 130
    assert error_line(capsys) == "keras-bot: interrupted"
    assert sorted(os.listdir(out)) == ["manifest.partial.json", "train-00000-of-00002"]
    assert main(["data", "convert", str(folder), str(out), "--shards=2"]) == 0
    assert (out / "manifest.json").exists()
