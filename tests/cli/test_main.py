"""The commands as a user runs them: exit codes, one line per error, results as JSON."""

import contextlib
import io
import json
import subprocess
import sys
import time

import numpy as np
import pytest

from keras_bot.cli.main import COMMANDS, main

TINY = [
    "--dataset=synthetic",
    "--num_classes=4",
    "--synthetic_images=64",
    "--batch_size=8",
    "--image_size=16",
]
TINY += [
    "--transform=cifar",
    "--color_jitter=0",
    "--pca_noise=0",
    "--model=cifar_resnet8_d",
    "--width=0.25",
    "--epochs=2",
]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run directory, and the output of its training."""
    path = tmp_path_factory.mktemp("runs") / "tiny"
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        assert main(["train", *TINY, f"--run_dir={path}"]) == 0
    return path, printed.getvalue()


@pytest.fixture(scope="module")
def run_dir(trained):
    return trained[0]


@pytest.fixture(scope="module")
def savedmodel(run_dir):
    assert main(["export", f"--run_dir={run_dir}", f"--output_dir={run_dir.parent}", "--name=saved"]) == 0
    return run_dir.parent / "saved"


def error_line(capsys):
    """Returns stderr, which must be a single line."""
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    return lines[0]


def test_help_takes_less_than_a_second():
    start = time.perf_counter()
    shown = subprocess.run([sys.executable, "-m", "keras_bot", "--help"], capture_output=True, text=True, check=True)
    assert time.perf_counter() - start < 1
    assert all(command in shown.stdout for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command, capsys):
    assert main([command, "--help"]) == 0
    assert f"keras-bot {command}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["tran"], "Unknown command 'tran'. Did you mean train?"),
        (["train", "--epoch=1"], "Did you mean --epochs?"),
        (["train", *TINY, "--model=resnet50d"], "Did you mean resnet50_d"),
        (["train", "--dataset=imagnet2012"], "Did you mean imagenet2012"),
        (["train", "--dataset=/no/such/folder"], "/no/such/folder"),
        (["train", "--dataset=no_such.npz"], "no_such.npz"),
        (["train", *TINY, "--batch_size=65"], "--batch_size=65 is larger than the 64 training images"),
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
def test_misuse_is_reported_in_one_line_with_exit_code_2(argv, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(argv) == 2
    assert message in error_line(capsys)
    assert not list(tmp_path.iterdir()), "a refused command left files behind"


def test_train_prints_one_line_per_epoch_and_one_of_json(trained):
    lines = trained[1].strip().splitlines()
    assert lines[0].startswith("epoch 1/2 - loss") and lines[1].startswith("epoch 2/2 - loss")
    result = json.loads(lines[-1])
    assert {"top1", "top5", "images_per_second", "run_dir"} <= set(result)
    assert 0 <= result["top1"] <= result["top5"] <= 1


FOLDER = ["--image_size=32", "--batch_size=4", "--model=cifar_resnet8_d", "--width=0.25", "--epochs=2"]


@pytest.mark.thorough
def test_corrupt_images_are_reported_and_skipped(tmp_path, image_folder, capsys):
    folder = image_folder()
    broken = [folder / "train/class0/0.jpg", folder / "train/class1/1.jpg", folder / "val/class2/1.jpg"]
    for path, size in zip(broken, (0, 200, 300), strict=True):
        path.write_bytes(path.read_bytes()[:size])
    run_dir = tmp_path / "run"
    assert main(["train", *FOLDER, f"--dataset={folder}", f"--run_dir={run_dir}"]) == 0
    metrics = json.loads((run_dir / "metrics.json").read_text())
    assert sorted(metrics["corrupt_images"]) == [str(path.relative_to(folder)) for path in broken]
    capsys.readouterr()
    too_many = ["train", *FOLDER, f"--dataset={folder}", f"--run_dir={tmp_path / 'two'}", "--max_corrupt=1"]
    assert main(too_many) == 1
    line = error_line(capsys)
    assert "images can't be decoded, but at most 1 may fail" in line and "train/class0/0.jpg" in line
    grid = ["data", *FOLDER, f"--dataset={image_folder(train=40, name='more')}", f"--grid={tmp_path / 'grid.png'}"]
    for number in range(9):
        (tmp_path / f"more/train/class0/{number}.jpg").write_bytes(b"broken")
    assert main([*grid, "--max_corrupt=0"]) == 1
    assert "can't be decoded" in error_line(capsys)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: [p.unlink() for p in (folder / "train/class1").iterdir()], "class1 contains no images"),
        (lambda folder: (folder / "val").rename(folder / "vall"), "no folder to evaluate on"),
        (lambda folder: (folder / "train").rename(folder / "trian"), "train is missing"),
        (lambda folder: (folder / "val/class2").rename(folder / "val/classX"), "'classX' is in"),
    ],
)
def test_a_folder_in_another_layout_is_reported(spoil, message, tmp_path, image_folder, capsys):
    folder = image_folder()
    spoil(folder)
    assert main(["train", *FOLDER, f"--dataset={folder}", f"--run_dir={tmp_path / 'run'}"]) == 2
    assert message in error_line(capsys)


def test_labels_outside_the_classes_are_reported(tmp_path, npz_file, capsys):
    file = npz_file(y_train=np.full(24, 7))
    assert main(["train", *FOLDER, f"--dataset={file}", "--num_classes=4", f"--run_dir={tmp_path / 'run'}"]) == 2
    assert "7" in error_line(capsys)


def test_a_non_finite_loss_stops_with_one_line_and_exit_code_1(tmp_path, capsys):
    arguments = ["train", *TINY, "--learning_rate=1e30", f"--run_dir={tmp_path / 'run'}"]
    assert main(arguments) == 1
    line = error_line(capsys)
    assert "The loss became" in line and "in epoch 1, step " in line and "No state was saved" in line


@pytest.mark.thorough
def test_a_non_finite_loss_in_the_last_step_of_an_epoch_saves_nothing(tmp_path, capsys):
    one_step = ["--synthetic_images=8", "--batch_size=8", "--learning_rate=1e30", f"--run_dir={tmp_path / 'run'}"]
    assert main(["train", *TINY, *one_step]) == 1
    assert "The loss became" in error_line(capsys)
    assert {path.name for path in (tmp_path / "run").iterdir()} <= {"run.flags", "tensorboard", ".lock"}


def test_a_teacher_with_softmax_is_refused(tmp_path, capsys):
    from keras_bot import models

    teacher = models.create_model("cifar_resnet8_a", num_classes=4, width=0.25, classifier_activation="softmax")
    teacher.save(tmp_path / "teacher.keras")
    assert main(["train", *TINY, f"--teacher={tmp_path / 'teacher.keras'}", f"--run_dir={tmp_path / 'run'}"]) == 2
    assert "The teacher must return logits" in error_line(capsys)


def test_a_damaged_teacher_is_reported(tmp_path, capsys):
    (tmp_path / "teacher.keras").write_bytes(b"PK nonsense")
    assert main(["train", *TINY, f"--teacher={tmp_path / 'teacher.keras'}", f"--run_dir={tmp_path / 'run'}"]) == 2
    assert "teacher.keras: it is damaged" in error_line(capsys)


def test_a_run_dir_that_cannot_be_created_is_reported(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main(["train", *TINY, f"--run_dir={tmp_path / 'file' / 'run'}"]) == 2
    assert "Cannot create the directory" in error_line(capsys)


def test_an_export_stays_in_its_directory(run_dir, capsys):
    assert main(["export", f"--run_dir={run_dir}", "--name=../elsewhere"]) == 2
    assert "--name must not contain a path" in error_line(capsys)


def test_a_dry_run_prints_the_plan_without_training(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    bag = ["--no_bias_decay", "--schedule=cosine", "--epochs=10", "--warmup_epochs=2", "--mixup_alpha=0.2"]
    assert main(["train", *TINY, *bag, "--linear_scaling", "--dry_run"]) == 0
    shown = capsys.readouterr().out
    assert "8 per epoch, 80 in total" in shown
    assert "0.003125  (peak)" in shown and "mixup, alpha 0.2 (5.4)" in shown
    decayed, spared = shown.split("not decayed:")
    assert "stem" in decayed and "gamma" in spared and "gamma" not in decayed.split("decayed:")[1]
    assert not list(tmp_path.iterdir())


def test_evaluate_reproduces_the_metrics_of_the_training(run_dir, capsys):
    assert main(["evaluate", f"--run_dir={run_dir}"]) == 0
    result = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    trained = json.loads((run_dir / "metrics.json").read_text())["result"]
    assert result["top1"] == pytest.approx(trained["top1"])
    assert result["loss"] == pytest.approx(trained["loss"], rel=1e-4)


def test_evaluate_takes_overrides_and_checks_the_classes(run_dir, capsys):
    assert main(["evaluate", f"--run_dir={run_dir}", "--num_classes=7"]) == 2
    assert "7 classes" in error_line(capsys)


def test_predict_prints_the_likeliest_classes(savedmodel, tmp_path, capsys):
    import tensorflow as tf

    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3)).astype("uint8")
    (tmp_path / "a.png").write_bytes(tf.io.encode_png(image).numpy())
    (tmp_path / "b.jpg").write_bytes(tf.io.encode_jpeg(image).numpy())
    assert (
        main(
            [
                "predict",
                f"--savedmodel={savedmodel}",
                "--top=3",
                str(tmp_path / "a.png"),
                str(tmp_path / "b.jpg"),
            ]
        )
        == 0
    )
    lines = capsys.readouterr().out.strip().splitlines()
    assert len(lines) == 2 * 4 and lines[0].endswith("a.png") and lines[4].endswith("b.jpg")
    shares = [float(line.split("%")[0]) for line in lines[1:4]]
    assert shares == sorted(shares, reverse=True)


def test_predict_reports_an_unreadable_image_and_continues(savedmodel, tmp_path, capsys):
    import tensorflow as tf

    (tmp_path / "bad.jpg").write_bytes(b"no image")
    (tmp_path / "good.png").write_bytes(tf.io.encode_png(np.zeros((9, 9, 3), "uint8")).numpy())
    arguments = [str(tmp_path / "bad.jpg"), str(tmp_path / "gone.jpg"), str(tmp_path / "good.png")]
    assert main(["predict", f"--savedmodel={savedmodel}", *arguments]) == 1
    shown = capsys.readouterr()
    assert "bad.jpg" in shown.err and "gone.jpg is not a file" in shown.err and "Traceback" not in shown.err
    assert "good.png" in shown.out


@pytest.mark.thorough
def test_an_export_is_only_overwritten_with_the_flag(savedmodel, run_dir, capsys):
    again = ["export", f"--run_dir={run_dir}", f"--output_dir={run_dir.parent}", "--name=saved"]
    assert main(again) == 2
    assert "already exists" in error_line(capsys)
    assert main([*again, "--overwrite"]) == 0
    assert not list(run_dir.parent.glob(".saved*")), "a partial export was left behind"
    assert main([*again, "--format=timm"]) == 2
    assert "timm" in error_line(capsys) and not list(run_dir.parent.glob("*.safetensors"))


@pytest.mark.thorough
def test_models_lists_parameters_and_flops(capsys):
    assert main(["models", "resnet50_d", "cifar_resnet20_a"]) == 0
    shown = capsys.readouterr().out
    assert "25,576,264" in shown and "multiply-adds" in shown
    assert main(["models", "--json", "resnet18_a", "--image_size=64"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["image_size"] == 64


def test_data_describes_the_data_set_and_draws_samples(tmp_path, capsys):
    grid = tmp_path / "grid.png"
    assert main(["data", *TINY, f"--grid={grid}"]) == 0
    assert main(["data", *TINY, "--synthetic_images=10", f"--grid={tmp_path / 'new' / 'small.png'}"]) == 0
    assert "64 training images" in capsys.readouterr().out
    assert grid.read_bytes().startswith(b"\x89PNG")


@pytest.mark.thorough
def test_bench_refinements_reports_a_ratio(capsys):
    assert main(["bench", "refinements", *TINY, "--steps=1", "--repeats=1"]) == 0
    assert json.loads(capsys.readouterr().out)["ratio"] > 0
