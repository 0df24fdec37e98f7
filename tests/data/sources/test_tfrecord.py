import hashlib
import io
import json
import types

import numpy as np
import pytest
import tensorflow as tf
from builders import encode_image, write_record_file
from PIL import Image

from keras_bot.data import CorruptLog, TrainConfig, open_source, train_pipeline
from keras_bot.data.convert.conversion import convert
from keras_bot.data.sources.base import run_error
from keras_bot.errors import MisuseError, RunError


def _image(index):
    return encode_image(np.full((12, 16, 3), index % 256, np.uint8), "PNG" if index % 2 else "JPEG")


@pytest.fixture
def shards(tmp_path):
    """Writes train and validation shards with the labels 0, 1, 2, 0, … above `first_label`."""

    def make(train=(7, 5, 9), validation=(4, 3), first_label=0, manifest=False, suffix=""):
        splits = {}
        for split, counts in (("train", train), ("validation", validation)):
            entries, index = [], 0
            for number, count in enumerate(counts):
                path = tmp_path / f"{split}-{number:05}-of-{len(counts):05}{suffix}"
                indices = range(index, index + count)
                write_record_file(path, [(_image(i), first_label + i % 3) for i in indices])
                index += count
                content = path.read_bytes()
                checksum = hashlib.sha256(content).hexdigest()
                entries.append({"file": path.name, "records": count, "bytes": len(content), "sha256": checksum})
            splits[split] = {"records": sum(counts), "shards": entries}
        if manifest:
            described = {"format": "keras_bot tfrecord 1", "class_names": ["ant", "bee", "cow"], "splits": splits}
            described |= {"class_folders": ["n1", "n2", "n3"], "first_label": first_label}
            (tmp_path / "manifest.json").write_text(json.dumps(described))
        return tmp_path

    return make


def _records(source):
    return list(source.records().as_numpy_iterator())


@pytest.mark.parametrize("first_label", [0, 1])
@pytest.mark.parametrize("manifest", [True, False])
def test_shards_hold_what_was_written(shards, first_label, manifest):
    folder = str(shards(first_label=first_label, manifest=manifest))
    options = {} if manifest else {"num_classes": 3, "first_label": first_label}
    for split, size in (("train", 21), ("eval", 7)):
        source = open_source(folder, split, **options)
        records = _records(source)
        assert source.size == len(records) == size and source.num_classes == 3
        assert source.class_names == (("ant", "bee", "cow") if manifest else ("0", "1", "2"))
        assert [r["label"] for r in records] == [i % 3 for i in range(size)]
        assert [np.array(Image.open(io.BytesIO(r["image"])))[0, 0, 0] for r in records] == list(range(size))
    assert records[5]["name"] == b"validation-00001-of-00002[1]"
    with pytest.raises(MisuseError, match=r"num_classes=4, but .* has 3") if manifest else pytest.raises(MisuseError):
        open_source(folder, num_classes=4 if manifest else 0)


@pytest.mark.thorough
def test_shards_flow_to_batches_and_a_pass_covers_each_once(shards):
    source = open_source(str(shards(manifest=True)))
    orders = []
    for epoch in range(2):
        seed = tf.constant([1, epoch], tf.int64)
        orders.append(list(source.keys(seed, 12).map(source.record_name).as_numpy_iterator()))
    assert sorted(orders[0]) == sorted(orders[1]) and len(set(orders[0])) == 21 and orders[0] != orders[1]
    batches = list(train_pipeline(source, TrainConfig(batch_size=7, image_size=8, epochs=2)))
    assert len(batches) == 6 and batches[0][0].shape == (7, 8, 8, 3)
    cached = source.cached()
    assert [r["image"] for r in _records(cached)] == [r["image"] for r in _records(source)]


@pytest.mark.parametrize("first_label", [0, 1])
def test_the_wrong_first_label_is_reported_at_opening_or_in_the_pipeline(shards, first_label):
    folder = str(shards(train=(9, 9), first_label=first_label))
    if first_label == 0:
        with pytest.raises(
            MisuseError, match=r"labels must be 1 to 3 for 3 classes with first_label 1, received 0\..*Set first"
        ):
            open_source(folder, num_classes=3, first_label=1)
        return
    source = open_source(folder, num_classes=3, first_label=0)  # both shards begin with label 1
    with pytest.raises(
        tf.errors.OpError, match=r"first_label 0\), train-0000.-of-00002\[\d\]: the label 3 is not in 0\.\.2"
    ):
        list(train_pipeline(source, TrainConfig(batch_size=9, image_size=8, epochs=1)))
    with pytest.raises(MisuseError, match=r"first_label must be 0, or 1 for TFRecord shards, received 2"):
        open_source(folder, num_classes=3, first_label=2)
    with pytest.raises(MisuseError, match=r"first_label must be 0, or 1 .* received 1 for 'synthetic'"):
        open_source("synthetic", first_label=1)


