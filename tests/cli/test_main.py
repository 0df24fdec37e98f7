"""The commands as a user runs them: exit codes, one line per error, results as JSON."""

import json
import shutil
import sys
import time

import keras
import numpy as np
import pytest
from builders import NO_COLOR, noise, tiny_flags, write_image
from processes import expect_misuse, run_command, run_process
from tiny_training import tiny_network, use_tiny_network

from keras_bot.cli.main import COMMANDS

TINY = tiny_flags(**NO_COLOR)


@pytest.fixture
def tiny_networks(monkeypatch):
    """Trains with `tiny_network`, where the network does not matter."""
    use_tiny_network(monkeypatch)


def test_help_takes_less_than_a_second():
    start = time.perf_counter()
    shown = run_process([sys.executable, "-m", "keras_bot", "--help"])
    assert time.perf_counter() - start < 1
    assert all(command in shown.stdout for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command):
    assert f"keras-bot {command}" in run_command(command, "--help").out


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["tran"], "Unknown command 'tran'. Did you mean train?"),
        (["train", "--epoch=1"], "Did you mean --epochs?"),
        (["train", *TINY, "--model=resnet50d"], "Did you mean resnet50_d"),
        (["train", "--dataset=imagnet2012"], "Did you mean imagenet2012"),
        (["train", "--dataset=/no/such/folder"], "/no/such/folder"),
        (["train", "--dataset=no_such.npz"], "no_such.npz"),
        (["train", *TINY, "--batch_size=33"], "--batch_size=33 is larger than the 32 training images"),
        (["train", *TINY, "--warmup_epochs=2"], "warmup_epochs=2 must be less than epochs=2"),
        (["train", *TINY, "--mixup_alpha=-1"], "mixup_alpha must be at least 0, received -1"),
        (["train", *TINY, "--teacher=nowhere"], "nowhere"),
        (["train", *TINY, "--num_classes=1"], "synthetic train has 1 class, but training needs at least 2"),
        (["train", *TINY, "--epochs=40", "--warmup_epochs=30"], "decay_epochs must start after the 30 warmup epochs"),
        (["train", *TINY, "-h", "--nonsense"], "Unknown flag --nonsense"),
        (["models", "--image_size=-1"], "--image_size must be at least 0"),
        (["train", *TINY, "--run_dir=x", "--resume", "--overwrite"], "--resume and --overwrite cannot be combined"),
        (["train", *TINY, "--resume"], "--resume requires --run_dir"),
        (["train", *TINY, "--overwrite"], "--overwrite requires --run_dir"),
        (["evaluate"], "--run_dir or --model_file is required"),
        (["evaluate", "--run_dir=nowhere"], "nowhere is not a run directory: it contains no run.flags"),
        (["export"], "--run_dir is required"),
        (["export", "--run_dir=nowhere"], "nowhere is not a run directory"),
        (["predict", "x.jpg"], "--savedmodel and at least one image file are required"),
        (["predict", "--savedmodel=nowhere", "x.jpg"], "is not a SavedModel"),
        (["models", "resnet51_d"], "Did you mean resnet50_d"),
        (["bench", "modle"], "Did you mean model?"),
        (["bench", "model", "--mode=trian"], "Did you mean train?"),
    ],
)
def test_misuse_is_reported_in_one_line_with_exit_code_2(argv, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert message in expect_misuse(*argv)
    assert not list(tmp_path.iterdir()), "a refused command left files behind"


def test_train_prints_one_line_per_epoch_and_one_of_json(trained_run):
    lines = trained_run[1].strip().splitlines()
    assert [line.split(" - ")[0] for line in lines[:-1]] == ["epoch 1/2", "epoch 2/2"]
    assert all(" - loss " in line for line in lines[:-1])
    result = json.loads(lines[-1])
    assert {"top1", "top5", "images_per_second", "run_dir"} <= set(result)
    assert 0 <= result["top1"] <= result["top5"] <= 1


FOLDER = ["--image_size=32", "--batch_size=5", "--model=cifar_resnet8_d", "--width=0.25", "--epochs=1"]
SPOILED = {"train/class0/0.jpg": 0, "train/class1/1.jpg": 200, "val/class2/1.jpg": 300}  # and the bytes that are left


@pytest.fixture
def spoiled_folder(image_folder):
    """A folder of images, of which three are cut off."""
    folder = image_folder()
    for name, size in SPOILED.items():
        (folder / name).write_bytes((folder / name).read_bytes()[:size])
    return folder


@pytest.mark.thorough
def test_corrupt_images_are_reported_and_skipped(tmp_path, spoiled_folder, tiny_networks):
    flags = ["train", *FOLDER, f"--dataset={spoiled_folder}"]
    run_command(*flags, f"--run_dir={tmp_path / 'run'}")
    metrics = json.loads((tmp_path / "run/metrics.json").read_text())
    assert sorted(metrics["corrupt_images"]) == sorted(SPOILED)
    line = run_command(*flags, f"--run_dir={tmp_path / 'two'}", "--max_corrupt=1", code=1).error
    assert "images can't be decoded, but at most 1 may fail" in line and "train/class0/0.jpg" in line


def test_too_many_corrupt_images_are_not_drawn(tmp_path, spoiled_folder):
    grid = ["data", *FOLDER, f"--dataset={spoiled_folder}", f"--grid={tmp_path / 'grid.png'}", "--max_corrupt=0"]
    assert "can't be decoded" in run_command(*grid, code=1).error


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: [p.unlink() for p in (folder / "train/class1").iterdir()], "class1 contains no images"),
        (lambda folder: (folder / "val").rename(folder / "vall"), "no folder to evaluate on"),
        (lambda folder: (folder / "train").rename(folder / "trian"), "train is missing"),
        (lambda folder: (folder / "val/class2").rename(folder / "val/classX"), "'classX' is in"),
    ],
)
def test_a_folder_in_another_layout_is_reported(spoil, message, tmp_path, image_folder):
    folder = image_folder()
    spoil(folder)
    assert message in expect_misuse("train", *FOLDER, f"--dataset={folder}", f"--run_dir={tmp_path / 'run'}")


