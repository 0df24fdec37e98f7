"""Detection and segmentation by the trainer: they run, resume, leave tables and pictures, are exported and drawn."""

import json

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from processes import expect_misuse, run_command

from keras_bot import models
from keras_bot.cli.commands.predict import picture_files
from keras_bot.data import CorruptLog
from keras_bot.errors import MisuseError
from keras_bot.export.savedmodel import export_savedmodel
from keras_bot.recipe import Recipe
from keras_bot.tasks import find_task
from keras_bot.tasks.prediction import draw_file
from keras_bot.tasks.serving import load_trained
from keras_bot.trainer import train
from keras_bot.training.checkpoints.saver import Saver
from keras_bot.tricks import mixed_precision


def recipe_for(task, dataset, **changes):
    values = {
        "task": task,
        "dataset": str(dataset),
        "model": "resnet10_d",
        "width": 0.1,
        "head_channels": 8,
        "image_size": 64,
        "batch_size": 4,
        "epochs": 2,
        "optimizer": "adamw",
        "learning_rate": 0.003,
        "schedule": "cosine",
        "color_jitter": 0.1,
        **changes,
    }
    return Recipe(**values)


def save_new_network(recipe, path):
    """Saves a network with new weights, as `train` saves a trained one."""
    task = find_task(recipe.task)
    task.save(task.build_network(recipe, task.open_source(recipe, "train")), path)
    return path


@pytest.fixture
def detector_run(shared_scenes, tmp_path):
    """The run of a detector, and what its training printed."""
    recipe = recipe_for("detection", shared_scenes["detection"], head="retinanet")
    return tmp_path / "run", run_command("train", *recipe.flag_lines(), f"--run_dir={tmp_path / 'run'}").out


@pytest.fixture(scope="module")
def finetuned(shared_scenes, tmp_path_factory):
    """A classifier, the run of a segmenter that began with it, and what its training printed."""
    folder = tmp_path_factory.mktemp("finetuned")
    classifier = models.create_model("resnet10_d", num_classes=3, width=0.1)
    described = {"class_names": ["a", "b", "c"], "recipe": {"model": "resnet10_d", "width": "0.1"}}
    export_savedmodel(classifier, folder / "saved", image_size=64, description=described)
    recipe = recipe_for("segmentation", shared_scenes["segmentation"], head="fcn", frozen_stages=5, width=1.0)
    flags = [line for line in recipe.flag_lines() if "--width" not in line and "--model" not in line]
    done = run_command("finetune", *flags, f"--init_from={folder / 'saved'}", f"--run_dir={folder / 'run'}")
    return classifier, folder / "run", done.out


