"""One worker's share of every kind of source; TFRecord shards' are in `test_tfrecord.py`."""

import types

import numpy as np
import pytest
import tensorflow as tf

from keras_bot.data import open_source
from keras_bot.data.sources.base import indices
from keras_bot.errors import MisuseError

SEED = (3, 4)


def _records(source):
    return list(source.records().as_numpy_iterator())


def test_a_workers_share_of_sorted_classes_holds_them_all(image_folder):
    config = types.SimpleNamespace(input_context=tf.distribute.InputContext(3, 1, 3))
    source = open_source(str(image_folder(classes=4, train=6)), read_config=config)
    assert np.bincount([r["label"] for r in _records(source)]).tolist() == [2, 2, 2, 2]
    assert [r["label"] for r in _records(source.cached())] == [r["label"] for r in _records(source)]


def test_a_tfds_read_config_is_followed(digits_dir):
    import tensorflow_datasets as tfds

    config = tfds.ReadConfig(input_context=tf.distribute.InputContext(2, 1, 2), interleave_cycle_length=2)
    source = open_source("digits", data_dir=digits_dir, tfds_split="train[100:201]", read_config=config)
    expected = [f"digits-train.tfrecord-00000-of-00001[{i}]" for i in range(150, 200)]
    assert [r["name"].decode() for r in _records(source)] == expected


def test_shares_that_cannot_be_are_reported():
    def share(workers, worker):
        context = types.SimpleNamespace(num_input_pipelines=workers, input_pipeline_id=worker)
        return types.SimpleNamespace(input_context=context)

    with pytest.raises(MisuseError, match=r"needs at least one record, but there are 3 records for 4 workers"):
        open_source("synthetic", synthetic_images=3, read_config=share(4, 0))
    with pytest.raises(MisuseError, match=r"input_pipeline_id .* must be from 0 to 1, received 2"):
        open_source("synthetic", read_config=share(2, 2))
    assert open_source("synthetic", read_config=types.SimpleNamespace(input_context=None)).size == 1024


@pytest.mark.parametrize("size", [1, 2, 5, 100])
def test_indices_from_any_position(size):
    keys = indices(size)
    for seed in (SEED, None):
        whole = [int(i) for (i,) in keys(seed, 1)]
        assert sorted(whole) == list(range(size))
        for first in range(0, size + 1, max(size // 5, 1)):
            assert [int(i) for (i,) in keys(seed, 1, first)] == whole[first:]