def test_labels_outside_the_classes_are_reported(tmp_path, npz_file):
    file = npz_file(y_train=np.full(24, 7))
    flags = [f"--dataset={file}", "--num_classes=4", f"--run_dir={tmp_path / 'run'}"]
    assert "7" in expect_misuse("train", *FOLDER, *flags)


def test_a_non_finite_loss_stops_with_one_line_and_exit_code_1(tmp_path, tiny_networks):
    line = run_command("train", *TINY, "--learning_rate=1e30", f"--run_dir={tmp_path / 'run'}", code=1).error
    assert "The loss became" in line and "in epoch 1, step " in line and "No state was saved" in line


@pytest.mark.thorough
def test_a_non_finite_loss_in_the_last_step_of_an_epoch_saves_nothing(tmp_path, tiny_networks):
    one_step = ["--synthetic_images=8", "--batch_size=8", "--learning_rate=1e30", f"--run_dir={tmp_path / 'run'}"]
    assert "The loss became" in run_command("train", *TINY, *one_step, code=1).error
    assert {path.name for path in (tmp_path / "run").iterdir()} <= {"run.flags", "tensorboard", ".lock"}


def teacher_error(tmp_path):
    """Returns the error line of a training with the teacher in the test's folder."""
    return expect_misuse("train", *TINY, f"--teacher={tmp_path / 'teacher.keras'}", f"--run_dir={tmp_path / 'run'}")


def test_a_teacher_with_softmax_is_refused(tmp_path, tiny_networks):
    network = tiny_network()
    network.layers[-1].activation = keras.activations.softmax
    network.save(tmp_path / "teacher.keras")
    assert "The teacher must return logits" in teacher_error(tmp_path)


def test_a_damaged_teacher_is_reported(tmp_path, tiny_networks):
    (tmp_path / "teacher.keras").write_bytes(b"PK nonsense")
    assert "teacher.keras: it is damaged" in teacher_error(tmp_path)


def test_a_run_dir_that_cannot_be_created_is_reported(tmp_path, tiny_networks):
    (tmp_path / "file").write_text("")
    assert "Cannot create the directory" in expect_misuse("train", *TINY, f"--run_dir={tmp_path / 'file' / 'run'}")


def test_an_export_stays_in_its_directory(run_dir):
    assert "--name must not contain a path" in expect_misuse("export", f"--run_dir={run_dir}", "--name=../elsewhere")


