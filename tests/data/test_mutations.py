"""A hundred mutated images: none stops or stalls a run; each that can't be decoded is counted and named."""

import io
import json

import numpy as np
import pytest
import tensorflow as tf
from builders import encode_image
from PIL import Image
from tiny_training import use_tiny_network

from keras_bot.cli.main import main
from keras_bot.data import decode, open_source

DRAW = np.random.default_rng(7)


def _jpeg(height=60, width=80, **options):
    return encode_image(DRAW.integers(0, 256, (height, width, 3), np.uint8), "JPEG", **options)


def _truncated():
    whole = _jpeg(progressive=bool(DRAW.integers(2)))
    return whole[: DRAW.integers(1, len(whole) - 2)]


def _wrong_bytes(start=0, end=None):
    content = bytearray(_jpeg())
    for place in DRAW.integers(start, end or len(content), 40):
        content[place] = DRAW.integers(256)
    return bytes(content)


def _huge_claim():
    """A small file whose header says 65,000 x 65,000 pixels."""
    content = bytearray(_jpeg())
    frame = content.index(b"\xff\xc0")
    content[frame + 5 : frame + 9] = (65000).to_bytes(2, "big") * 2
    return bytes(content)


def _animated_gif():
    frames = [Image.fromarray(DRAW.integers(0, 256, (20, 30, 3), np.uint8)) for _ in range(4)]
    stream = io.BytesIO()
    frames[0].save(stream, "GIF", save_all=True, append_images=frames[1:])
    return stream.getvalue()


BROKEN = {"truncated": _truncated, "zero": lambda: b"", "noise": lambda: DRAW.bytes(500), "huge": _huge_claim}
PERHAPS = {"header": lambda: _wrong_bytes(0, 300), "body": lambda: _wrong_bytes(700)}
WHOLE = {
    "png": lambda: encode_image(DRAW.integers(0, 256, (9, 9, 3), np.uint8)),
    "cmyk": lambda: encode_image(DRAW.integers(0, 256, (40, 40, 3), np.uint8), "JPEG", "CMYK"),
    "grey": lambda: encode_image(DRAW.integers(0, 256, (40, 40), np.uint8), "JPEG"),
    "dot": lambda: _jpeg(1, 1),
    "long": lambda: _jpeg(10, 20000),
    "tall": lambda: _jpeg(20000, 10),
    "gif": _animated_gif,
}
KINDS = {**BROKEN, **PERHAPS, **WHOLE}


@pytest.fixture(autouse=True)
def tiny_networks(monkeypatch):
    use_tiny_network(monkeypatch)


@pytest.fixture(scope="module")
def mutated(tmp_path_factory):
    """A folder with 100 mutated images in `train`, 20 in `val`, and some valid ones, all named .jpg."""
    folder = tmp_path_factory.mktemp("mutated")
    for split, count in (("train", 100), ("val", 20)):
        for label in ("a", "b"):
            (folder / split / label).mkdir(parents=True)
            for i in range(10):
                (folder / split / label / f"whole{i}.jpg").write_bytes(_jpeg())
        for i in range(count):
            kind = list(KINDS)[i % len(KINDS)]
            (folder / split / "ab"[i % 2] / f"{kind}{i}.jpg").write_bytes(KINDS[kind]())
    return folder


@pytest.fixture(scope="module")
def unreadable(mutated):
    """Names of the images that TensorFlow can't decode one by one, of both splits."""
    names = set()
    for split in ("train", "eval"):
        for name in open_source(str(mutated), split).records().map(lambda record: record["name"]).as_numpy_iterator():
            try:
                decode.decode(tf.io.read_file(f"{mutated}/{name.decode()}"))
            except tf.errors.OpError:
                names.add(name.decode())
    return names


def test_the_mutations_are_what_they_are_called(mutated, unreadable):
    names = {str(path.relative_to(mutated)) for path in mutated.rglob("*.jpg")}
    assert len([name for name in names if "/whole" not in name]) == 120
    for kind in BROKEN:
        assert {name for name in names if f"/{kind}" in name} <= unreadable
    for kind in [*WHOLE, "whole"]:
        assert not {name for name in names if f"/{kind}" in name} & unreadable
    assert any("/body" in name or "/header" in name for name in unreadable)


def _train(folder, run_dir, *flags):
    network = ("--model=cifar_resnet8_d", "--width=0.125", "--image_size=16")
    steps = ("--batch_size=10", "--epochs=1", "--schedule=constant")
    return main(["train", f"--dataset={folder}", f"--run_dir={run_dir}", *network, *steps, *flags])


@pytest.mark.thorough
@pytest.mark.parametrize("flags", [[], ["--cache", "--scaled_eval"]])
def test_a_run_steps_over_them_and_names_each(mutated, unreadable, tmp_path, capfd, flags):
    assert _train(mutated, tmp_path / "run", "--max_corrupt=100", *flags) == 0
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert len(metrics["corrupt_images"]) == len(set(metrics["corrupt_images"]))
    # A window of a JPEG damaged elsewhere can be decoded; evaluation decodes whole images.
    surely = {name for name in unreadable if name.startswith("val/") or name.split("/")[-1].startswith(tuple(BROKEN))}
    assert surely <= set(metrics["corrupt_images"]) <= unreadable
    assert len(surely) > 40
    assert np.isfinite(metrics["result"]["loss"])


def test_over_the_limit_there_is_one_clear_error(mutated, tmp_path, capfd):
    assert _train(mutated, tmp_path / "run", "--max_corrupt=5") == 1
    lines = [line for line in capfd.readouterr().err.splitlines() if line.startswith("keras-bot: ")]
    assert len(lines) == 1 and "images can't be decoded, but at most 5 may fail" in lines[0]
    assert "Traceback" not in lines[0]
