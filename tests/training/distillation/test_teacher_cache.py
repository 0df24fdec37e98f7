"""Training from the teacher cache equals training with the teacher, and stale caches are rejected."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from test_train import same_weights, stopped_after, tiny
from tiny_training import train_tiny

from keras_bot import tricks
from keras_bot.errors import MisuseError, RunError
from keras_bot.recipe import Recipe
from keras_bot.tasks.classification import Classification
from keras_bot.training.batches import build_batch_transform
from keras_bot.training.compile import compile_trainee
from keras_bot.training.distillation.cache import TeacherCache, _host
from keras_bot.training.distillation.soft_targets import TopKCrossentropy, top_k_targets
from keras_bot.training.distillation.targets import check_cache
from keras_bot.training.distillation.teacher import load_teacher
from keras_bot.training.distributed.selection import build_strategy
from keras_bot.training.failures import user_errors
from keras_bot.training.optimizer import build_optimizer
from keras_bot.training.schedule import build_schedule

CLASSES, STEPS = 4, 4  # of `recipe`


def network(filters):
    keras.utils.set_random_seed(filters)
    images = keras.Input((None, None, 3))
    x = keras.layers.ReLU()(keras.layers.BatchNormalization()(keras.layers.Conv2D(filters, 3, strides=2)(images)))
    logits = keras.layers.Dense(CLASSES, kernel_initializer="random_normal", dtype="float32")
    return keras.Model(images, logits(keras.layers.GlobalAveragePooling2D()(x)))


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    path = tmp_path_factory.mktemp("teacher") / "teacher.keras"
    model = network(8)
    model.layers[-1].set_weights([10 * weight for weight in model.layers[-1].get_weights()])
    model.save(path)
    return path


@pytest.fixture(scope="module")
def written(teacher, tmp_path_factory):
    """A recipe with a complete cache, and the cached targets (steps, B, K)."""
    recipe = recipe_in(tmp_path_factory.mktemp("written"), teacher)
    return recipe, targets(recipe)


@pytest.fixture
def cached(written, tmp_path):
    """A copy of `written` that the test may modify."""
    recipe, cached_targets = written
    shutil.copytree(recipe.teacher_cache, tmp_path / "cache")
    return dataclasses.replace(recipe, teacher_cache=str(tmp_path / "cache")), cached_targets


@pytest.fixture
def recipe(teacher, tmp_path):
    """A recipe with an empty cache."""
    return recipe_in(tmp_path, teacher)


def recipe_in(tmp_path, teacher):
    values = {"dataset": "synthetic", "num_classes": CLASSES, "synthetic_images": 32, "batch_size": 8}
    values |= {"image_size": 12, "transform": "cifar", "epochs": 3, "mixup_alpha": 0.2}
    cache = {"teacher": str(teacher), "teacher_cache": str(tmp_path / "cache")}
    return Recipe(**values, **cache, label_smoothing=0.1, learning_rate=0.02, schedule="constant", jit_compile="off")


def without_cache(recipe):
    return dataclasses.replace(recipe, teacher_cache="", teacher_top_k=0)


def batches(recipe, first_epoch=0, first_step=0, source=None):
    source = source or Classification().open_source(recipe, "train")
    strategy = build_strategy(recipe)
    teacher = load_teacher(recipe, source.num_classes)
    if recipe.teacher_cache:
        check_cache(recipe, source, teacher, strategy)
    place = {"first_epoch": first_epoch, "first_step": first_step}
    return Classification().training_data(recipe, source, None, strategy=strategy, **place)


def targets(recipe, **options):
    """Returns the teacher's outputs for all images, (steps, B, n)."""
    return np.stack([batch_targets for _, (_, batch_targets) in batches(recipe, **options)])


def trained(recipe):
    """Trains a small student; returns its weights, and losses and top-1 per epoch."""
    with tricks.mixed_precision(recipe.precision):
        model = network(4)
        teacher = load_teacher(recipe, CLASSES)
        task, optimizer = Classification(), build_optimizer(recipe, build_schedule(recipe, STEPS), model)
        trainee = task.build_trainee(recipe, model, teacher)
        options = {"losses": task.build_losses(None), "step_transform": task.build_step_transform(recipe)}
        compile_trainee(recipe, trainee, model, optimizer, build_strategy(recipe), **options)
        stream = batches(recipe)
        history = trainee.fit(stream, epochs=recipe.epochs, steps_per_epoch=STEPS, shuffle=False, verbose=0).history
    return model.get_weights(), [history["loss"], history["top1"]]