@pytest.mark.thorough
@pytest.mark.parametrize("task", ["detection", "segmentation"])
def test_a_run_is_exported_inspected_and_drawn(task, shared_scenes, tmp_path, request):
    *_, run, printed = request.getfixturevalue({"detection": "detector_run", "segmentation": "finetuned"}[task])
    result = json.loads(printed.splitlines()[-1])
    metric = {"detection": "map", "segmentation": "mean_iou"}[task]
    assert 0 <= result[metric] <= result[f"best_{metric}"] <= 1 and result["epochs"] == 2
    header = (run / "history.csv").read_text().splitlines()[0]
    assert f"val_{metric}" in header and "top1" not in header
    assert "blue" in (run / "table.md").read_text() and (run / "best.keras").exists()
    assert Image.open(run / "predictions.png").size[0] > 100 and (run / "curves.png").exists()

    out = tmp_path / "out"
    export = ["export", f"--run_dir={run}", f"--output_dir={out}"]
    assert 0 <= run_command(*export).result["worst_difference"] <= 1e-5
    loaded = tf.saved_model.load(out / "run")
    for shape in ((2, 48, 64, 3), (1, 70, 50, 3)):
        images = np.random.default_rng(1).integers(0, 256, shape, np.uint8)
        one, other = loaded.serve(images), loaded.serve(images.astype("float32"))
        if task == "segmentation":
            assert one.shape == shape[:3] and one.dtype == tf.int32 and int(tf.reduce_max(one)) < 3
            np.testing.assert_array_equal(one, other)
            assert loaded.logits(images.astype("float32")).shape == (*shape[:3], 3)
        else:
            assert one["boxes"].shape == (shape[0], 100, 4) and one["scores"].shape == (shape[0], 100)
            np.testing.assert_allclose(one["scores"], other["scores"], atol=1e-5)
            assert float(tf.reduce_max(one["boxes"][..., 2])) <= shape[1] + 1e-3
    figures = run_command("evaluate", f"--run_dir={run}").result
    assert figures["images"] == 4 and set(figures["per_class"]) >= {"blue", "red"}
    assert figures[metric] == pytest.approx(result[metric], abs=1e-6)
    assert "serve: images float32 (?, ?, ?, 3)" in run_command("inspect", out / "run").out
    photo = next(shared_scenes[task].glob("*mages/scene0.jpg"))
    arguments = [f"--output_dir={tmp_path / 'seen'}", "--min_score=0", photo]
    drawn = run_command("predict", f"--savedmodel={out / 'run'}", *arguments).out
    assert (tmp_path / "seen/scene0.png").exists() and "scene0.jpg" in drawn
    assert "%" in drawn or task == "detection"  # which may find nothing yet
    run_command(*export, "--format=keras")
    again = run_command("evaluate", f"--run_dir={run}", f"--model_file={out / 'run.keras'}").result
    assert again[metric] == pytest.approx(result[metric], abs=1e-6)
    if task == "detection":
        run_command("inspect", out / "run.keras")
        error = expect_misuse("report", run, "--dataset=other", f"--output={out / 'page.html'}")
        assert "--dataset=other is only supported for classification, but the runs are for detection" in error


@pytest.mark.parametrize(
    ("head", "text"),
    [
        ("retinanet", "anchor_scale=2.0"),
        ("faster_rcnn", "anchor_scale=2.0"),
        ("faster_rcnn_c4", "anchor_scale=2.0"),
        ("fcn", "base_size=40"),
        ("deeplabv3plus", "output_stride=0"),
    ],
)
def test_a_dry_run_describes_every_head(head, text, shared_scenes, tmp_path):
    task = "segmentation" if head in ("fcn", "deeplabv3plus") else "detection"
    recipe = recipe_for(task, shared_scenes[task], head=head, anchor_scale=2.0, base_size=40, schedule="poly")
    printed = run_command("train", *recipe.flag_lines(), f"--run_dir={tmp_path / 'run'}", "--dry_run").out
    assert text in printed and "8 training and 4 evaluation images" in printed and "head included" in printed
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("task", ["detection", "segmentation"])
def test_a_network_of_other_classes_is_not_evaluated(task, scenes, tmp_path):
    recipe = recipe_for(task, scenes[task])
    save_new_network(recipe, tmp_path / "model.keras")
    if task == "detection":
        (scenes[task] / "classes.txt").write_text("blue\nred\ngreen\n")
    else:
        (scenes[task] / "classes.csv").write_text("id,name\n0,ground\n1,blue\n2,red\n3,green\n")
    flags = [*recipe.flag_lines(), f"--model_file={tmp_path / 'model.keras'}"]
    assert " classes, but " in expect_misuse("evaluate", *flags)


