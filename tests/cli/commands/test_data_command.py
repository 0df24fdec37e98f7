"""`keras-bot data` and `keras-bot data convert` as a user runs them."""

import contextlib
import fcntl
import io
import json
import os
import pty
import struct
import termios

import pytest
from processes import expect_misuse, run_command

from keras_bot.cli.main import main


def test_data_prints_sizes_and_classes(image_folder):
    folder = image_folder(classes=3, train=5, val=2)
    (folder / "classes.csv").write_text("folder,name\nclass2,crane\nclass0,\nclass1,tench\n")
    shown = run_command("data", f"--dataset={folder}").out
    assert "train: 15 training images, 6 evaluation images" in shown
    assert "3 classes: crane, class0, tench" in shown


def test_a_grid_does_not_overwrite_other_files(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    error = expect_misuse("data", "--dataset=digits", f"--grid={tmp_path / 'notes.txt'}")
    assert "--grid must end in .png" in error and (tmp_path / "notes.txt").read_text() == "mine"


def test_convert_writes_shards_and_prints_one_line_per_shard(image_folder, tmp_path):
    folder, out = image_folder(classes=3, train=5, val=2, name="my photos é"), tmp_path / "out put"
    command = ["data", "convert", folder, out, "--shards=2", "--validation_shards=1", "--first_label=1"]
    for _ in range(2):  # the second time, all shards exist
        shown = run_command(*command)
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


def read_terminal(leader):
    """Returns everything that was written to a terminal whose other end is closed, and closes it."""
    shown = b""
    with contextlib.suppress(OSError):  # Linux's end of file
        while part := os.read(leader, 100_000):
            shown += part
    os.close(leader)
    return shown.decode()


def test_convert_shows_a_bar_on_a_terminal(image_folder, tmp_path):
    folder = image_folder(classes=2, train=5, val=1)
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("4H", 24, 80, 0, 0))
    out = io.StringIO()
    with (
        os.fdopen(follower, "w") as terminal,
        contextlib.redirect_stderr(terminal),
        contextlib.redirect_stdout(out),
    ):
        assert main(["data", "convert", str(folder), str(tmp_path / "out")]) == 0
    shown = read_terminal(leader)
    assert "is complete" not in out.getvalue()
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
def test_misuse_is_reported_in_one_line(image_folder, tmp_path, arguments, code, message):
    folder = image_folder(classes=2, train=3, val=1)
    command = ["data", "convert", *(a.format(folder=folder, tmp=tmp_path) for a in arguments)]
    assert message in run_command(*command, code=code).error
    assert not (tmp_path / "out").exists()


def test_a_class_file_that_disagrees_is_reported_in_one_line(image_folder, tmp_path):
    folder = image_folder(classes=2)
    (folder / "classes.csv").write_text("folder,name\nclass0,a\nclass9,b\n")
    for command in (["data", f"--dataset={folder}"], ["data", "convert", folder, tmp_path / "out"]):
        assert "train has no folder for 'class9'; it doesn't list train's folder 'class1'" in expect_misuse(*command)


def test_an_interrupted_conversion_keeps_complete_shards(image_folder, tmp_path, monkeypatch):
    from keras_bot.cli.commands import data

    out = tmp_path / "out"
    command = ["data", "convert", image_folder(classes=2, train=5, val=1), out, "--shards=2"]

    class Interrupted(data._Progress):
        def __call__(self, done, images, shard):
            super().__call__(done, images, shard)
            if done == 7:
                raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(data, "_Progress", Interrupted)
        assert run_command(*command, code=130).error == "keras-bot: interrupted"
    assert sorted(os.listdir(out)) == ["manifest.partial.json", "train-00000-of-00002"]
    run_command(*command)
    assert (out / "manifest.json").exists()