def test_class_names_are_those_of_labels_txt(shards):
    folder = shards(first_label=1)
    (folder / "labels.txt").write_text("ant\nbee\n\ncow\n")
    assert open_source(str(folder), first_label=1).class_names == ("ant", "bee", "cow")
    (folder / "labels.txt").write_text("2:bee: the insect\n3:cow\n1:ant\n")
    assert open_source(str(folder), first_label=1).class_names == ("ant", "bee: the insect", "cow")
    with pytest.raises(MisuseError, match=r"labels\.txt must contain each label from 0 to 2 once.* from 1 to 3"):
        open_source(str(folder))
    (folder / "labels.txt").write_text("1:ant\n1:bee\n2:cow\n")
    with pytest.raises(MisuseError, match=r"once, received 2 different labels from 1 to 2"):
        open_source(str(folder), first_label=1)
    (folder / "labels.txt").write_text("\n")
    with pytest.raises(MisuseError, match=r"labels\.txt is empty"):
        open_source(str(folder))
    (folder / "labels.txt").unlink()
    with pytest.raises(MisuseError, match=r"neither manifest\.json nor labels\.txt.*Set num_classes"):
        open_source(str(folder))


@pytest.mark.parametrize("manifest", [True, False])
def test_a_missing_shard_is_named(shards, manifest):
    folder = shards(manifest=manifest)
    (folder / "train-00001-of-00003").unlink()
    with pytest.raises(MisuseError, match=r"train-00001-of-00003.*3" if manifest else r"has 2 of 3 train shards"):
        open_source(str(folder), num_classes=3)
    if not manifest:
        with pytest.raises(
            MisuseError, match=r"has 2 of 3 train shards; the first missing one is train-00001-of-00003"
        ):
            open_source(str(folder), num_classes=3)
    assert open_source(str(folder), "eval", num_classes=3).size == 7


@pytest.mark.parametrize("manifest", [True, False])
def test_a_cut_shard_is_named_with_the_place_at_opening(shards, manifest):
    folder = shards(manifest=manifest)
    path = folder / "train-00002-of-00003"
    content = path.read_bytes()
    first = 16 + int.from_bytes(content[:8], "little")
    path.write_bytes(content[: first + 20])
    size = len(content) if manifest else first + 20
    message = rf"train-00002-of-00003 is truncated.*last whole record ends at byte {first} of {size}\. Copy"
    with pytest.raises(RunError, match=message):
        open_source(str(folder), num_classes=3)


def test_a_shard_of_the_right_size_with_a_wrong_byte_is_named_in_the_pass(shards):
    folder = shards(manifest=True)
    path = folder / "train-00000-of-00003"
    content = bytearray(path.read_bytes())
    content[200] ^= 1
    path.write_bytes(content)
    source = open_source(str(folder))
    with pytest.raises(tf.errors.OpError) as caught:
        list(train_pipeline(source, TrainConfig(batch_size=7, image_size=8, epochs=1)))
    assert str(run_error(caught.value)).startswith(
        f"{path} is damaged: a checksum is wrong at byte 12 of {len(content)}"
    )
    with pytest.raises(RunError, match=r"train-00000-of-00003 is damaged: a checksum is wrong at byte 12"):
        source.cached()
    (folder / "manifest.json").unlink()
    with pytest.raises(RunError, match=r"train-00000-of-00003 is damaged in its first record, at byte 0"):
        open_source(str(folder), num_classes=3)


def test_which_shards_are_a_splits(shards):
    folder = shards(suffix=".tfrecord")
    for path in list(folder.iterdir()):
        path.rename(folder / f"flowers_{path.name.replace('validation', 'val')}")
    assert open_source(str(folder), num_classes=3).size == 21
    assert open_source(str(folder), "eval", num_classes=3).size == 7
    (folder / "birds-train-00000-of-00001").touch()
    with pytest.raises(MisuseError, match=r"2 sets of train shards \(birds-train.*, flowers_train.*\)\. Keep one"):
        open_source(str(folder), num_classes=3)
    for path in folder.glob("*val*"):
        path.unlink()
    with pytest.raises(MisuseError, match=r"no shards for 'eval', named like validation-00000-of-00008, but only"):
        open_source(str(folder), "eval", num_classes=3)


