"""`bench data`: the report is consistent, and all pipelines do the same work."""

import json
import pathlib
import statistics
import sys

import numpy as np
import pytest
import tensorflow as tf
from builders import write_image
from PIL import Image

from keras_bot.bench import torch_peer
from keras_bot.bench.data import bench_data, decode_windows, evaluation_pipelines, linked_folder, summarise
from keras_bot.bench.jpegs import read_jpegs
from keras_bot.bench.memory import bench_memory
from keras_bot.cli.main import main
from keras_bot.errors import MisuseError, RunError

TINY = {"image_size": 16, "batch_size": 4, "count": 5, "repeats": 2}


@pytest.mark.thorough
def test_the_report_is_consistent(image_folder, capsys):
    flags = [f"--{name}={value}" for name, value in TINY.items()]
    assert main(["bench", "data", f"--images={image_folder()}", *flags]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["photos"], report["count"], report["repeats"], report["cpus"] > 0) == (21, 8, 2, True)
    assert set(report["turns"]) == {"ours", "limit", "plain", "ours_eval", "keras_eval"}
    for name, turns in report["turns"].items():
        assert len(turns) == 2 and min(turns) > 0
        assert report["images_per_second"][name] == pytest.approx(statistics.median(turns), abs=0.1)
    assert set(report["ratios"]) == {"ours/limit", "ours/plain", "ours_eval/keras_eval"}
    assert min(report["ratios"].values()) > 0


def test_ratios_are_medians_of_paired_turns():
    turns = [{"ours": 2.0, "plain": 1.0}, {"ours": 30.0, "plain": 10.0}, {"ours": 8.0, "plain": 2.0}]
    summary = summarise(turns)
    assert summary["ratios"] == {"ours/plain": 3.0}
    assert summary["images_per_second"] == {"ours": 8.0, "plain": 2.0}


@pytest.mark.parametrize("name", TINY)
def test_numbers_must_be_positive(name, image_folder):
    with pytest.raises(MisuseError, match=f"--{name} must be at least 1, received 0"):
        bench_data(image_folder(), **{**TINY, name: 0})


def test_a_folder_of_valid_jpegs_is_required(tmp_path, image_folder, capsys):
    assert main(["bench", "data"]) == 2
    assert "--images is required" in capsys.readouterr().err
    with pytest.raises(MisuseError, match="nowhere is not a folder"):
        bench_data(tmp_path / "nowhere", **TINY)
    (tmp_path / "empty").mkdir()
    with pytest.raises(MisuseError, match=r"empty contains no \.jpg or \.jpeg files"):
        bench_data(tmp_path / "empty", **TINY)
    broken = next(image_folder().rglob("*.jpg"))
    broken.write_bytes(broken.read_bytes()[:40])
    with pytest.raises(MisuseError, match=str(broken)):
        bench_data(tmp_path, **TINY)


def test_photos_are_found_at_any_depth_and_labelled_by_their_folder(tmp_path):
    for name in ("b/deep/1.JPEG", "a/2.jpg", "a/no.txt"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    jpegs = read_jpegs(tmp_path)
    assert jpegs.images == (b"a/2.jpg", b"b/deep/1.JPEG")
    assert (jpegs.class_names, jpegs.labels) == (("a", "deep"), (0, 1))
    record = jpegs.source(100).read(tf.constant(99, tf.int64))
    assert record["image"].numpy() == b"b/deep/1.JPEG" and record["label"].numpy() == 1


def test_the_limit_decodes_windows_of_the_papers_area(tmp_path):
    Image.new("RGB", (400, 400)).save(tmp_path / "square.jpg")
    pixels = np.concatenate(list(decode_windows(read_jpegs(tmp_path), 20).take(1).as_numpy_iterator()))
    areas = pixels / (3 * 400 * 400)
    assert areas.min() > 0.07 and areas.max() <= 1.0 and areas.std() > 0.1


def test_ours_and_keras_evaluate_the_same_picture(tmp_path):
    down, across = np.meshgrid(np.linspace(0, 255, 90), np.linspace(0, 255, 120), indexing="ij")
    for label, pixels in enumerate((down, across)):
        (tmp_path / str(label)).mkdir()
        write_image(tmp_path / f"{label}/x.jpg", np.stack([pixels, 255 - pixels, pixels], -1).astype(np.uint8))
    with linked_folder(read_jpegs(tmp_path), 6) as folder:
        made = evaluation_pipelines(folder, batch_size=6, image_size=56)
        ours, labels, _ = next(iter(made["ours_eval"]))
        keras, keras_labels = next(iter(made["keras_eval"]))
    assert not folder.exists()
    np.testing.assert_array_equal(labels, keras_labels)
    difference = np.abs(ours.numpy() - keras.numpy())  # a pixel of the gradient is 0.06
    assert difference.mean() < 0.03 and difference.max() < 0.12, (difference.mean(), difference.max())


@pytest.mark.thorough
def test_memory_is_measured_in_separate_processes(image_folder):
    folder = image_folder()
    report = bench_memory(folder, image_size=16, batch_size=4, images=(8, 40))
    few, many = report["peak_mib"]["8"], report["peak_mib"]["40"]
    assert 100 < few < 4000
    assert report["growth_mib"] == pytest.approx(many - few, abs=0.11)
    with pytest.raises(RunError, match=r"with 2 images failed: .*batch"):
        bench_memory(folder, image_size=16, batch_size=4, images=(2,))


def peer(monkeypatch, code):
    """Returns a TorchPeer whose process runs `code`, even if PyTorch is not installed."""
    start = torch_peer.subprocess.Popen
    monkeypatch.setattr(torch_peer.importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(
        torch_peer.subprocess, "Popen", lambda command, **options: start([sys.executable, "-c", code], **options)
    )
    return torch_peer.TorchPeer([pathlib.Path("x.jpg")], 4, 16)


def test_memory_needs_a_batch_of_at_most_the_fewest_images(image_folder):
    with pytest.raises(MisuseError, match="must be at most 1000 with --memory, received 1001"):
        bench_data(image_folder(), memory=True, **{**TINY, "batch_size": 1001})


def test_the_torch_process_is_timed_in_turns(monkeypatch):
    code = "import json, sys; sys.stdin.readline()\nfor line in iter(sys.stdin.readline, ''):\n"
    code += "    print(json.dumps({'seconds': json.loads(line)['batches'] / 2}), flush=True)"
    with peer(monkeypatch, code) as arm:
        assert (arm(1, 8), arm(1, 3)) == (4.0, 1.5)
    assert arm._process.returncode == 0


def test_a_missing_torch_or_an_ended_process_is_reported(monkeypatch, image_folder):
    with peer(monkeypatch, "pass") as arm, pytest.raises(RunError, match="torchvision's process ended"):
        arm(1, 8)
    monkeypatch.setattr(torch_peer.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MisuseError, match="--torch requires torch and torchvision"):
        bench_data(image_folder(), torch=True, **TINY)
