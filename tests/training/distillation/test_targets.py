"""The cache key contains exactly what the targets depend on; other images and other settings are refused."""

import dataclasses
import re
import types

import keras
import numpy as np
import pytest

from keras_bot.errors import MisuseError, RunError
from keras_bot.recipe import Recipe
from keras_bot.training.distillation import targets
from keras_bot.training.distillation.targets import cache_key, check_cache

SOURCE = types.SimpleNamespace(name="flowers", size=21, num_classes=6, fingerprint=lambda: "0123")
RECIPE = Recipe(teacher="t", teacher_cache="cache", batch_size=4, epochs=9, schedule="cosine")


def build(bias=0.0, scale=2.0):
    inputs = keras.Input((3,))
    x = keras.layers.Rescaling(scale)(inputs)
    initializer = keras.initializers.Constant(bias)
    return keras.Model(inputs, keras.layers.Dense(6, kernel_initializer="ones", bias_initializer=initializer)(x))


@pytest.fixture(scope="module")
def teacher():
    return build()


def key(teacher, source=SOURCE, replicas=1, **changes):
    return cache_key(dataclasses.replace(RECIPE, **changes), source, teacher, replicas)


def test_the_key_of_a_plain_recipe(teacher):
    found = key(teacher)
    assert re.fullmatch(r"[0-9a-f]{16}", found.pop("teacher"))
    assert found == {
        "training images": "21 (0123)",
        "classes": "6",
        **{"seed": "0", "batch_size": "4", "image_size": "224", "transform": "imagenet", "flip": "true"},
        **{"min_area": "0.08", "crop_padding": "4", "color_jitter": "0.4", "pca_noise": "0.1"},
        **{"mixup_alpha": "0.0", "augment_on": "host", "precision": "float32", "shuffle_buffer": "8192"},
        **{"cache": "false", "teacher_top_k": "0", "epochs before mixup ends": "all", "replicas that mix": "1"},
    }


@pytest.mark.parametrize(
    "changes",
    [
        *({"seed": 1}, {"batch_size": 8}, {"image_size": 32}, {"transform": "cifar"}, {"flip": False}),
        *({"min_area": 0.2}, {"crop_padding": 2}, {"color_jitter": 0.1}, {"pca_noise": 0.2}, {"mixup_alpha": 0.3}),
        *({"augment_on": "device"}, {"precision": "mixed_bfloat16"}, {"shuffle_buffer": 9}, {"cache": True}),
    ],
    ids=str,
)
def test_a_setting_of_the_batches_is_in_the_key(changes, teacher):
    before, after = key(teacher), key(teacher, **changes)
    ((name, value),) = changes.items()
    assert {item for item in after.items() if item not in before.items()} == {(name, Recipe(**changes).as_text()[name])}
    assert value is not None


@pytest.mark.parametrize(
    "changes",
    [
        *({"model": "resnet18_d"}, {"learning_rate": 1.0}, {"label_smoothing": 0.1}, {"epochs": 20}),
        *({"distill_temperature": 3.0}, {"weight_decay": 0.5}, {"mixup_off_epochs": 2}, {"accumulation_steps": 2}),
        {"distill_hard_weight": 0.5},
    ],
    ids=str,
)
def test_a_setting_of_the_student_is_not_in_the_key(changes, teacher):
    assert key(teacher, **changes) == key(teacher)


def test_the_temperature_matters_for_the_top_k_only(teacher):
    found = key(teacher, teacher_top_k=2, distill_temperature=3.0)
    assert found["distill_temperature"] == "3" and found["teacher_top_k"] == "2"
    assert "distill_temperature" not in key(teacher, distill_temperature=3.0)


@pytest.mark.parametrize(("alpha", "off", "text"), [(0.2, 2, "7"), (0.2, 0, "all"), (0.0, 2, "all")])
def test_the_epoch_in_which_mixup_ends_matters(alpha, off, text, teacher):
    assert key(teacher, mixup_alpha=alpha, mixup_off_epochs=off)["epochs before mixup ends"] == text


@pytest.mark.parametrize(
    ("alpha", "augment_on", "text"),
    [(0.2, "device", "4"), (0.0, "device", "1"), (0.2, "host", "1")],
)
def test_replicas_matter_if_each_mixes_its_own_images(alpha, augment_on, text, teacher):
    found = key(teacher, replicas=4, mixup_alpha=alpha, augment_on=augment_on)
    assert found["replicas that mix"] == text


def test_the_teachers_weights_and_input_conversion_matter(teacher):
    same, bias, scale = (key(each)["teacher"] for each in (build(), build(bias=1e-6), build(scale=2.5)))
    assert same == key(teacher)["teacher"] and len({same, bias, scale}) == 3


def test_the_data_matter(teacher):
    other = types.SimpleNamespace(name="x", size=22, num_classes=7, fingerprint=lambda: "9")
    found = key(teacher, other)
    assert (found["training images"], found["classes"]) == ("22 (9)", "7")


class FakeCache:
    """Records how it is opened and checked."""

    opened, checked = [], []

    def __init__(self, folder, **sizes):
        self.opened.append((folder, sizes))

    def check(self, *arguments):
        self.checked.append(arguments)


