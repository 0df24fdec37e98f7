"""A run leaves what it should, resumes as if never stopped, and fails in a way that loses nothing."""

import dataclasses
import errno
import json
import os
import pathlib
import shutil
import signal

import keras
import numpy as np
import pytest
from builders import read_history, tiny_recipe
from tiny_training import train_tiny

from keras_bot import data
from keras_bot.cli.flags import read_recipe
from keras_bot.errors import MisuseError, RunError, Terminated
from keras_bot.recipe import Recipe
from keras_bot.tasks.classification import Classification
from keras_bot.trainer import train
from keras_bot.training import batches, preflight, run
from keras_bot.training.callbacks import RunRecorder
from keras_bot.training.checkpoints.run_directory import RunDirectory
from keras_bot.training.checkpoints.run_lock import lock_run
from keras_bot.training.checkpoints.saver import Saver
from keras_bot.training.evaluate import evaluate
from keras_bot.training.schedule import build_schedule

TRICKS = {
    "warmup_epochs": 0.5,
    "schedule": "cosine",
    "label_smoothing": 0.1,
    "mixup_alpha": 0.2,
    "mixup_off_epochs": 1,
    "no_bias_decay": True,
}
SHORT = {"epochs": 1, "mixup_off_epochs": 0}


def tiny(**fields):
    return tiny_recipe(**{**TRICKS, **fields})


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An uninterrupted run: its recipe, directory and result."""
    path = tmp_path_factory.mktemp("train") / "whole"
    return tiny(), path, train_tiny(tiny(), path)


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """The same run, stopped after 4 and 6 of 8 steps: before the first evaluation and in the last epoch."""
    path = tmp_path_factory.mktemp("train") / "stopped"
    for steps in (4, 6):
        stopped_after(steps, pytest.MonkeyPatch(), tiny(checkpoint_every=1), path)
    return path


@pytest.fixture(autouse=True)
def no_curves(monkeypatch):
    """Skips the plot of the curves, which only the run of `whole` draws."""
    monkeypatch.setattr(run, "draw_curves", lambda *_, **__: None)


def test_a_run_directory_holds_everything(whole):
    recipe, path, result = whole
    present = {entry.name for entry in path.iterdir()}
    assert present == {
        *("run.flags", "metrics.json", "history.csv", "curves.png", "tensorboard", "checkpoints"),
        *("model.keras", "best.keras", ".lock"),
    }
    assert read_recipe(path) == recipe
    assert list((path / "tensorboard").rglob("events.*"))
    assert (path / "curves.png").read_bytes().startswith(b"\x89PNG")
    metrics = json.loads((path / "metrics.json").read_text())
    assert metrics["result"]["top1"] == result["top1"]
    assert metrics["network"]["parameters"] > 0 and metrics["dataset"]["train_images"] == 32
    assert [row["epoch"] for row in read_history(path)] == ["1", "2"]


def test_the_learning_rate_follows_the_recipe(whole):
    recipe, path, _ = whole
    schedule = build_schedule(recipe, 4)
    expected = [float(schedule(step)) for step in (4, 8)]  # the step after each epoch
    np.testing.assert_allclose(
        [float(row["learning_rate"]) for row in read_history(path)], expected, rtol=1e-4, atol=1e-8
    )


def test_the_saved_network_is_plain_and_gives_the_same_metrics(whole):
    recipe, path, result = whole
    model = keras.saving.load_model(path / "model.keras")
    assert getattr(model, "optimizer", None) is None
    source = Classification().open_source(recipe, "eval")
    data = Classification().evaluation_data(recipe, source, None)
    again = evaluate(model, data)
    assert again["top1"] == pytest.approx(result["top1"])
    assert again["loss"] == pytest.approx(result["loss"], rel=1e-4)
    best = keras.saving.load_model(path / "best.keras")
    assert evaluate(best, data)["top1"] == pytest.approx(result["best_top1"])


@pytest.mark.parametrize(("tops", "last"), [((0.2,), True), ((0.2, 0.1), False), ((0.1, 0.3, 0.3), True)])
def test_the_last_epoch_is_the_best_if_none_was_better(tops, last):
    zeros = dict.fromkeys(("val_loss", "val_top5", "seconds", "images_per_second"), 0.0)
    history = [{"epoch": number, "val_top1": top, **zeros} for number, top in enumerate(tops, 1)]
    assert RunRecorder(None, {}, 1, None, None, history).last_is_best() is last


class Stop(Exception):
    pass


def stopped_after(steps, monkeypatch, recipe, path):
    """Trains until the state after so many steps is saved, then stops as a kill would."""
    save = Saver._save

    def stop(self, metrics):
        save(self, metrics)
        if self._steps_done() == steps:
            raise Stop

    with monkeypatch.context() as patch:
        patch.setattr(Saver, "_save", stop)
        with pytest.raises(Stop):
            train_tiny(recipe, path, resume=True)


def same_weights(*run_dirs):
    first, *others = (keras.saving.load_model(run_dir / "model.keras").get_weights() for run_dir in run_dirs)
    return all(np.array_equal(a, b) for other in others for a, b in zip(first, other, strict=True))


def test_a_resumed_run_ends_bit_for_bit_as_the_whole_one(whole, stopped, tmp_path):
    recipe, whole_path, _ = whole
    path = shutil.copytree(stopped, tmp_path / "run")
    train_tiny(recipe, path, resume=True)
    assert same_weights(path, whole_path)
    assert [row["epoch"] for row in read_history(path)] == ["1", "2"]
    for ours, theirs in zip(read_history(path), read_history(whole_path), strict=True):
        times = ("seconds", "images_per_second")
        assert {k: v for k, v in ours.items() if k not in times} == {k: v for k, v in theirs.items() if k not in times}


@pytest.mark.thorough
@pytest.mark.parametrize("moment", ["on_train_batch_end", "on_test_batch_end"])
def test_sigterm_saves_and_the_rest_is_as_if_never_stopped(whole, tmp_path, monkeypatch, moment):
    recipe, whole_path, _ = whole
    told = []

    def terminate(self, batch, logs=None):
        if not told and (moment == "on_test_batch_end" or self._steps_done() >= 3):
            told.append(os.kill(os.getpid(), signal.SIGTERM))
        return original(self, batch, logs)

    original = getattr(Saver, moment)
    monkeypatch.setattr(Saver, moment, terminate)
    with pytest.raises(Terminated, match=r"state after step [34] is saved"):
        train_tiny(recipe, tmp_path)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    train_tiny(recipe, tmp_path, resume=True)
    assert same_weights(tmp_path, whole_path)
    assert [row["loss"] for row in read_history(tmp_path)] == [row["loss"] for row in read_history(whole_path)]


def test_a_run_dir_in_use_is_refused(tmp_path):
    path = tmp_path / "run"
    path.mkdir()
    with lock_run(path), pytest.raises(MisuseError, match="Another process"):
        train_tiny(tiny(), path)


@pytest.mark.thorough
def test_a_run_is_not_resumed_on_other_data_and_other_images_are_told(image_folder, tmp_path, monkeypatch, capsys):
    folder = image_folder(classes=3, train=8, val=2)
    recipe = tiny(dataset=str(folder), num_classes=0, max_corrupt=0, checkpoint_every=2, **SHORT)
    stopped_after(2, monkeypatch, recipe, tmp_path / "run")
    for split in ("train", "val"):
        (folder / split / "class0").rename(folder / split / "zebra")
    with pytest.raises(MisuseError, match="a run on other data: the class names have changed"):
        train_tiny(recipe, tmp_path / "run", resume=True)
    for split in ("train", "val"):
        (folder / split / "zebra").rename(folder / split / "class0")
    image = folder / "train" / "class0" / "7.jpg"
    image.rename(tmp_path / "7.jpg")
    with pytest.raises(MisuseError, match="other data: train_images was 24, is 23"):
        train_tiny(recipe, tmp_path / "run", resume=True)
    (tmp_path / "7.jpg").rename(image)
    for split in ("train", "val"):
        first, last = (folder / split / f"class{c}" / "0.jpg" for c in (0, 2))
        first.write_bytes(last.read_bytes())
    assert "some images have changed since" not in capsys.readouterr().err
    train_tiny(recipe, tmp_path / "run", resume=True)
    assert "some images have changed since" in capsys.readouterr().err


def test_a_run_whose_checkpoints_are_gone_is_not_begun_anew(whole, tmp_path):
    recipe, whole_path, _ = whole
    path = shutil.copytree(whole_path, tmp_path / "run")
    history = (path / "history.csv").read_text()
    for file in (path / "checkpoints").iterdir():
        file.unlink()
    with pytest.raises(MisuseError, match=r"checkpoints contains no checkpoints, although 2 epochs are done"):
        train_tiny(recipe, path, resume=True)
    assert (path / "history.csv").read_text() == history


def test_resuming_a_finished_run_changes_nothing(whole):
    recipe, path, result = whole
    before = (path / "history.csv").read_text()
    assert train_tiny(recipe, path, resume=True)["top1"] == result["top1"]
    assert (path / "history.csv").read_text() == before


def test_a_directory_with_a_run_is_refused(whole):
    recipe, path, _ = whole
    with pytest.raises(MisuseError, match="already contains a run of this recipe"):
        train_tiny(recipe, path)
    with pytest.raises(MisuseError, match=r"another recipe \(seed was 0, is 5\)"):
        train_tiny(tiny(seed=5), path, resume=True)
    assert read_history(path)


@pytest.mark.thorough
def test_a_run_resumes_with_other_settings_of_the_machine_and_knows_its_corrupt_images(
    tmp_path, monkeypatch, image_folder
):
    folder = image_folder(classes=4)
    (folder / "train/class1/2.jpg").write_bytes(b"broken")
    recipe = tiny(dataset=str(folder), epochs=2)
    path = tmp_path / "run"
    stopped_after(2, monkeypatch, recipe, path)
    (folder / "train/class1/2.jpg").write_bytes((folder / "train/class1/3.jpg").read_bytes())
    train_tiny(dataclasses.replace(recipe, max_corrupt=50, jit_compile="off"), path, resume=True)
    assert json.loads((path / "metrics.json").read_text())["corrupt_images"] == ["train/class1/2.jpg"]


DIGITS = pytest.param({"dataset": "digits", "num_classes": 10}, marks=pytest.mark.thorough)


@pytest.mark.thorough
@pytest.mark.parametrize("change", [DIGITS, {"precision": "mixed_float16"}])
def test_other_runs_resume_bit_for_bit_too(change, tmp_path, monkeypatch):
    recipe = tiny(**{"batch_size": 32, "synthetic_images": 160, "shuffle_buffer": 100, **SHORT, **change})
    train_tiny(recipe, tmp_path / "whole")
    stopped_after(3, monkeypatch, dataclasses.replace(recipe, checkpoint_every=3), tmp_path / "run")
    train_tiny(recipe, tmp_path / "run", resume=True)
    assert same_weights(tmp_path / "run", tmp_path / "whole")
    model = keras.saving.load_model(tmp_path / "run/model.keras")
    assert {layer.compute_dtype for layer in model.layers} == {"float32"}


def test_the_teacher_of_a_run_is_not_overwritten_by_it(whole):
    _, path, _ = whole
    with pytest.raises(MisuseError, match=r"--teacher=.* is inside the run directory"):
        train_tiny(tiny(teacher=str(path)), path, overwrite=True)
    assert (path / "model.keras").exists()


@pytest.mark.thorough
def test_overwrite_starts_anew(whole, tmp_path):
    path = shutil.copytree(whole[1], tmp_path / "run")
    train_tiny(tiny(seed=3, **SHORT), path, overwrite=True)
    assert read_recipe(path).seed == 3 and len(read_history(path)) == 1


def test_foreign_files_are_never_touched(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(MisuseError, match="files that are not part of a keras_bot run"):
        train_tiny(tiny(), tmp_path, overwrite=True)
    assert (tmp_path / "thesis.txt").read_text() == "mine"


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_good_state(tmp_path, monkeypatch):
    path = tmp_path / "run"
    build = batches.build_batch_transform

    def poisoned(recipe):
        transform = build(recipe)

        def transform_late(images, labels, seed, epoch):
            images, labels = transform(images, labels, seed, epoch)
            return images / keras.ops.cast(epoch < 1, images.dtype), labels  # epoch 2 divides by zero

        return transform_late

    monkeypatch.setattr(batches, "build_batch_transform", poisoned)
    with pytest.raises(RunError, match=r"epoch 2.*step.*step-00000004.npz"):
        train_tiny(tiny(), path)
    with np.load(path / "checkpoints/step-00000004.npz") as stored:
        assert all(np.isfinite(stored[name]).all() for name in stored.files if name != "state.json")
    assert len(read_history(path)) == 1


@pytest.mark.thorough
@pytest.mark.parametrize("damage", ["cut", "flipped"])
def test_a_damaged_checkpoint_is_named_and_the_one_before_used(whole, stopped, tmp_path, capsys, damage):
    recipe, whole_path, _ = whole
    path = shutil.copytree(stopped, tmp_path / "run")
    newest = path / "checkpoints/step-00000006.npz"
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes(content[:5000] if damage == "cut" else content)
    train_tiny(recipe, path, resume=True)
    told = capsys.readouterr().err
    assert "step-00000006.npz" in told and "step-00000005.npz" in told
    assert same_weights(path, whole_path)


def test_the_dtype_policy_is_put_back(whole):
    assert keras.config.dtype_policy().name == "float32"


@pytest.mark.thorough
@pytest.mark.parametrize("precision", ["mixed_float16", "mixed_bfloat16"])
def test_half_precision_trains_and_saves_float32(precision, tmp_path):
    result = train_tiny(tiny(precision=precision, **SHORT), tmp_path / "run")
    assert np.isfinite(result["loss"])
    model = keras.saving.load_model(tmp_path / "run/model.keras")
    assert {layer.compute_dtype for layer in model.layers} == {"float32"}


@pytest.fixture
def five_to_evaluate(npz_file):
    """An .npz with 5 test images: less than a batch, and no equal parts for two replicas."""
    images = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), np.uint8)
    return str(npz_file(x_test=images, y_test=np.arange(5) % 4))


@pytest.mark.thorough
@pytest.mark.parametrize("augment_on", ["host", "device"])
def test_two_mirrored_replicas_train_and_their_figures_are_exact(tmp_path, five_to_evaluate, two_replicas, augment_on):
    recipe = tiny(strategy="mirrored", dataset=five_to_evaluate, augment_on=augment_on, **SHORT)
    train_tiny(recipe, tmp_path / "run")
    assert len(read_history(tmp_path / "run")) == 1
    source = data.open_source(five_to_evaluate, "eval")
    options = {"image_size": 8, "transform": "plain"}
    keras.utils.set_random_seed(3)
    with two_replicas.scope():
        model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten(), keras.layers.Dense(4)])
        figures = [
            evaluate(model, data.eval_pipeline(source, data.EvalConfig(batch_size=size, **options))) for size in (2, 8)
        ]
    images, labels, _ = next(iter(data.eval_pipeline(source, data.EvalConfig(batch_size=5, **options))))
    logits = images.numpy().reshape(5, -1) @ model.layers[-1].kernel.numpy()
    likely = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    loss, top1 = -(likely * labels).numpy().sum(1).mean(), (logits.argmax(1) == labels.numpy().argmax(1)).mean()
    assert 0 < top1 < 1
    for each in figures:
        assert each["top1"] == pytest.approx(top1)
        assert each["loss"] == pytest.approx(loss, rel=1e-5)


@pytest.mark.thorough
@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16"])
def test_augmenting_on_the_device_trains_as_on_the_host(tmp_path, precision, npz_file):
    results = []
    for place in ("host", "device"):
        recipe = tiny(dataset=str(npz_file()), augment_on=place, precision=precision, **SHORT)
        train_tiny(recipe, tmp_path / place)
        results.append([[float(row[name]) for name in ("loss", "val_loss")] for row in read_history(tmp_path / place)])
    np.testing.assert_allclose(*results, rtol=2e-3 if precision == "float32" else 0.1)


@pytest.mark.thorough
def test_distillation_trains_the_student_alone(whole, tmp_path):
    _, teacher_run, _ = whole
    before = (teacher_run / "model.keras").read_bytes()
    recipe = tiny(teacher=str(teacher_run), width=0.125, **SHORT)
    result = train_tiny(recipe, tmp_path / "run")
    student = keras.saving.load_model(tmp_path / "run/model.keras")
    assert np.isfinite(result["loss"])
    assert (teacher_run / "model.keras").read_bytes() == before
    teacher = keras.saving.load_model(teacher_run / "model.keras")
    assert student.count_params() < teacher.count_params()


def test_labels_are_smoothed_once_then_mixed():
    recipe = tiny(mixup_off_epochs=1)
    transform = batches.build_batch_transform(recipe)
    labels = np.eye(4, dtype="float32")[[0, 1, 2, 3]]
    images = np.arange(4, dtype="float32").reshape(4, 1, 1, 1)
    mixed_images, mixed = (np.asarray(x) for x in transform(images, labels, np.array([1, 2], "int32"), 0))
    weight = 1 - mixed_images[0, 0, 0, 0] / 3  # image 0 was mixed with image 3
    smooth = labels * 0.9 + (1 - labels) * 0.1 / 3
    np.testing.assert_allclose(mixed, weight * smooth + (1 - weight) * smooth[::-1], rtol=1e-5)
    _, last = transform(images, labels, np.array([1, 2], "int32"), 2)
    np.testing.assert_allclose(np.asarray(last), smooth, rtol=1e-6)


def test_a_recipe_of_another_task_is_refused(tmp_path):
    with pytest.raises(MisuseError, match="recipe's task is detection, but `task` is for classification"):
        train(Recipe(task="detection"), tmp_path / "run", task=Classification())
    assert not (tmp_path / "run").exists()


def test_what_workers_must_have_alike_is_told_in_the_meeting(tmp_path, monkeypatch):
    facts_sent = {}
    monkeypatch.setattr(preflight, "connect_workers", lambda cluster, facts: facts_sent.update(facts))
    preflight.open_run_directory(
        tiny(checkpoint_every=7, keep_checkpoints=9), tmp_path / "run", resume=True, overwrite=False
    )
    assert facts_sent["resume"] == "true" and facts_sent["checkpoint_every"] == "7"
    assert "keep_checkpoints" not in facts_sent
    (tmp_path / "run/checkpoints").mkdir(parents=True)
    (tmp_path / "run/run.flags").write_text("\n".join(tiny().flag_lines()))
    (tmp_path / "run/metrics.json").write_text("cut sho")
    with pytest.raises(RunError, match=r"metrics\.json"):
        preflight.open_run_directory(tiny(), tmp_path / "run", resume=True, overwrite=False)
    assert "metrics.json" in facts_sent["trouble"]


def test_what_a_kill_leaves_of_the_first_write_is_no_other_file(tmp_path):
    (tmp_path / ".run.flags.123.part").write_text("--dat")
    RunDirectory(tmp_path, tiny(), resume=True)
    (tmp_path / "notes.txt").touch()
    with pytest.raises(MisuseError, match="files that are not part of a keras_bot run"):
        RunDirectory(tmp_path, tiny(), resume=True)


@pytest.mark.thorough
@pytest.mark.parametrize("name", ["best.keras", "model.keras"])
def test_a_full_disk_while_a_network_is_saved_is_told(tmp_path, monkeypatch, name):
    replace = pathlib.Path.replace

    def full(self, target):
        if pathlib.Path(target).name == name:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return replace(self, target)

    monkeypatch.setattr(pathlib.Path, "replace", full)
    with pytest.raises(RunError, match=rf"Cannot write .*{name}: No space left"):
        train_tiny(tiny(**SHORT), tmp_path)
    assert not list(tmp_path.glob(".*part*"))
