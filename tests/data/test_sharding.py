"""Pipelines of several workers: together their batches equal those of one process."""

import itertools
import types

import numpy as np
import pytest
import tensorflow as tf
from builders import encode_image, write_record_file

from keras_bot.data import (
    CorruptLog,
    EvalConfig,
    TrainConfig,
    eval_pipeline,
    finish_batch,
    open_source,
    pipeline,
    train_pipeline,
)
from keras_bot.data.sharding import eval_rows, training_rows
from keras_bot.data.stream import seed_at
from keras_bot.errors import MisuseError
from keras_bot.tricks.mixup import mix_with_reversal


def _list(batches):
    return [tf.nest.map_structure(lambda part: part.numpy(), batch) for batch in batches]


def _assert_same(one, other):
    tf.nest.assert_same_structure(one, other)
    for a, b in zip(tf.nest.flatten(one), tf.nest.flatten(other), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


def _whole(parts, rows):
    """One batch of the workers' parts of it, each put in its rows."""
    order = np.argsort(np.concatenate([own.indices for own in rows]))
    return tf.nest.map_structure(lambda *pieces: np.concatenate(pieces)[order], *parts)


def _mix(images, labels, seed, epoch):
    weight = tf.random.stateless_uniform([], seed)
    images, labels = (mix_with_reversal(x, weight) for x in (images, labels))
    return images, labels * tf.cast(epoch + 1, tf.float32)


@pytest.fixture
def sources(image_folder, npz_file, tmp_path):
    """Opens each kind, with the pipelines' options for it."""

    def shards():
        (tmp_path / "shards").mkdir()
        draw = np.random.default_rng(0)
        counts = (13, 6, 12, 10)
        for number, split in itertools.product(range(4), ("train", "validation")):
            images = draw.integers(0, 256, (counts[number], 12, 16, 3), np.uint8)
            labels = draw.integers(3, size=counts[number]).tolist()
            path = tmp_path / "shards" / f"{split}-{number:05}-of-00004"
            write_record_file(path, zip(map(encode_image, images), labels, strict=True))
        return str(tmp_path / "shards")

    def make(kind, split="train"):
        if kind == "npz":
            return open_source(str(npz_file()), split), {"image_size": 8, "transform": "cifar"}
        if kind == "synthetic":
            source = open_source("synthetic", split, synthetic_images=41, image_size=8, num_classes=5)
            return source, {"image_size": 8, "transform": "cifar"}
        if kind == "shards":
            return open_source(shards(), split, num_classes=3), {"image_size": 8}
        return open_source(str(image_folder(classes=3, train=14, val=7)), split), {"image_size": 16}

    return make


@pytest.mark.parametrize(
    ("kind", "workers", "augment_on"),
    [
        ("npz", 4, "host"),
        ("synthetic", 2, "device"),
        pytest.param("folder", 2, "host", marks=pytest.mark.thorough),
        pytest.param("shards", 2, "device", marks=pytest.mark.thorough),
    ],
)
def test_training_batches_of_all_workers_are_the_one_process_s(sources, kind, workers, augment_on):
    source, options = sources(kind)
    options |= {"batch_size": 16 if workers == 4 else 12, "epochs": 3, "seed": 5, "augment_on": augment_on}
    options |= {"shuffle_buffer": 21}
    if augment_on == "host":
        options["batch_transform"] = _mix
    full = _list(train_pipeline(source, TrainConfig(**options)))
    steps = source.size // options["batch_size"]
    rows = [training_rows(options["batch_size"], worker, workers) for worker in range(workers)]
    own = [train_pipeline(source, TrainConfig(worker=worker, workers=workers, **options)) for worker in range(workers)]
    assert [batches.cardinality() for batches in own] == [len(full)] * workers
    own = [_list(batches) for batches in own]
    assert [len(batches) for batches in own] == [len(full)] * workers
    for batch, *parts in zip(full, *own, strict=True):
        _assert_same(_whole(parts, rows), batch)
        for inputs, labels in parts:
            assert len(labels) == options["batch_size"] // workers
            if augment_on == "device":
                np.testing.assert_array_equal(inputs[3], batch[0][3][: len(labels)])
                np.testing.assert_array_equal(inputs[4], batch[0][4][: len(labels)])
    start = {"first_epoch": 1, "first_step": steps - 1}
    rest = train_pipeline(source, TrainConfig(worker=workers - 1, workers=workers, **start, **options))
    assert rest.cardinality() == steps + 1
    _assert_same(_list(rest), own[-1][2 * steps - 1 :])


@pytest.mark.thorough
def test_what_is_left_to_the_device_mixes_the_same_pairs(sources):
    source, options = sources("folder")
    options |= {"batch_size": 16, "epochs": 1, "augment_on": "device"}
    rows = [training_rows(16, worker, 2) for worker in range(2)]
    own = [train_pipeline(source, TrainConfig(worker=worker, workers=2, **options)) for worker in range(2)]
    for batch, *parts in zip(train_pipeline(source, TrainConfig(**options)), *own, strict=True):
        finished = [[x.numpy() for x in finish_batch(*part, _mix)] for part in parts]
        _assert_same(_whole(finished, rows), [x.numpy() for x in finish_batch(*batch, _mix)])


@pytest.mark.thorough
def test_a_cached_set_is_shared_the_same_way(sources):
    source, options = sources("folder")
    options |= {"batch_size": 12, "epochs": 2, "worker": 1, "workers": 2}
    _assert_same(
        _list(train_pipeline(source, TrainConfig(**options))),
        _list(train_pipeline(source, TrainConfig(cache=True, **options))),
    )


@pytest.mark.parametrize(
    ("kind", "workers", "batch_size"),
    [
        ("npz", 4, 4),
        ("synthetic", 2, 64),
        pytest.param("folder", 2, 16, marks=pytest.mark.thorough),
        pytest.param("shards", 2, 16, marks=pytest.mark.thorough),
    ],
)
def test_evaluation_covers_each_image_once(sources, kind, workers, batch_size):
    source, options = sources(kind, "eval")
    options |= {"batch_size": batch_size}
    full = _list(eval_pipeline(source, EvalConfig(**options)))
    rows = [eval_rows(batch_size, worker, workers) for worker in range(workers)]
    own = [eval_pipeline(source, EvalConfig(worker=worker, workers=workers, **options)) for worker in range(workers)]
    assert [batches.cardinality() for batches in own] == [len(full)] * workers
    own = [_list(batches) for batches in own]
    assert sum(weights.sum() for batches in own for *_, weights in batches) == source.size
    for batch, *parts in zip(full, *own, strict=True):
        assert all(len(part) == batch_size // workers for tensors in parts for part in tensors)
        _assert_same(_whole(parts, rows), batch)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_worker_without_images_evaluates_padding(npz_file, dtype):
    source = open_source(str(npz_file(x_test=np.zeros((1, 8, 8, 3), np.uint8), y_test=np.zeros(1, int))), "eval")
    options = {"batch_size": 4, "image_size": 8, "dtype": dtype, "workers": 2}
    first, second = (_list(eval_pipeline(source, EvalConfig(worker=worker, **options))) for worker in range(2))
    assert [weights.tolist() for *_, weights in first + second] == [[1.0, 0.0], [0.0, 0.0]]
    assert not any(np.any(part) for part in second[0]) and second[0][0].dtype == first[0][0].dtype


@pytest.mark.thorough
def test_only_the_worker_s_own_images_are_decoded(sources):
    source, options = sources("folder")
    options |= {"batch_size": 8, "epochs": 1, "transform": "plain"}
    seen = []

    def read(index):
        tf.numpy_function(lambda i: seen.append(int(i)), [index], [])
        return read_whole(index)

    read_whole = source.read
    object.__setattr__(source, "read", read)
    met = []
    for worker in range(2):
        seen.clear()
        assert len(_list(train_pipeline(source, TrainConfig(worker=worker, workers=2, **options)))) == 5
        assert len(seen) == 20
        met += seen
    assert len(set(met)) == len(met) == 40


@pytest.mark.thorough
def test_a_broken_image_concerns_its_worker_alone(image_folder):
    folder = image_folder(classes=3, train=8, val=8)
    options = {"batch_size": 24, "image_size": 16, "transform": "plain", "epochs": 1}
    whole = [
        _list(train_pipeline(open_source(str(folder)), TrainConfig(worker=w, workers=2, **options))) for w in range(2)
    ]
    for split in ("train", "val"):
        (folder / split / "class1" / "4.jpg").write_bytes(b"no image")
    source = open_source(str(folder))
    logs = [CorruptLog(1), CorruptLog(1)]
    met = [
        _list(train_pipeline(source, TrainConfig(worker=w, workers=2, corrupt=logs[w], **options))) for w in range(2)
    ]
    (hit,) = [worker for worker in range(2) if logs[worker].names]
    assert logs[hit].names == ["train/class1/4.jpg"]
    _assert_same(met[1 - hit], whole[1 - hit])
    ((before, before_labels),), ((after, after_labels),) = whole[hit], met[hit]
    changed = (before != after).any((1, 2, 3))
    assert changed.sum() == 1 and before_labels[changed].argmax() == 1
    donor = (after == after[changed]).all((1, 2, 3)) & ~changed
    np.testing.assert_array_equal(after_labels[donor], after_labels[changed])
    assert donor.sum() == 1

    logs = [CorruptLog(1), CorruptLog(1)]
    held_out, size = open_source(str(folder), "eval"), {"batch_size": 20, "image_size": 16, "transform": "plain"}
    weights = [
        [
            w.tolist()
            for *_, w in _list(eval_pipeline(held_out, EvalConfig(worker=i, workers=2, corrupt=logs[i], **size)))
        ]
        for i in range(2)
    ]
    assert [log.names for log in logs] == [[], ["val/class1/4.jpg"]]  # row 12 of 20
    assert weights == [[[1.0] * 10, [1.0] * 4 + [0.0] * 6], [[1.0, 1.0, 0.0] + [1.0] * 7, [0.0] * 10]]


def test_shares_of_a_set_have_draws_of_their_own(npz_file):
    alike = np.tile(np.arange(192, dtype=np.uint8).reshape(1, 8, 8, 3), (24, 1, 1, 1))
    source = open_source(str(npz_file(x_train=alike)))
    options = {"batch_size": 24, "image_size": 8, "transform": "cifar", "epochs": 1, "augment_on": "device"}
    zero, default, one, two = (
        _list(train_pipeline(source, TrainConfig(**options, **share)))
        for share in ({"draws_of": 0}, {}, {"draws_of": 1}, {"draws_of": 2})
    )
    _assert_same(zero, default)
    for (a, labels), (b, others) in itertools.combinations([zero[0], one[0], two[0]], 2):
        assert not any(np.array_equal(x, y) for x, y in zip((*a[:3], labels), (*b[:3], others), strict=True))
        assert not (a[1] == b[1]).all((1, 2)).any() and not (a[2] == b[2]).all(1).any()
        assert np.array_equal(a[3], b[3]) and np.array_equal(a[4], b[4])
    assert np.array_equal(seed_at(3, 2, 7), [480164916, 7]), "the draws of earlier runs"


@pytest.mark.thorough
def test_shares_by_file_take_their_draws_from_draws_of(sources):
    """The other way to share a set: each worker opens its own part of it."""
    opened, options = sources("shards")
    folder, sizes = opened.name.split(" ")[0], []
    seeds = []
    for worker in range(2):
        context = types.SimpleNamespace(input_context=tf.distribute.InputContext(2, worker, 2))
        source = open_source(folder, num_classes=3, read_config=context)
        batches = train_pipeline(
            source, TrainConfig(batch_size=5, epochs=2, augment_on="device", draws_of=worker, **options)
        )
        sizes.append(source.size)
        seeds.append([(*inputs[3][0], inputs[4][0]) for inputs, _ in _list(batches)])
    assert sizes == [20, 20] and seeds[0] == seeds[1] and len(set(seeds[0])) == 8


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"workers": 5}, r"batch_size=12 is not divisible by 10 \(2 x 5 workers.* It is the batch of all workers"),
        ({"workers": 4}, r"batch_size=12 is not divisible by 8 \(2 x 4 workers, as mixup"),
        ({"worker": 2, "workers": 2}, r"0 <= worker < workers, received 2 and 2"),
        ({"worker": -1, "workers": 2}, r"0 <= worker < workers, received -1 and 2"),
        ({"workers": 0}, r"received 0 and 0"),
        ({"workers": 2.0}, r"received 0 and 2\.0"),
        ({"draws_of": -1}, r"draws_of must be a whole number of at least 0, received -1"),
        ({"draws_of": 0.5}, r"draws_of must be a whole number of at least 0, received 0\.5"),
    ],
)
def test_wrong_workers_are_reported(npz_file, options, message):
    with pytest.raises(MisuseError, match=message):
        pipeline(str(npz_file()), batch_size=12, image_size=8, epochs=1, **options)
    if options == {"workers": 5}:
        with pytest.raises(MisuseError, match=r"batch_size=12 is not divisible by the 5 workers"):
            pipeline(str(npz_file()), "eval", batch_size=12, image_size=8, **options)
        assert len(pipeline(str(npz_file()), batch_size=5, image_size=8, epochs=1, workers=1)) == 4