def test_shards_of_another_form_are_reported(shards):
    folder = shards(train=(1,))
    for content, received in ((b"no example", "other data"), (tf.train.Example().SerializeToString(), "other data")):
        with tf.io.TFRecordWriter(str(folder / "train-00000-of-00001")) as writer:
            writer.write(content)
        with pytest.raises(MisuseError, match=rf"one image/encoded \(bytes\) .* received {received}"):
            open_source(str(folder), num_classes=3)
    (folder / "train-00000-of-00001").write_bytes(b"\x1f\x8b" + bytes(range(200)))
    with pytest.raises(RunError, match=r"or not a plain TFRecord file: its last whole record ends at byte 0 of 202"):
        open_source(str(folder), num_classes=3)
    (folder / "train-00000-of-00001").write_bytes(b"")
    with pytest.raises(RunError, match=r"train-00000-of-00001 contains no records"):
        open_source(str(folder), num_classes=3)
    (folder / "manifest.partial.json").write_text("{}")
    with pytest.raises(MisuseError, match=r"unfinished conversion"):
        open_source(str(folder))  # reported before the number of classes is checked


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.update(class_names=[1, 2, 3]), "class_names is not a list of names"),
        (lambda m: m.update(class_names="abc"), "class_names is not a list of names"),
        (lambda m: m.update(first_label=2), "first_label is neither 0 nor 1"),
        (lambda m: m["splits"]["train"]["shards"][1].update(records=-5), "a shard has no records"),
        (lambda m: m["splits"]["train"]["shards"][1].update(records=4), "the shards do not have 21 records in total"),
        (lambda m: m["splits"]["train"]["shards"][1].update(file="train-00000-of-00003"), "is listed twice"),
        (lambda m: m["splits"]["train"]["shards"][1].update(file="../x"), "in another folder"),
    ],
)
def test_a_manifest_that_convert_would_never_write_is_reported(shards, change, message):
    folder = shards(manifest=True)
    manifest = json.loads((folder / "manifest.json").read_text())
    change(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(MisuseError, match=rf"manifest\.json can't be read .*{message}.*Convert again"):
        open_source(str(folder))


def test_a_broken_image_is_named_by_its_file(image_folder, tmp_path):
    folder = image_folder(classes=2, train=4, val=1)
    (folder / "train" / "class1" / "3.jpg").write_bytes(b"no image")
    convert(str(folder), str(tmp_path / "out"))
    log = CorruptLog(1)
    source = open_source(tmp_path / "out")  # a pathlib.Path
    list(train_pipeline(source, TrainConfig(batch_size=4, image_size=8, epochs=1, corrupt=log)))
    (name,) = log.names
    assert name.startswith("train-00000-of-00001[") and name.endswith("] class1/3.jpg")
    again = CorruptLog(1)
    list(train_pipeline(source, TrainConfig(batch_size=4, image_size=8, epochs=1, corrupt=again, cache=True)))
    assert again.names == [name]


def test_first_label_must_not_contradict_the_manifest(shards):
    with pytest.raises(MisuseError, match=r"first_label=1 contradicts .*manifest\.json, which has 0"):
        open_source(str(shards(manifest=True)), first_label=1)


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"format": "other"}', '{"format": "keras_bot tfrecord 1"}'])
def test_a_manifest_of_another_form_is_reported(shards, content):
    folder = shards()
    (folder / "manifest.json").write_text(content)
    with pytest.raises(MisuseError, match=r"manifest\.json can't be read .*Convert again"):
        open_source(str(folder))


@pytest.mark.thorough
@pytest.mark.parametrize("split", ["train", "eval"])
def test_workers_shares_of_shards(shards, split):
    folder = str(shards(manifest=True))
    everything = [r["name"] for r in _records(open_source(folder, split))]
    shares = []
    for worker in range(4):
        context = tf.distribute.InputContext(4, worker, 4)
        source = open_source(folder, split, read_config=types.SimpleNamespace(input_context=context))
        shares.append([r["name"] for r in _records(source)])
        assert len(shares[-1]) == source.size
        seed = tf.constant([1, 1], tf.int64)
        assert sorted(source.record_name(*k).numpy() for k in source.keys(seed, 6)) == sorted(shares[-1])
    sizes = [len(share) for share in shares]
    assert sizes == ([5, 5, 5, 5] if split == "train" else [2, 2, 2, 1])
    assert [name for share in shares for name in share] == everything[: sum(sizes)]