@pytest.mark.thorough
@pytest.mark.parametrize("task", ["detection", "segmentation"])
def test_a_stopped_run_ends_as_the_whole_one(task, scenes, tmp_path, monkeypatch):
    recipe = recipe_for(task, scenes[task], head="retinanet" if task == "detection" else "fcn", checkpoint_every=1)
    options = {"progress_bar": False, "task": find_task(task)}
    train(recipe, tmp_path / "whole", **options)
    ended = Saver.on_train_batch_end

    def stop(self, batch, logs=None):
        ended(self, batch, logs)
        if self._steps_done() == 3:  # within the second epoch
            raise KeyboardInterrupt

    monkeypatch.setattr(Saver, "on_train_batch_end", stop)
    with pytest.raises(KeyboardInterrupt):
        train(recipe, tmp_path / "run", **options)
    monkeypatch.undo()
    train(recipe, tmp_path / "run", resume=True, **options)
    rows = [(tmp_path / name / "history.csv").read_text().splitlines() for name in ("run", "whole")]
    assert [line.split(",")[:-2] for line in rows[0]] == [line.split(",")[:-2] for line in rows[1]]
    ours, theirs = (np.load(tmp_path / name / "checkpoints/step-00000004.npz") for name in ("run", "whole"))
    assert all(np.array_equal(ours[name], theirs[name]) for name in theirs.files if name != "state.json")


@pytest.mark.thorough
def test_finetune_begins_with_an_exported_classifier(finetuned):
    classifier, run, _ = finetuned
    assert "--width=0.1" in (run / "run.flags").read_text()
    stored = np.load(run / "checkpoints/step-00000004.npz")
    kernel = next(stored[name] for name in stored.files if name.endswith("/0/kernel") and name.startswith("model"))
    np.testing.assert_array_equal(kernel, classifier.get_layer("stem_1_conv").kernel)


