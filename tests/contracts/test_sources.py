"""The contract of data sources: classification from every format, detection and segmentation.

A pass over a data set costs far more than its records, so the tests share the records that `read` returns.
"""

import functools
import types

import numpy as np
import pytest
import tensorflow as tf

from contracts.checks import each, each_refusal
from contracts.sources import ROWS, SourceRow, write_data_sets
from keras_bot.data import EvalConfig, eval_pipeline, open_source
from keras_bot.data.augment.color import MEAN, STD
from keras_bot.data.decode import decode
from keras_bot.data.sharding import eval_rows, training_rows
from keras_bot.errors import MisuseError
from keras_bot.tasks.detection.data.factory import open_detection

SEED, OTHER_SEED = (3, 4), (5, 6)
WORKERS = 2
CLASSIFICATION = [row for row in ROWS if row.open is open_source]


@pytest.fixture(scope="module")
def root(tmp_path_factory, digits_dir):
    """A folder with a data set of each format."""
    folder = tmp_path_factory.mktemp("sets")
    write_data_sets(folder)
    return folder


@pytest.fixture(scope="module")
def build(root, digits_dir):
    """Opens a row's data set."""

    def build(row: SourceRow, split="train", **changes):
        where = {"data_dir": digits_dir} if row.name == "TFDS" else {}
        return row.build(root, split, **{**where, **changes})

    return build


@pytest.fixture(scope="module")
def read(build):
    """Row and split -> the source and all its records, read once."""

    @functools.cache
    def read(row, split):
        source = build(row, split)
        return source, records(source)

    return read


def records(source):
    """All records in natural order, each with its key's name."""
    data = source.keys(None, 6).map(lambda *key: {**source.read(*key), "key": source.record_name(*key)})
    return list(data.as_numpy_iterator())


def names(source, seed=None, first=0):
    """Names of the records of a pass."""
    return list(source.keys(seed, 6, first).map(source.record_name).as_numpy_iterator())


def pixels(encoded):
    return encoded if isinstance(encoded, np.ndarray) else decode(tf.constant(encoded)).numpy()


@each(ROWS)
@pytest.mark.parametrize("split", ["train", "eval"])
def test_records_are_counted_labelled_and_decodable(row, split, read):
    source, found = read(row, split)
    assert source.size == len(found) == len({record["key"] for record in found}) == row.sizes[split]
    assert source.class_names == row.class_names and source.num_classes == len(row.class_names)
    for record in found:
        image = pixels(record["image"])
        assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[-1] in (1, 3) and image.max() > 100
    if row.open is open_source:
        labels = [record["label"] for record in found]
        assert {label.dtype.name for label in labels} == {"int64"}
        assert min(labels) >= 0 and max(labels) < source.num_classes
        assert row.labels is None or labels == row.labels(split)
        assert all(record["name"] == record["key"] for record in found)
    elif row.open is open_detection:
        for record in found:
            assert record["classes"][0] in (0, 1) and not record["difficult"].any()
            assert (record["boxes"][:, 2:] - record["boxes"][:, :2]).tolist() == [[20, 20]]
            assert record["boxes"].min() >= 0 and (record["boxes"][0, 2:] <= image.shape[:2]).all()
    else:
        ids = {int(place) for record in found for place in np.unique(pixels(record["mask"]))}
        assert ids == {*source.class_ids} and source.largest() == (48, 64)


@each(ROWS)
def test_another_opening_reads_the_same(row, read, build):
    _, found = read(row, "train")
    for one, other in zip(found, records(build(row)), strict=True):
        assert one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


@each([row for row in ROWS if row.name != "TFDS"])  # reads its files as shards are read
def test_a_seed_orders_all_records_and_a_pass_may_start_anywhere(row, read):
    source, found = read(row, "train")
    natural, order = [record["key"] for record in found], names(source, SEED)
    assert sorted(order) == sorted(natural) and order != natural
    assert names(source, SEED, first=5) == order[5:]
    assert names(source, OTHER_SEED) != order


@each([row for row in ROWS if row.name == "folder"])
def test_evaluation_batches_are_normalised_floats(row, read):
    low, high = (0 - np.array(MEAN)) / STD, (255 - np.array(MEAN)) / STD
    source, found = read(row, "eval")
    images, labels, weights = next(eval_pipeline(source, EvalConfig(batch_size=6, image_size=8)).as_numpy_iterator())
    assert images.dtype == labels.dtype == "float32" and weights.tolist() == [1] * 5 + [0]
    assert (images >= low - 1e-4).all() and (images <= high + 1e-4).all() and images[:5].std() > 0.5
    assert labels[:5].argmax(-1).tolist() == [record["label"] for record in found]
    assert labels.shape == (6, 3) and labels.sum(-1).tolist() == weights.tolist()


@each(CLASSIFICATION)
@pytest.mark.parametrize("split", ["train", "eval"])
def test_the_shares_of_workers_are_disjoint_and_complete(row, split, build, read):
    everything = [record["key"] for record in read(row, split)[1]]
    shares = []
    for worker in range(WORKERS):
        context = tf.distribute.InputContext(WORKERS, worker, WORKERS)
        source = build(row, split, read_config=types.SimpleNamespace(input_context=context))
        shares.append(names(source))
        assert source.size == len(shares[-1])
    assert sorted(names(source, SEED)) == sorted(shares[-1])
    together = [name for share in shares for name in share]
    assert len(set(together)) == len(together) and set(together) <= set(everything)
    dropped = len(everything) % WORKERS if split == "train" else 0
    assert len(everything) - len(together) == dropped
    assert len(shares[0]) - len(shares[1]) == (0 if split == "train" else len(everything) % WORKERS)


@pytest.mark.parametrize("workers", [1, 2, 3, 4])
@pytest.mark.parametrize("split", ["train", "eval"])
def test_the_rows_of_workers_are_disjoint_and_complete(split, workers):
    """The rows of each batch, which workers of detection and segmentation divide among them."""
    rows = [(training_rows if split == "train" else eval_rows)(24, worker, workers) for worker in range(workers)]
    assert {len(own) for own in rows} == {24 // workers}
    assert sorted(np.concatenate([own.indices for own in rows])) == list(range(24))
    keys = tf.data.Dataset.range(60)
    passed = [[int(key) for key in own.keys(keys)] for own in rows]
    assert sorted(key for own in passed for key in own) == list(range(60))
    for own, keys in zip(rows, passed, strict=True):
        assert keys == [key for key in range(60) if key % 24 in own.indices]
        if split == "train":  # with every row its mirror image, for mixup
            assert sorted(23 - own.indices) == own.indices.tolist()


@each([row for row in ROWS if row.missing])
def test_a_missing_path_is_named(row, build, root):
    name, *fragments = row.missing
    with pytest.raises(MisuseError, match=".*".join(fragments)):
        build(row, dataset=str(root / name))


@each_refusal(ROWS)
def test_bad_arguments_are_refused(row, refusal, build):
    with pytest.raises(refusal.error) as caught:
        build(row, **refusal.arguments)
    place = 0
    for text in refusal.fragments:
        assert text in str(caught.value)[place:]
        place = str(caught.value).index(text, place) + len(text)
