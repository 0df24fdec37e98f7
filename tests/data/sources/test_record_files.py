import dataclasses
import itertools
import types

import numpy as np
import pytest
import tensorflow as tf

from keras_bot.data.sources.base import Share, run_error
from keras_bot.data.sources.record_files import Reading, Records, fault, measure, reading_of, record_keys, take_share
from keras_bot.errors import MisuseError

SEED = (5, 7)
RECORD = 16 + 100  # bytes of a record of 100 with its length and checksums


@pytest.fixture
def make_files(tmp_path):
    """Writes files with these numbers of records; each record has 100 bytes and contains its file and index."""

    def make(*counts):
        files = []
        for number, count in enumerate(counts):
            path = str(tmp_path / f"{number:03}")
            with tf.io.TFRecordWriter(path) as writer:
                for index in range(count):
                    writer.write(b"%03d/%05d" % (number, index) + b"." * 91)
            files.append(Records(path, 0, count))
        return files

    return make


def _passes(files, firsts, seed=SEED, buffer=60, reading=None):
    """For each first position, (file, index) of each key in the order of its pass. One graph reads them all."""
    keys = record_keys(files, reading or Reading())
    seed = None if seed is None else tf.constant(seed, tf.int64)

    # Inside a data set's function, as the pipeline asks for an epoch.
    def numbered(number, first):
        return tf.data.Dataset.zip((tf.data.Dataset.from_tensors(number).repeat(), keys(seed, buffer, first)))

    passes = tf.data.Dataset.from_tensor_slices(tf.constant(firsts, tf.int64)).enumerate().flat_map(numbered)
    found = [[] for _ in firsts]
    for numbers, batch in passes.batch(500).as_numpy_iterator():
        for number, serialized, path, index in zip(numbers, *batch, strict=True):
            assert serialized[:9].decode() == f"{path.decode()[-3:]}/{index:05}"
            found[number].append((int(serialized[:3]), int(index)))
    return found


def _read(files, seed=SEED, buffer=60, first=0, reading=None):
    return _passes(files, [first], seed, buffer, reading)[0]


def _all(files):
    return [(int(f.path[-3:]), f.skip + i) for f in files for i in range(f.take)]


UNEQUAL = (3, 40, 1, 17, 16, 90, 5, 33, 64, 2, 21, 16, 15, 48, 9, 30, 1, 77, 12, 50, 31)


READINGS = [
    (UNEQUAL, Reading()),
    (UNEQUAL, Reading(cycle_length=4, block_length=3)),
    (UNEQUAL, Reading(cycle_length=100, block_length=1)),
    ((200,), Reading()),
    ((1,), Reading()),
]
ORDERS = [(SEED, 1), (SEED, 10_000), (None, 60)]


@pytest.mark.parametrize(
    ("counts", "reading", "seed", "buffer"),
    [(*each, SEED, 60) for each in READINGS]
    + [(*READINGS[1], *order) for order in ORDERS]
    + [pytest.param(*READINGS[3], *order, marks=pytest.mark.thorough) for order in ORDERS],
)
def test_a_pass_from_any_position_is_the_tail_of_the_whole_pass(make_files, counts, reading, seed, buffer):
    files = make_files(*counts)
    size = sum(counts)
    firsts = [first for first in sorted({0, 1, 19, 20, 21, 100, size - 1, size}) if first <= size]
    whole, *tails = _passes(files, firsts, seed, buffer, reading)
    assert sorted(whole) == _all(files)
    if seed is None:
        assert whole == _all(files)
    assert tails == [whole[first:] for first in firsts[1:]]


def test_ranges_are_read_as_they_are_given(make_files):
    first, second, third = make_files(30, 50, 20)
    files = [dataclasses.replace(first, skip=7, take=11), dataclasses.replace(second, take=1)]
    files += [dataclasses.replace(third, skip=19, take=1)]
    passes = _passes(files, range(14), buffer=12)
    assert sorted(passes[0]) == _all(files) and len(passes[0]) == 13
    assert passes == [passes[0][position:] for position in range(14)]


def test_the_order_is_the_seeds_alone(make_files):
    files = make_files(*UNEQUAL)
    one = _read(files)
    tf.random.set_seed(1)
    assert _read(files) == one
    tf.random.set_seed(2)
    assert _read(files) == one
    eager = [int(i) for _, _, i in record_keys(files, Reading())(tf.constant(SEED, tf.int64), 60)]
    assert eager == [i for _, i in one]
    other = _read(files, (5, 8))
    assert sorted(other) == sorted(one)
    assert np.mean([a == b for a, b in zip(one, other, strict=True)]) < 0.1