@pytest.mark.parametrize(
    ("task", "changes", "message"),
    [
        (
            "detection",
            {"head": "fcn"},
            "--head must be faster_rcnn, faster_rcnn_c4 or retinanet for --task=detection",
        ),
        (
            "segmentation",
            {"head": "retinanet"},
            "--head must be fcn or deeplabv3plus for .*segmentation, received retinanet",
        ),
        ("segmentation", {"mixup_alpha": 0.2}, "--mixup_alpha is only supported for --task=classification"),
        ("detection", {"label_smoothing": 0.1}, "--label_smoothing is only supported for --task=classification"),
        ("segmentation", {"output_stride": 5}, "--output_stride must be 8, 16, 32, received 5"),
        ("segmentation", {"model": "cifar_resnet8_d"}, "--model=cifar_resnet8_d has no features C2 … C5"),
        ("detection", {"min_zoom": 3.0}, "--min_zoom must be at most --max_zoom"),
        (
            "segmentation",
            {"optimizer": "adamw", "layer_decay": 0.5},
            "--layer_decay is only supported for --optimizer=nag",
        ),
        ("segmentation", {"init_from": "nowhere"}, "nowhere"),
        ("segmentation", {"shard_by": "file"}, "--shard_by is only supported for --task=classification"),
        ("detection", {"cache": True}, "--cache is only supported for --task=classification"),
        ("detection", {"output_stride": 16}, "--output_stride must be 32 for --head=faster_rcnn, received 16"),
        (
            "detection",
            {"output_stride": 8, "head": "faster_rcnn_c4"},
            "--output_stride must be 16 or 32 for --head=faster_rcnn_c4",
        ),
        ("detection", {"optimizer": "nag", "layer_decay": 0.5}, "--layer_decay is not supported for --task=detection"),
    ],
)
def test_unsupported_options_are_refused_and_leave_nothing(task, changes, message, shared_scenes, tmp_path):
    with pytest.raises(MisuseError, match=message):
        train(recipe_for(task, shared_scenes[task], **changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_one_file_of_boxes_is_not_both_trained_and_evaluated_on(tmp_path):
    (tmp_path / "boxes.json").write_text("{}")
    with pytest.raises(MisuseError, match=r"boxes\.json is one annotation file, which would be used for both"):
        find_task("detection").open_source(recipe_for("detection", tmp_path / "boxes.json"), "train")


def test_a_detector_of_half_precision_is_saved_in_float32(shared_scenes, tmp_path):
    recipe = recipe_for("detection", shared_scenes["detection"], head="retinanet", precision="mixed_bfloat16")
    task = find_task("detection")
    with mixed_precision(recipe.precision):
        detector = task.build_network(recipe, task.open_source(recipe, "train"))
        assert "bfloat16" in {layer.compute_dtype for layer in detector._flatten_layers()}
        task.save(detector, tmp_path / "model.keras")
    loaded = load_trained(tmp_path / "model.keras", "detection")
    assert {layer.compute_dtype for layer in loaded._flatten_layers()} == {"float32"}
    for ours, theirs in zip(loaded.get_weights(), detector.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_classes_that_disagree_are_refused_and_other_orders_counted_alike(scenes, tmp_path):
    folder = scenes["detection"]
    names = {"blue": 1, "red": 2}
    boxes = [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [4, 4, 20, 20]}]
    for split, order in (("train", names), ("val", {"red": 1, "blue": 2})):
        categories = [{"id": number, "name": name} for name, number in order.items()]
        images = [{"id": 1, "file_name": "scene0.jpg", "height": 48, "width": 64}]
        content = {"images": images, "annotations": boxes, "categories": categories}
        (tmp_path / "annotations").mkdir(exist_ok=True)
        (tmp_path / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
    (tmp_path / "images").symlink_to(folder / "JPEGImages")
    recipe, task = recipe_for("detection", tmp_path), find_task("detection")
    train_source = task.open_source(recipe, "train")
    held_out = task.open_source(recipe, "eval", class_names=train_source.class_names)
    assert train_source.annotations.classes.tolist() == [0] and held_out.annotations.classes.tolist() == [1]
    path = tmp_path / "annotations/instances_val.json"
    path.write_text(path.read_text().replace("red", "green"))
    with pytest.raises(MisuseError, match="green"):
        task.open_source(recipe, "eval", class_names=train_source.class_names)


@pytest.mark.thorough
@pytest.mark.parametrize("task", ["detection", "segmentation"])
def test_padding_and_broken_images_are_not_drawn(task, scenes, tmp_path):
    image = next(scenes[task].glob("*mages/scene9.jpg"))
    image.write_bytes(image.read_bytes()[:300])  # the second of four held out
    recipe, parts = recipe_for(task, scenes[task], batch_size=3), find_task(task)
    source = parts.open_source(recipe, "eval")
    trainee = parts.build_trainee(recipe, parts.build_network(recipe, source), teacher=None)
    log = CorruptLog(1)
    parts.build_evaluator(recipe, source, log).report(trainee, tmp_path)
    assert log.names == [name for name in log.names if "scene9" in name] and log.names
    assert Image.open(tmp_path / "predictions.png").size[0] > 100 and (tmp_path / "table.md").exists()


@pytest.mark.thorough
def test_a_detector_is_no_classifier_to_begin_with(shared_scenes, tmp_path):
    recipe = recipe_for("detection", shared_scenes["detection"])
    path = save_new_network(recipe, tmp_path / "model.keras")
    assert "does not contain a classifier" in expect_misuse("finetune", *recipe.flag_lines(), f"--init_from={path}")


def test_of_the_boxes_found_none_is_padding(tmp_path):
    Image.new("RGB", (40, 30)).save(tmp_path / "photo.png")
    found = {"boxes": [[[1, 2, 11, 22], [3, 4, 9, 9], [-1] * 4]], "scores": [[0.9, 0.2, 0.0]], "classes": [[1, 0, -1]]}
    found = {name: tf.constant(value) for name, value in found.items()}
    described = {"task": "detection", "class_names": ["cat", "dog"]}
    for least, lines in (
        (0.0, [" 90.00%  dog  1 2 11 22", " 20.00%  cat  3 4 9 9"]),
        (0.5, [" 90.00%  dog  1 2 11 22"]),
    ):
        drawn = draw_file(lambda images: found, described, tmp_path / "photo.png", tmp_path / "out.png", least)
        assert drawn == lines


def test_no_picture_takes_the_place_of_an_image_or_of_another(tmp_path):
    images = [str(tmp_path / name) for name in ("a.png", "b/a.jpg", "c/a.jpg", "d.jpg")]
    names = [path.name for path in picture_files(images, tmp_path)]
    assert names == ["a-2.png", "a-3.png", "a-4.png", "d.png"]
