"""Order, draws and length of a stream depend on seed, epoch and position only, each use with draws of its own."""

import itertools
import types

import numpy as np
import pytest
import tensorflow as tf

from keras_bot.data.augment import color
from keras_bot.data.config import EvalConfig, StreamConfig, TrainingStreamConfig
from keras_bot.data.sources.base import indices
from keras_bot.data.stream import EvaluationStream, Stream, TrainingStream, seed_at
from keras_bot.errors import MisuseError

SIZE = 11


@pytest.fixture(scope="module")
def source():
    """Records that contain their own index."""
    keys = indices(SIZE)
    return types.SimpleNamespace(
        name="numbers", size=SIZE, keys=keys, read=lambda i: {"i": i}, record_name=tf.as_string
    )


def stream(source, **options):
    return TrainingStream(source, TrainingStreamConfig(**{"batch_size": 4, "epochs": 3, **options}))


def key_list(stream):
    """Returns (position, index) of each record."""
    return [(int(position), int(index)) for position, (index,) in stream._keys()]


def test_a_seed_has_the_place_as_its_second_half():
    seed = seed_at(5, 1, tf.constant(7))
    assert seed.dtype == tf.int64 and seed.shape == (2,) and int(seed[1]) == 7
    assert 0 <= int(seed[0]) < 2**31
    word = np.random.SeedSequence((5, 1)).generate_state(1)[0] >> 1
    assert int(seed[0]) == word


def test_seeds_streams_and_shares_differ():
    words = {
        (seed, stream, share): int(seed_at(seed, stream, tf.constant(0), share)[0])
        for seed, stream, share in itertools.product((0, 1, -1, 2**40), range(5), range(3))
    }
    assert len(set(words.values())) == len(words)


def test_an_epoch_is_whole_batches_of_a_shuffled_pass(source):
    keys = key_list(stream(source))
    assert [position for position, _ in keys] == list(range(24))  # 2 batches of 4 in each of 3 epochs
    epochs = [[index for _, index in keys[8 * epoch : 8 * epoch + 8]] for epoch in range(3)]
    assert all(len(set(order)) == 8 and set(order) <= set(range(SIZE)) for order in epochs)
    assert len({tuple(order) for order in epochs}) == 3
    assert key_list(stream(source, seed=1)) != keys == key_list(stream(source))
    assert key_list(stream(source, draws_of=1)) != keys


@pytest.mark.parametrize(("epoch", "step"), [(0, 1), (1, 0), (1, 1), (2, 1), (3, 0)])
def test_a_stream_can_start_at_any_step(epoch, step, source):
    whole = key_list(stream(source))
    rest = stream(source, first_epoch=epoch, first_step=step)
    assert key_list(rest) == whole[8 * epoch + 4 * step :]
    batches = rest.batches(tf.data.Dataset.range(24), lambda x: x)
    assert int(batches.cardinality()) == 6 - 2 * epoch - step


def test_the_number_of_a_batch_counts_over_all_epochs(source):
    one = stream(source)
    numbers = [int(one.batch_number((tf.constant([position]),))) for position in (0, 3, 4, 8, 23)]
    assert numbers == [0, 0, 1, 2, 5]


def test_a_batch_has_its_own_seed_the_same_for_all_shares(source):
    one, other = stream(source), stream(source, draws_of=1)
    seeds = [one.batch_seed(tf.constant(number)) for number in range(3)]
    assert {seed.dtype for seed in seeds} == {tf.int32} and len({tuple(seed.numpy()) for seed in seeds}) == 3
    np.testing.assert_array_equal(other.batch_seed(tf.constant(2)), seeds[2])


def test_colours_are_drawn_for_the_batch_with_the_configs_strength(source):
    one = stream(source, color_jitter=0.3, pca_noise=0.2)
    seeds = tf.stack([seed_at(0, 2, tf.constant(1)), seed_at(0, 3, tf.constant(1))])
    expected = color.draw_maps(4, 0.3, 0.2, seeds)
    for ours, reference in zip(one.color_maps(tf.constant(1)), expected, strict=True):
        np.testing.assert_array_equal(ours, reference)
    assert (
        np.abs(
            stream(source, color_jitter=0.3, pca_noise=0.2, draws_of=1).color_maps(tf.constant(1))[0] - expected[0]
        ).max()
        > 0
    )


def test_examples_have_a_seed_for_each_position(source):
    made = stream(source).examples(lambda record, seed: (record["i"], seed))
    keys, places, (numbers, seeds) = next(iter(made))
    np.testing.assert_array_equal(places, range(4))
    np.testing.assert_array_equal(keys[0], range(4))
    np.testing.assert_array_equal(numbers, keys[1][0])
    np.testing.assert_array_equal(seeds, [seed_at(0, 1, tf.constant(position)) for position in range(4)])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 12}, "batch_size=12 is larger than the data set: numbers has 11 images. Use a smaller batch."),
        ({"first_step": 2}, "first_step must be at least 0 and less than the 2 steps of an epoch, received 2."),
        ({"first_step": -1}, "first_step must be at least 0 and less than the 2 steps of an epoch, received -1."),
        ({"first_epoch": 3, "first_step": 1}, "first_step must be at least 0 and less than the 2 steps of an epoch"),
    ],
)
def test_a_start_outside_the_training_is_refused(options, message, source):
    with pytest.raises(MisuseError) as raised:
        stream(source, **options)
    assert str(raised.value).startswith(message)


def test_a_batch_as_large_as_the_data_is_allowed(source):
    assert stream(source, batch_size=SIZE).steps == 1


@pytest.mark.parametrize(("batch_size", "lengths"), [(4, [4, 4, 3]), (11, [11]), (12, [11])])
def test_evaluation_reads_every_record_once_in_order(batch_size, lengths, source):
    config = EvalConfig(batch_size=batch_size, image_size=1)
    one = EvaluationStream(source, config)
    found = [parts[0].numpy().tolist() for _, _, parts in one.examples(lambda record: (record["i"],))]
    assert [len(batch) for batch in found] == lengths and [i for batch in found for i in batch] == list(range(SIZE))
    batches = one.batches(tf.data.Dataset.range(9), lambda x: x)
    assert int(batches.cardinality()) == len(lengths)


def test_missing_rows_are_repeated_in_training_and_blank_in_evaluation(source):
    parts, places = (tf.constant([5.0, 7.0]), tf.constant([1, 2])), tf.constant([0, 2])
    values, labels = stream(source).fill_missing(parts, places, (0, 0))
    assert values.numpy().tolist() == [5, 7, 7, 7] and labels.numpy().tolist() == [1, 2, 2, 2]
    evaluation = EvaluationStream(source, EvalConfig(batch_size=4, image_size=1))
    values, labels, weights = evaluation.fill_missing(parts, places, (-1, 9))
    assert values.numpy().tolist() == [5, -1, 7, -1] and labels.numpy().tolist() == [1, 9, 2, 9]
    assert weights.numpy().tolist() == [1, 0, 1, 0] and weights.dtype == tf.float32


def test_buffers_and_threads_are_limited(source):
    one = Stream(source, StreamConfig(batch_size=4, ram_budget=3))
    options = one._map_batches(tf.data.Dataset.range(5), lambda x: x * 2, 5).options()
    assert options.autotune.ram_budget == 3 * 2**20 and options.threading.max_intra_op_parallelism == 1
    assert list(one._map_batches(tf.data.Dataset.range(3), lambda x: x * 2, 3).as_numpy_iterator()) == [0, 2, 4]