def files(recipe):
    return sorted(os.listdir(recipe.teacher_cache))


FILES = ["cache.json", "epoch-00001.npy", "epoch-00002.npy", "epoch-00003.npy"]


HALF = {"precision": "mixed_float16", "accumulation_steps": 2, "distill_hard_weight": 0.3}


@pytest.mark.thorough
@pytest.mark.parametrize(
    "changes",
    [
        {"mixup_off_epochs": 1},
        {"augment_on": "device"},
        HALF,
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_training_with_the_teacher_and_from_its_cache_is_the_same(recipe, changes):
    recipe = dataclasses.replace(recipe, **changes)
    with_teacher, written, read = trained(without_cache(recipe)), trained(recipe), trained(recipe)
    for result in (written, read):
        for a, b in zip((*result[0], *result[1]), (*with_teacher[0], *with_teacher[1]), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    for a, b in zip(written[0], read[0], strict=True):
        np.testing.assert_array_equal(a, b)
    assert min(read[1][0]) > 100  # T^2 times an entropy
    assert files(recipe) == FILES


@pytest.mark.parametrize("augment_on", ["host", pytest.param("device", marks=pytest.mark.thorough)])
def test_the_teacher_sees_mixed_images_and_labels_are_smoothed_and_mixed(recipe, augment_on):
    """one_hot -> smooth -> mixup -> teacher; images and labels are mixed with the same weight."""
    recipe = dataclasses.replace(recipe, epochs=2, mixup_off_epochs=1)
    plain = without_cache(recipe)
    teacher = keras.saving.load_model(recipe.teacher)
    recipe = dataclasses.replace(recipe, augment_on=augment_on)
    transform = build_batch_transform(recipe)
    for (images, labels), (x, (cached_labels, logits)) in zip(batches(plain), batches(recipe), strict=True):
        np.testing.assert_allclose(logits, teacher(images, training=False), rtol=1e-4, atol=1e-4)
        if augment_on == "device":
            _, cached_labels = transform(tf.zeros([8, 1, 1, 3]), cached_labels, x[3][0], x[4][0])
        np.testing.assert_allclose(cached_labels, labels, rtol=1e-6)
    last = np.unique(np.round(labels, 5))  # the last epoch is without mixup
    np.testing.assert_allclose(last, [0.1 / 3, 0.9], atol=1e-5)


def reference(logits, z, k, temperature):
    """Returns the soft loss in float64 for the full distribution; classes outside the top k share equally."""
    q = np.exp(logits.astype("float64") / temperature)
    q /= q.sum(-1, keepdims=True)
    for row in q:
        others = np.argsort(-row)[k:]
        row[others] = row[others].mean() if k < len(row) else 0
    log_p = z / temperature - np.log(np.exp(z.astype("float64") / temperature).sum(-1, keepdims=True))
    return -(temperature**2) * (q * log_p).sum(-1)


@pytest.mark.parametrize("k", [1, 3, 7])
@pytest.mark.parametrize("temperature", [1.0, 20.0])
def test_the_top_k_loss(k, temperature):
    draw = np.random.default_rng(0)
    logits, z = draw.normal(size=(2, 5, 7)).astype("float32") * 8
    stored = top_k_targets(logits, k, temperature)
    assert stored.shape == (5, 2 * k) and stored.dtype == "float32"
    np.testing.assert_array_equal(stored[:, 0], logits.argmax(-1))
    loss = TopKCrossentropy(temperature).call(tf.constant(stored), tf.constant(z))
    np.testing.assert_allclose(loss, reference(logits, z, k, temperature), rtol=2e-5)
    if k == 7:
        whole = tricks.SoftCrossentropy(temperature).call(tf.constant(logits), tf.constant(z))
        np.testing.assert_allclose(loss, whole, rtol=2e-5)


def test_the_student_may_change_but_not_the_teacher_or_its_inputs(cached, tmp_path):
    recipe, cached_targets = cached
    free = {"model": "resnet18_d", "label_smoothing": 0.0, "epochs": 2, "sync_bn": True, "distill_temperature": 3.0}
    free |= {"learning_rate": 0.5, "accumulation_steps": 2, "ram_budget": 99, "jit_compile": "on"}
    np.testing.assert_array_equal(targets(dataclasses.replace(recipe, **free)), cached_targets[: 2 * STEPS])
    fixed = {"seed": 1, "flip": False, "mixup_alpha": 0.3, "color_jitter": 0.1, "augment_on": "device", "batch_size": 4}
    fixed |= {"precision": "mixed_bfloat16", "teacher_top_k": 2}
    source, teacher = Classification().open_source(recipe, "train"), load_teacher(recipe, CLASSES)

    def assert_rejected(message, source=source, teacher=teacher, **changes):
        with pytest.raises(MisuseError, match=message):
            check_cache(dataclasses.replace(recipe, **changes), source, teacher, build_strategy(recipe))

    for name, value in fixed.items():
        assert_rejected(f"{name} was .*, is {str(value).lower()}", **{name: value})
    assert_rejected(r"epochs before mixup ends was all, is 1.* nothing was deleted", mixup_off_epochs=2)
    assert_rejected(r"training images was 32 .* is 24 ", source=dataclasses.replace(source, size=24))
    assert_rejected(r"\(teacher was [0-9a-f]{16}, is [0-9a-f]{16}\)", teacher=network(9))
    assert files(recipe) == FILES


def test_top_k_targets_are_cached_for_one_temperature(recipe):
    recipe = dataclasses.replace(recipe, teacher_top_k=2, epochs=1)
    top_targets = targets(recipe)
    assert top_targets.shape == (STEPS, 8, 4)
    assert np.isfinite(trained(recipe)[1]).all()
    np.testing.assert_array_equal(np.load(f"{recipe.teacher_cache}/epoch-00001.npy")["targets"], top_targets)
    with pytest.raises(MisuseError, match="distill_temperature was 20, is 3"):
        batches(dataclasses.replace(recipe, distill_temperature=3.0))


def test_invalid_settings_are_rejected(recipe, tmp_path):
    with pytest.raises(MisuseError, match="teacher_cache has no effect without --teacher"):
        Recipe(teacher_cache="c")
    with pytest.raises(MisuseError, match="teacher_top_k has no effect without --teacher_cache"):
        Recipe(teacher="t", teacher_top_k=2)
    with pytest.raises(MisuseError, match="--teacher_top_k=4 must be less than the 4 classes"):
        batches(dataclasses.replace(recipe, teacher_top_k=4))
    strategy = build_strategy(recipe)
    strategy.workers = 2
    with pytest.raises(MisuseError, match="--teacher_cache supports one worker only, but there are 2"):
        check_cache(recipe, Classification().open_source(recipe, "train"), None, strategy)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/letter.txt").write_text("dear")
    for path in (tmp_path / "mine", tmp_path / "mine/letter.txt"):
        with pytest.raises(
            MisuseError, match=r"--teacher_cache=.*mine.* is neither a new directory nor a teacher cache"
        ):
            batches(dataclasses.replace(recipe, teacher_cache=str(path)))
    with pytest.raises(RunError, match=r"Cannot create --teacher_cache=.*letter.txt/cache"):
        batches(dataclasses.replace(recipe, teacher_cache=str(tmp_path / "mine/letter.txt/cache")))


def test_damaged_files_are_reported(cached, tmp_path):
    recipe, cached_targets = cached
    source, teacher = Classification().open_source(recipe, "train"), load_teacher(recipe, CLASSES)
    file = tmp_path / "cache/epoch-00002.npy"
    data = file.read_bytes()
    for damaged in (data[:-1], data[:40], b"", b"PK" + data, data.replace(b"seen", b"been", 1)):
        file.write_bytes(damaged)
        with pytest.raises(MisuseError, match=r"epoch-00002.npy in the --teacher_cache is damaged or truncated"):
            check_cache(recipe, source, teacher, build_strategy(recipe))
    file.write_bytes(data[:-9] + b"\0\1\2\3" + data[-5:])
    message = r"epoch-00002.npy is damaged: checksum mismatch in step 4.*--resume"
    with pytest.raises(RunError, match=message), user_errors(None):
        targets(recipe)
    file.unlink()
    np.testing.assert_array_equal(targets(recipe), cached_targets)
    assert files(recipe) == FILES and file.read_bytes() == data
    for text in ("{", "[]", "7"):
        (tmp_path / "cache/cache.json").write_text(text)
        with pytest.raises(MisuseError, match=r"Cannot read .*cache.json"):
            check_cache(recipe, source, teacher, build_strategy(recipe))


@pytest.mark.parametrize("augment_on", ["host", pytest.param("device", marks=pytest.mark.thorough)])
def test_changed_images_are_detected(npz_file, recipe, augment_on):
    pixels = np.random.default_rng(0).integers(0, 256, (24, 8, 8, 3), np.uint8)
    changes = {"image_size": 8, "num_classes": 0, "epochs": 1, "augment_on": augment_on}
    recipe = dataclasses.replace(recipe, dataset=str(npz_file(x_train=pixels)), **changes)
    targets(recipe)
    pixels[2] = 0  # not one of the 16 in the data set's checksum
    other = dataclasses.replace(recipe, dataset=str(npz_file("other.npz", x_train=pixels)))
    with pytest.raises(RunError, match=r"cache was computed for other images in step"), user_errors(None):
        targets(other)


@pytest.mark.thorough
def test_an_incomplete_epoch_is_recomputed(written, recipe, tmp_path):
    stream = iter(batches(recipe))
    for _ in range(STEPS + 1):
        next(stream)
    assert "epoch-00003.npy" not in files(recipe) and any(name.endswith(".part") for name in files(recipe))
    del stream  # as if killed
    (tmp_path / f"cache/.epoch-00002.{_host()}.999999999.0-1.part").write_bytes(b"cut")
    (tmp_path / "cache/epoch-00002.npy").unlink(missing_ok=True)
    middle = targets(recipe, first_epoch=1, first_step=2)  # an epoch started in its middle is not cached
    np.testing.assert_array_equal(middle, written[1][STEPS + 2 :])
    assert files(recipe) == [name for name in FILES if name != "epoch-00002.npy"]
    np.testing.assert_array_equal(targets(recipe), written[1])
    assert files(recipe) == FILES


def test_without_a_strategy_the_pipeline_computes_the_targets_on_one_worker(written, recipe):
    recipe = dataclasses.replace(recipe, strategy="one_device")
    source = Classification().open_source(recipe, "train")
    _, (_, first) = next(iter(Classification().training_data(recipe, source, None)))
    np.testing.assert_array_equal(first, written[1][0])


def test_an_unwritable_cache_ends_the_run(recipe):
    stream = iter(batches(dataclasses.replace(recipe, epochs=40)))
    next(stream)
    shutil.rmtree(recipe.teacher_cache)
    with pytest.raises(RunError, match=r"Cannot write to --teacher_cache=.*No such file"), user_errors(None):
        list(stream)


def test_records_are_read_back_in_any_order(tmp_path):
    cache = TeacherCache(tmp_path, steps_per_epoch=3, batch_size=2, target_size=5)
    draw = np.random.default_rng(0)
    fingerprints = draw.normal(size=(3, 2, 3)).astype("float32")
    step_targets = draw.normal(size=(3, 2, 5)).astype("float32")
    cache.begin({"a": "b"})
    cache.check({"a": "b"}, 3)
    for step in (0, 1, 0, 2, 1):  # restarts after two steps; then step 2 arrives too early
        cache.write(0, step, fingerprints[step], step_targets[step])
    assert not cache.path(0).exists()
    for step in range(3):
        cache.write(0, step, fingerprints[step], step_targets[step])
    for step in (2, 0, 1):
        cached = cache.read(0, step)
        np.testing.assert_array_equal(cached.fingerprints, fingerprints[step])
        np.testing.assert_array_equal(cached.targets, step_targets[step])


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The runs of a teacher, and of a student that wrote a cache."""
    folder = tmp_path_factory.mktemp("whole")
    train_tiny(tiny(width=0.5, epochs=1, warmup_epochs=0, mixup_off_epochs=0), folder / "teacher")
    recipe = tiny(teacher=str(folder / "teacher"), teacher_cache=str(folder / "cache"), checkpoint_every=1)
    train_tiny(recipe, folder / "whole")
    return recipe, folder


@pytest.mark.thorough
def test_runs_from_the_cache_and_resumed_runs_end_the_same(whole, tmp_path, monkeypatch):
    recipe, folder = whole
    own_cache = dataclasses.replace(recipe, teacher_cache=str(tmp_path / "cache"))
    for steps in (3, 6):  # within the first epoch, and the second
        stopped_after(steps, monkeypatch, own_cache, tmp_path / "stopped")
    train_tiny(own_cache, tmp_path / "stopped", resume=True)
    assert same_weights(folder / "whole", tmp_path / "stopped")
    train_tiny(recipe, tmp_path / "read")
    assert same_weights(folder / "whole", tmp_path / "read")
    stopped_after(6, monkeypatch, recipe, tmp_path / "switched")
    train_tiny(dataclasses.replace(recipe, teacher_cache=""), tmp_path / "switched", resume=True)
    whole, switched = (keras.saving.load_model(p / "model.keras") for p in (folder / "whole", tmp_path / "switched"))
    for a, b in zip(whole.get_weights(), switched.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.thorough
def test_checkpoints_do_not_contain_the_teacher(whole, tmp_path):
    recipe, folder = whole
    undistilled = dataclasses.replace(recipe, teacher="", teacher_cache="")
    train_tiny(undistilled, tmp_path / "undistilled")
    train_tiny(dataclasses.replace(recipe, teacher_cache=""), tmp_path / "distilled")
    runs = (tmp_path / "undistilled", tmp_path / "distilled", folder / "whole")
    for name in ("checkpoints/step-00000008.npz", "model.keras"):
        sizes = [(run / name).stat().st_size for run in runs]
        assert max(sizes) - min(sizes) < 300, (name, sizes)  # checkpoints contain the history as text
    shapes = [{name: array.shape for name, array in arrays(run / "checkpoints/step-00000008.npz")} for run in runs]
    assert shapes[0] == shapes[1] == shapes[2] and len(shapes[0]) > 10


def arrays(path):
    with np.load(path) as stored:
        yield from ((name, stored[name]) for name in stored.files if name != "state.json")


TWO_DEVICES = """
import dataclasses, sys
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
import keras, numpy as np
sys.path.insert(0, {folder!r})
from test_train import tiny, train
out = sys.argv[1]
train(tiny(width=0.5, epochs=1, warmup_epochs=0, mixup_off_epochs=0), out + "/teacher", progress_bar=False)
for number, changes in enumerate({changes}):
    recipe = tiny(teacher=out + "/teacher", strategy="mirrored", epochs=2, learning_rate=0.01, **changes)
    cached = dataclasses.replace(recipe, teacher_cache=out + f"/cache{{number}}")
    weights = []
    for name, each in (("distilled", recipe), ("written", cached), ("read", cached)):
        run = out + f"/{{name}}{{number}}"
        train(each, run, progress_bar=False)
        weights.append(keras.saving.load_model(run + "/model.keras").get_weights())
    for cached_weights in weights[1:]:
        for a, b in zip(cached_weights, weights[0], strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)
"""
ON_TENSORFLOW = [{"accumulation_steps": 2, "precision": "mixed_float16"}, {"augment_on": "device"}]


@pytest.mark.thorough
@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
def test_on_two_devices(backend, request, tmp_path):
    environment = {**os.environ, "KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"}
    if backend == "jax":
        pytest.importorskip("jax", reason="JAX isn't installed")
        environment["XLA_FLAGS"] = "--xla_force_host_platform_device_count=2"
    changes = ON_TENSORFLOW if backend == "tensorflow" else ON_TENSORFLOW[:1]
    code = TWO_DEVICES.format(folder=str(request.path.parents[2]), changes=json.dumps(changes))
    command = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