def test_a_dry_run_prints_the_plan_without_training(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    bag = ["--no_bias_decay", "--schedule=cosine", "--epochs=10", "--warmup_epochs=2", "--mixup_alpha=0.2"]
    shown = run_command("train", *TINY, *bag, "--linear_scaling", "--dry_run").out
    assert "4 per epoch, 40 in total" in shown
    assert "0.003125  (peak)" in shown and "mixup, alpha 0.2 (5.4)" in shown
    decayed, spared = shown.split("not decayed:")
    assert "stem" in decayed and "gamma" in spared and "gamma" not in decayed.split("decayed:")[1]
    assert not list(tmp_path.iterdir())


def test_evaluate_reproduces_the_metrics_of_the_training(run_dir):
    result = run_command("evaluate", f"--run_dir={run_dir}").result
    trained = json.loads((run_dir / "metrics.json").read_text())["result"]
    assert result["top1"] == pytest.approx(trained["top1"])
    assert result["loss"] == pytest.approx(trained["loss"], rel=1e-4)


def test_evaluate_takes_overrides_and_checks_the_classes(run_dir):
    assert "7 classes" in expect_misuse("evaluate", f"--run_dir={run_dir}", "--num_classes=7")


def test_predict_prints_the_likeliest_classes(savedmodel, tmp_path):
    files = [write_image(tmp_path / name, noise(20, 30, 3)) for name in ("a.png", "b.jpg")]
    lines = run_command("predict", f"--savedmodel={savedmodel}", "--top=3", *files).out.strip().splitlines()
    assert len(lines) == 2 * 4 and lines[0].endswith("a.png") and lines[4].endswith("b.jpg")
    shares = [float(line.split("%")[0]) for line in lines[1:4]]
    assert shares == sorted(shares, reverse=True)


def test_predict_reports_an_unreadable_image_and_continues(savedmodel, tmp_path):
    (tmp_path / "bad.jpg").write_bytes(b"no image")
    files = [tmp_path / "bad.jpg", tmp_path / "gone.jpg", write_image(tmp_path / "good.png")]
    shown = run_command("predict", f"--savedmodel={savedmodel}", *files, code=1)
    assert "bad.jpg" in shown.err and "gone.jpg is not a file" in shown.err and "Traceback" not in shown.err
    assert "good.png" in shown.out


def test_an_export_is_only_overwritten_with_the_flag(savedmodel, run_dir, tmp_path):
    shutil.copytree(savedmodel, tmp_path / "saved")
    again = ["export", f"--run_dir={run_dir}", f"--output_dir={tmp_path}", "--name=saved"]
    assert "already exists" in expect_misuse(*again)
    written = (tmp_path / "saved/saved_model.pb").stat().st_mtime_ns
    run_command(*again, "--overwrite")
    assert (tmp_path / "saved/saved_model.pb").stat().st_mtime_ns > written
    assert [path.name for path in tmp_path.iterdir()] == ["saved"], "a partial export was left behind"
    assert "timm" in expect_misuse(*again, "--format=timm") and not list(tmp_path.glob("*.safetensors"))


def test_models_lists_parameters_and_flops():
    header, resnet, cifar, *_ = run_command("models", "resnet10_a", "cifar_resnet8_a").out.splitlines()
    assert header.split() == ["model", "input", "classes", "parameters", "GFLOPs"]
    assert resnet.split() == ["resnet10_a", "224x224", "1000", "5,418,792", "0.889"]
    assert cifar.split() == ["cifar_resnet8_a", "32x32", "10", "78,042", "0.0125"]
    (row,) = json.loads(run_command("models", "--json", "cifar_resnet8_a", "--image_size=64").out)
    assert (row["image_size"], row["num_classes"], row["parameters"]) == (64, 10, 78042)


def test_data_describes_the_data_set_and_draws_samples(tmp_path):
    grid, small = tmp_path / "grid.png", tmp_path / "new" / "small.png"
    assert "32 training images" in run_command("data", *TINY, f"--grid={grid}").out
    run_command("data", *TINY, "--synthetic_images=10", f"--grid={small}")
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in (grid, small))


@pytest.mark.thorough
def test_bench_refinements_reports_a_ratio():
    assert json.loads(run_command("bench", "refinements", *TINY, "--steps=1", "--repeats=1").out)["ratio"] > 0
