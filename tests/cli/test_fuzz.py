"""All commands on a hundred random folders: no traceback, no hang, nothing skipped silently."""

import json
import os
import pathlib
import random
import re
import subprocess
import sys

import pytest
from fuzz_folder import Maker

from keras_bot.paths import is_pattern

COUNT = 100
TIMEOUT = 900  # seconds for all commands of a folder, on a machine that has other work
RUN_ALL = """
import json, os, sys, traceback
from keras_bot.cli.main import main
kept = [os.dup(1), os.dup(2)]
for number, command in enumerate(json.load(open(sys.argv[1]))):
    for target, name in ((1, "out"), (2, "err")):
        file = os.open(f"{sys.argv[2]}/{number}.{name}", os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
        os.dup2(file, target)
        os.close(file)
    try:
        code = main(command)
    except BaseException:
        traceback.print_exc()
        code = 99
    sys.stdout.flush(), sys.stderr.flush()
    open(f"{sys.argv[2]}/{number}.code", "w").write(str(code))
"""


class Commands:
    """Runs commands in one process of its own, and reads what each of them printed."""

    def __init__(self, folder: pathlib.Path):
        self.folder = folder
        self.lines: list[list[str]] = []

    def add(self, *command: str) -> int:
        """Adds a command; returns its number."""
        self.lines.append(list(command))
        return len(self.lines) - 1

    def run(self) -> None:
        self.folder.mkdir()
        (self.folder / "commands.json").write_text(json.dumps(self.lines))
        program = [sys.executable, "-c", RUN_ALL, str(self.folder / "commands.json"), str(self.folder)]
        subprocess.run(program, check=True, timeout=TIMEOUT, cwd=self.folder, stdin=subprocess.DEVNULL)
        for number, line in enumerate(self.lines):
            assert "Traceback" not in self.text(number, "err") + self.text(number, "out"), (
                line,
                self.text(number, "err"),
            )

    def text(self, number: int, kind: str) -> str:
        return (self.folder / f"{number}.{kind}").read_text(encoding="utf-8", errors="replace")

    def code(self, number: int) -> int:
        return int(self.text(number, "code"))

    def check(self, number: int, code: int = 0) -> None:
        assert self.code(number) == code, (self.lines[number], self.text(number, "err"))


def skipped(text: str, split: str) -> int:
    """Returns the reported number of skipped entries of a split; the line must name at least one of them."""
    found = re.findall(rf"skipped (\d+) entr(?:y|ies) of .*/{split}, not images \(.+\): .+", text)
    assert len(found) <= 1
    return int(found[0]) if found else 0


def training_flags(draw, folder, run):
    """A tiny training with one of the transforms."""
    return [
        "--model=cifar_resnet8_a",
        "--width=0.25",
        "--image_size=16",
        "--epochs=1",
        f"--batch_size={draw.randint(1, 2)}",
        f"--transform={draw.choice(['imagenet', 'cifar', 'plain'])}",
        "--max_corrupt=100",
        "--warmup_epochs=0",
        "--schedule=constant",
        f"--dataset={folder.path}{draw.choice(['', '/'])}",
        *([f"--run_dir={run}"] if run else []),
    ]


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(COUNT))
def test_all_commands_accept_a_random_folder(seed, tmp_path):
    maker, draw = Maker(tmp_path, seed), random.Random(seed)
    folder = maker.make()
    run, exports = tmp_path / f"{maker.name(control=False)} run", tmp_path / f"{maker.name(control=False)} exports"
    commands = Commands(tmp_path / "commands")
    data = commands.add("data", *training_flags(draw, folder, None), f"--grid={tmp_path / 'grid.png'}")
    train = commands.add("train", *training_flags(draw, folder, run))
    later = {"evaluate": commands.add("evaluate", f"--run_dir={run}")}
    later["report"] = commands.add("report", str(run), f"--output={tmp_path / 'report.html'}")
    made = {}
    for form in ("savedmodel", "keras", "onnx", "litert"):
        made[form] = commands.add(
            "export", f"--run_dir={run}", f"--output_dir={exports}", "--name=it", f"--format={form}"
        )
    good = [path for path in folder.images["val"] if _name(folder, path) not in folder.damaged["val"]]
    bad = [path for path in folder.images["val"] if path not in good]
    predictions = {
        name: commands.add("predict", f"--savedmodel={exports / 'it'}", *map(str, paths))
        for name, paths in (("good", good), ("bad", [*good, *bad]))
    }
    commands.run()

    assert not re.search(
        "Glyph|UserWarning|findfont", "".join(commands.text(i, "err") for i in range(len(commands.lines)))
    )
    commands.check(data)
    shown = commands.text(data, "out")
    assert f"{len(folder.images['train'])} training images, {len(folder.images['val'])} evaluation images" in shown
    for number in (data, train):
        assert {split: skipped(commands.text(number, "err"), split) for split in ("train", "val")} == folder.skipped
    if not folder.is_trainable:
        commands.check(train, 2)
        assert "at least 2" in commands.text(train, "err") and not run.exists()
        return
    commands.check(train)
    metrics = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    named, damaged = set(metrics["corrupt_images"]), folder.damaged["train"] | folder.damaged["val"]
    assert folder.damaged["val"] <= named <= damaged  # an epoch may leave out a training image
    assert (run / "curves.png").exists() and (tmp_path / "grid.png").exists()
    for number in later.values():
        commands.check(number)
    assert json.loads(commands.text(later["evaluate"], "out"))["images"] == len(good)
    refused = commands.code(made["savedmodel"]) == 2
    if refused:  # TensorFlow cannot load from such a path, which is reported before the export
        assert is_pattern(exports / "it")
        assert "Cannot export a SavedModel to" in commands.text(made["savedmodel"], "err")
        assert not (exports / "it").exists()
    for form, number in made.items():
        if form != "savedmodel" or not refused:
            commands.check(number)
    commands.check(predictions["good"], 2 if refused else 0)
    commands.check(predictions["bad"], 2 if refused else int(bool(bad)))
    if not refused:
        lines = re.findall(r"(?m)^ +\d+\.\d\d%  .+$", commands.text(predictions["good"], "out"))
        assert len(lines) == len(good) * min(5, len(folder.classes))


def _name(folder, path):
    return os.fsencode(path.relative_to(folder.path)).decode(errors="replace")