@pytest.mark.parametrize(("top_k", "size"), [(0, 6), (2, 4), (5, 10)])
def test_the_cache_is_checked_for_the_recipes_sizes(top_k, size, teacher, monkeypatch):
    monkeypatch.setattr(targets, "TeacherCache", FakeCache)
    FakeCache.opened.clear(), FakeCache.checked.clear()
    recipe = dataclasses.replace(RECIPE, teacher_top_k=top_k, mixup_alpha=0.2, augment_on="device")
    check_cache(recipe, SOURCE, teacher, types.SimpleNamespace(workers=1, replicas=2))
    sizes = {"steps_per_epoch": 5, "batch_size": 4, "target_size": size}
    assert FakeCache.opened == [("cache", sizes)]
    assert FakeCache.checked == [(cache_key(recipe, SOURCE, teacher, 2), 9)]


def test_several_workers_and_too_many_classes_are_refused(teacher):
    with pytest.raises(MisuseError) as raised:
        check_cache(RECIPE, SOURCE, teacher, types.SimpleNamespace(workers=2, replicas=2))
    assert str(raised.value) == (
        "--teacher_cache supports one worker only, but there are 2. Compute the cache on one worker, or drop the flag."
    )
    with pytest.raises(MisuseError) as raised:
        recipe = dataclasses.replace(RECIPE, teacher_top_k=6)
        check_cache(recipe, SOURCE, teacher, types.SimpleNamespace(workers=1, replicas=1))
    assert str(raised.value) == (
        "--teacher_top_k=6 must be less than the 6 classes of flowers. Use 0 to keep all logits."
    )


@pytest.mark.parametrize(("size", "stride"), [(4, 1), (8, 1), (16, 2), (33, 4)])
def test_a_fingerprint_is_the_mean_of_a_grid_of_pixels(size, stride):
    images = np.random.default_rng(0).normal(size=(2, size, size, 3)).astype("float16")
    grid = [
        images[:, y, x].astype("float32")
        for y in range(stride // 2, size, stride)
        for x in range(stride // 2, size, stride)
    ]
    found = targets._fingerprint(images)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, np.mean(grid, axis=0), rtol=1e-4, atol=1e-5)


class FakeStore:
    """A cache of known fingerprints that records what is written."""

    folder = "cache"

    def __init__(self, fingerprints):
        self.fingerprints, self.written, self.read_at = fingerprints, [], []

    def read(self, epoch, step):
        self.read_at.append((epoch, step))
        return types.SimpleNamespace(fingerprints=self.fingerprints, targets="stored targets")

    def write(self, *arguments):
        self.written.append(arguments)


IMAGES = np.random.default_rng(1).normal(size=(2, 4, 4, 3)).astype("float32")


@pytest.mark.parametrize(("index", "place"), [(0, (0, 0)), (4, (0, 4)), (5, (1, 0)), (13, (2, 3))])
def test_the_place_of_a_batch_is_its_epoch_and_step(index, place):
    store = FakeStore(targets._fingerprint(IMAGES))
    assert targets._CachedTargets(store, 5, frozenset(), None)(index, IMAGES) == "stored targets"
    assert store.read_at == [place] and not store.written


def test_a_missing_epoch_is_computed_and_written():
    store = FakeStore(None)
    computed = targets._CachedTargets(store, 5, frozenset({1}), lambda *inputs: ("targets of", len(inputs)))
    assert computed(7, IMAGES, "matrix", "shift") == ("targets of", 3)
    ((epoch, step, fingerprints, written),) = store.written
    assert (epoch, step, written) == (1, 2, ("targets of", 3)) and not store.read_at
    np.testing.assert_array_equal(fingerprints, targets._fingerprint(IMAGES))


@pytest.mark.parametrize(
    ("images", "shift", "refused"),
    [
        (IMAGES, 0.04, False),
        (IMAGES, 0.06, True),
        (IMAGES, -0.06, True),
        (np.zeros((2, 4, 4, 3), np.uint8), 1.9, False),
        (np.zeros((2, 4, 4, 3), np.uint8), 2.1, True),
        (IMAGES, np.nan, True),
    ],
)
def test_other_images_are_refused(images, shift, refused):
    stored = targets._fingerprint(images)
    stored[1, 2] += shift
    cached = targets._CachedTargets(FakeStore(stored), 5, frozenset(), None)
    if not refused:
        assert cached(7, images) == "stored targets"
        return
    with pytest.raises(RunError) as raised:
        cached(7, images)
    assert str(raised.value) == (
        "cache was computed for other images in step 3 of epoch 2: the images have changed or are decoded differently. "
        "Choose another --teacher_cache."
    )


def test_the_missing_epochs_are_reported(capsys):
    cache = types.SimpleNamespace(folder="cache", epoch_bytes=lambda: 3 * 2**19)
    targets._print_missing(cache, 2, 9)
    assert capsys.readouterr().err == "keras-bot: computing teacher outputs for 2 of 9 epochs (3.0 MiB) in cache.\n"