def test_shuffling_mixes_well(make_files):
    files = make_files(*[50] * 40)
    place = {key: i for i, key in enumerate(_all(files))}
    order = _read(files, buffer=900)
    moved = np.abs([place[key] - i for i, key in enumerate(order)])
    # A perfect shuffle moves by a third of the size on average.
    assert moved.mean() > 0.25 * len(place)
    blocks = np.array([key[0] for key in order]).reshape(-1, 50)
    # A run of 50 records is of many files, not of the one or two it would be of unshuffled.
    assert min(len(set(block)) for block in blocks[:-1]) >= 8
    neighbours = [a[0] == b[0] for a, b in itertools.pairwise(order)]
    assert np.mean(neighbours) < 0.2


def test_a_late_start_reads_little(make_files):
    """Files before the first position's group aren't opened; the group's own are entered where it goes on."""
    files = make_files(*[40] * 30)
    whole = _read(files, None)
    for file in files[:20]:
        with open(file.path, "wb"):
            pass
    assert _read(files, None, first=20 * 40 + 5) == whole[20 * 40 + 5 :]
    with open(files[25].path, "r+b") as file:  # a wrong checksum in the first record, which is hopped over
        file.seek(20)
        file.write(b"X")
    assert _read(files, None, first=25 * 40 + 39) == whole[25 * 40 + 39 :]


def test_shares_are_disjoint_and_complete(make_files):
    files = make_files(10, 3, 25)
    shares = [take_share(files, Share(0, 4, size, start)) for size, start in ((10, 0), (10, 10), (9, 20), (9, 29))]
    assert [sum(f.take for f in share) for share in shares] == [10, 10, 9, 9]
    assert [key for share in shares for key in _all(share)] == _all(files)
    assert shares[0] == files[:1] and [f.path for f in shares[2]] == [files[2].path]


def _damage(name, path):
    with open(path, "r+b") as file:
        if name == "record cut":
            file.truncate(30 * RECORD + 50)
        elif name == "header cut":
            file.truncate(30 * RECORD + 5)
        elif name == "cut between records":
            file.truncate(30 * RECORD)
        elif name == "checksum":
            file.seek(30 * RECORD + 60)
            file.write(b"X")
        elif name == "length":
            file.seek(30 * RECORD + 3)
            file.write(b"\x01")


@pytest.mark.parametrize("seed", [SEED, None])
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("record cut", rf"001 is truncated .*last whole record ends at byte {30 * RECORD} of {30 * RECORD + 50}\."),
        ("header cut", rf"001 is truncated .*last whole record ends at byte {30 * RECORD} of {30 * RECORD + 5}\."),
        ("cut between records", rf"001 is truncated: it ends at byte {30 * RECORD} after record 30 of 50\."),
        ("checksum", rf"001 is damaged: a checksum is wrong at byte {30 * RECORD + 12} of {50 * RECORD}\."),
        ("length", rf"001 is truncated or damaged.*last whole record ends at byte {30 * RECORD} of {50 * RECORD}\."),
    ],
)
def test_a_damaged_file_is_named_with_the_place(make_files, name, message, seed):
    files = make_files(40, 50)
    _damage(name, files[1].path)
    with pytest.raises(tf.errors.OpError) as caught:
        _read(files, seed)
    error = run_error(caught.value)
    assert error and tf.compat.as_text(files[1].path) in str(error) and "\n" not in str(error)
    with pytest.raises(type(error), match=message):
        raise error


def test_a_file_that_vanished_ends_the_pass(make_files, tmp_path):
    files = make_files(40, 50)
    (tmp_path / "001").unlink()
    with pytest.raises(tf.errors.OpError) as caught:
        _read(files)
    assert str(run_error(caught.value)) == f"{files[1].path} can't be read: No such file or directory."


def test_measuring_a_file(make_files, tmp_path):
    (file,) = make_files(50)
    assert measure(file.path) == (50, 50 * RECORD, 50 * RECORD)
    assert "could not be read to its end at first, but now it can" in fault(file.path, 50)
    (tmp_path / "000").write_text("no records at all")
    assert measure(file.path) == (0, 0, 17)
    (tmp_path / "000").write_bytes(b"")
    assert measure(file.path) == (0, 0, 0)


def test_what_a_read_config_says():
    import tensorflow_datasets as tfds

    assert reading_of(None) == reading_of(tfds.ReadConfig()) == Reading(16, 16)
    config = tfds.ReadConfig(interleave_cycle_length=3, interleave_block_length=5)
    assert reading_of(config) == Reading(3, 5)
    assert reading_of(tfds.ReadConfig(interleave_cycle_length=None, interleave_block_length=None)) == Reading()
    with pytest.raises(MisuseError, match=r"interleave_cycle_length in read_config must be at least 1, received 0"):
        reading_of(types.SimpleNamespace(interleave_cycle_length=0))
