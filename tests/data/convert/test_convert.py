"""Image folders as TFRecord shards: what is in them, and that a kill at any moment changes nothing."""

import contextlib
import hashlib
import itertools
import json
import os
import pathlib
import random
import shutil
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from processes import file_size_limit, run_command

from keras_bot.data import open_source
from keras_bot.data.convert.conversion import convert
from keras_bot.data.sources.folder import open_layout
from keras_bot.errors import MisuseError, RunError


def _examples(path):
    return [tf.train.Example.FromString(r.numpy()) for r in tf.data.TFRecordDataset(str(path))]


def _feature(example, name):
    feature = example.features.feature[name]
    (value,) = feature.bytes_list.value or feature.int64_list.value
    return value


def _hashes(out):
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in out.iterdir()}


def _shards(manifest):
    return [shard for split in manifest["splits"].values() for shard in split["shards"]]


def test_every_feature_of_every_image(image_folder, tmp_path):
    folder = image_folder(classes=3, train=5, val=2)
    (folder / "train" / "class1").rename(folder / "train" / "écureuil gris")
    (folder / "val" / "class1").rename(folder / "val" / "écureuil gris")
    (folder / "classes.csv").write_text("f,n\nécureuil gris,Squirrel\nclass2,\nclass0,zero\n")
    Image.new("RGB", (7, 9)).save(folder / "train" / "class2" / "a b.PNG")
    Image.new("P", (3, 2)).save(folder / "train" / "class2" / "猫.gif")
    Image.new("RGB", (5, 4)).save(folder / "train" / "class2" / "é.bmp")
    (folder / "train" / "class0" / "broken.jpg").write_bytes(b"no image")
    out = tmp_path / "out put é"
    manifest = convert(str(folder), str(out), shards=3, validation_shards=2, first_label=1)
    assert json.loads((out / "manifest.json").read_text()) == manifest
    assert manifest["class_names"] == ["Squirrel", "class2", "zero"]
    assert manifest["class_folders"] == ["écureuil gris", "class2", "class0"]
    assert (manifest["format"], manifest["first_label"]) == ("keras_bot tfrecord 1", 1)
    assert sorted(os.listdir(out)) == ["manifest.json", *sorted(s["file"] for s in _shards(manifest))]
    assert [s["file"] for s in _shards(manifest)][::3] == ["train-00000-of-00003", "validation-00000-of-00002"]
    sizes = {"a b.PNG": (b"PNG", 9, 7), "猫.gif": (b"GIF", 2, 3), "é.bmp": (b"BMP", 4, 5), "broken.jpg": (b"", 0, 0)}
    for name, split in (("train", "train"), ("validation", "val")):
        part = manifest["splits"][name]
        examples = []
        for shard in part["shards"]:
            data = (out / shard["file"]).read_bytes()
            assert (len(data), hashlib.sha256(data).hexdigest()) == (shard["bytes"], shard["sha256"])
            examples.append(_examples(out / shard["file"]))
            assert len(examples[-1]) == shard["records"]
        seen = set()
        for example in itertools.chain(*examples):
            place, file = _feature(example, "image/class/synset").decode(), _feature(example, "image/filename").decode()
            seen.add(f"{place}/{file}")
            assert _feature(example, "image/encoded") == (folder / split / place / file).read_bytes()
            label = manifest["class_folders"].index(place)
            assert _feature(example, "image/class/label") == label + 1
            assert _feature(example, "image/class/text").decode() == manifest["class_names"][label]
            header = tuple(_feature(example, f"image/{n}") for n in ("format", "height", "width"))
            assert header == sizes.get(file, (b"JPEG", 30, 40))
            assert len(example.features.feature) == 8
        assert seen == {f"{p.parent.name}/{p.name}" for p in (folder / split).glob("*/*")}
        assert len(seen) == part["records"] == sum(map(len, examples))


@pytest.mark.parametrize("first_label", [0, 1])
def test_shards_open_as_the_folder_they_came_from(image_folder, tmp_path, first_label):
    folder = image_folder(classes=3, train=5, val=2)
    (folder / "classes.csv").write_text("f,n\nclass2,crane\nclass0,zero\nclass1,bird\n")
    convert(str(folder), str(tmp_path / "out"), shards=2, validation_shards=2, first_label=first_label)
    for split in ("train", "eval"):
        theirs, ours = open_source(str(folder), split), open_source(str(tmp_path / "out"), split)
        assert (ours.size, ours.class_names) == (theirs.size, theirs.class_names)
        mine, expected = ([(r["image"], r["label"]) for r in s.records().as_numpy_iterator()] for s in (ours, theirs))
        assert sorted(mine) == sorted(expected) and (mine == expected) == (split == "eval")


def _many(tmp_path, classes=8, images=50, evaluation=5):
    """Files that needn't be images: a copy doesn't look inside."""
    draw = np.random.default_rng(0)
    for split, count in (("train", images), ("val", evaluation)):
        for label in range(classes):
            directory = tmp_path / "many" / split / f"c{label}"
            directory.mkdir(parents=True)
            for i in range(count):
                (directory / f"{i:03}.jpg").write_bytes(draw.bytes(int(draw.integers(1, 4000))))
    return tmp_path / "many"


def _places(out, manifest, split):
    """Of each shard, where its images come in the folder's own order."""
    return [
        [
            int(_feature(e, "image/class/label")) * 50 + int(_feature(e, "image/filename")[:3])
            for e in _examples(out / s["file"])
        ]
        for s in manifest["splits"][split]["shards"]
    ]


def test_training_images_are_shuffled_over_all_shards_and_evaluation_stays_in_order(tmp_path):
    folder = _many(tmp_path)
    out = tmp_path / "out"
    manifest = convert(str(folder), str(out), shards=4, validation_shards=3)
    shards = _places(out, manifest, "train")
    assert [len(s) for s in shards] == [100] * 4 and sorted(itertools.chain(*shards)) == list(range(400))
    for shard in shards:
        counts = np.bincount(np.array(shard) // 50, minlength=8)
        assert counts.min() >= 4 and counts.max() <= 24  # 12.5 of each class, give or take
        assert abs(np.corrcoef(np.arange(100), shard)[0, 1]) < 0.3
    other = convert(str(folder), str(tmp_path / "other"), shards=4, seed=1)
    assert _places(tmp_path / "other", other, "train")[0] != shards[0]
    validation = list(itertools.chain(*_places(out, manifest, "validation")))
    assert validation == [50 * label + i for label in range(8) for i in range(5)]
    assert [s["records"] for s in manifest["splits"]["validation"]["shards"]] == [13, 13, 14]


def test_the_number_of_shards_follows_the_size(tmp_path, monkeypatch):
    folder = _many(tmp_path, images=10)
    one = convert(str(folder), str(tmp_path / "one"))
    assert [s["file"] for s in _shards(one)] == ["train-00000-of-00001", "validation-00000-of-00001"]
    monkeypatch.setattr("keras_bot.data.convert.plan._SHARD_BYTES", 20_000)
    total = sum(p.stat().st_size for p in (folder / "train").glob("*/*"))
    more = convert(str(folder), str(tmp_path / "more"))
    assert len(more["splits"]["train"]["shards"]) == -(-total // 20_000) > 4
    monkeypatch.setattr("keras_bot.data.convert.plan._SHARD_BYTES", 1)
    assert len(convert(str(folder), str(tmp_path / "most"))["splits"]["train"]["shards"]) == 80  # one image each


KILLED = """
    import os, random, signal, sys, time
    from keras_bot.data.convert.conversion import convert

    folder, out, seed = sys.argv[1:]
    draw = random.Random(int(seed))
    moment = 0

    def die_at(name, last):  # just before and just after each rename and sync
        call = getattr(os, name)

        def counted(*args):
            global moment
            for act in (lambda: None, lambda: call(*args)):
                act()
                moment += 1
                if moment == last:
                    os.kill(os.getpid(), signal.SIGKILL)

        setattr(os, name, counted)

    def killed(out, last=0, seconds=60, **options):
        pid = os.fork()
        if not pid:
            for name in ("replace", "fsync"):
                die_at(name, last)
            try:
                convert(folder, out, **options)
                os._exit(0)
            except BaseException as error:
                print(repr(error), flush=True)
                os._exit(1)
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                break
            time.sleep(0.001)
        else:
            os.kill(pid, signal.SIGKILL)
            status = os.waitpid(pid, 0)[1]
        assert status in (0, signal.SIGKILL), status
        return status != 0

    last = 1
    while killed(f"{out}/step{last}", last, shards=2):
        assert not killed(f"{out}/step{last}", shards=2)
        last += 1
    kills = 0
    slowly = lambda *report: time.sleep(0.002)  # 440 images take at least 0.88 s: more than three of the kills below
    while killed(f"{out}/random", seconds=draw.uniform(0, 0.29), shards=12, validation_shards=3, progress=slowly):
        names = os.listdir(f"{out}/random") if os.path.exists(f"{out}/random") else []
        print("killed with", sum("-of-" in name for name in names), "shards", flush=True)
        kills += 1
        if kills == 8:
            break
    assert last > 20 and kills >= 3, (last, kills)
"""


@pytest.mark.soak
def test_killed_at_each_step_and_at_random_moments_it_gives_the_same_bytes(tmp_path):
    folder = _many(tmp_path)
    seed = random.SystemRandom().randrange(2**32)
    driver = [sys.executable, "-c", textwrap.dedent(KILLED), str(folder), str(tmp_path / "out"), str(seed)]
    run = subprocess.run(driver, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, (seed, run.stdout, run.stderr[-2000:])
    for name, options in (("step", {"shards": 2}), ("random", {"shards": 12, "validation_shards": 3})):
        expected = convert(str(folder), str(tmp_path / name), **options)
        outs = list((tmp_path / "out").glob(f"{name}*"))
        assert len(outs) > 20 or outs == [tmp_path / "out" / "random"]
        for out in outs:
            assert convert(str(folder), str(out), **options) == expected
            assert _hashes(out) == _hashes(tmp_path / name), (seed, out.name, run.stdout)


@pytest.mark.soak
def test_the_command_killed_between_and_within_shards_gives_the_same_bytes(tmp_path):
    """Each run of the command is killed once some more shards are whole; the last is let go on."""
    folder, out = _many(tmp_path, images=200), tmp_path / "out"
    convert(str(folder), str(tmp_path / "unbroken"), shards=12, validation_shards=3)
    command = [sys.executable, "-m", "keras_bot", "data", "convert", str(folder), str(out)]
    command += ["--shards=12", "--validation_shards=3"]
    for until in (1, 4, 7):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        for line in process.stdout:
            if line.startswith(f"train-{until - 1:05}-of-00012 is complete"):
                break
        time.sleep(random.uniform(0, 0.02))
        process.kill()
        assert process.wait() == -9
        process.stdout.close()
        names = os.listdir(out)
        assert "manifest.json" not in names and len([n for n in names if "-of-00012" in n]) in range(until, 12)
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "validation-00002-of-00003 is complete: 1640 of 1640 images" in done.stdout
    assert _hashes(out) == _hashes(tmp_path / "unbroken")


@contextlib.contextmanager
def _stopped_after(shards):
    """A progress callback that ends the conversion after so many shards, as a failure would."""
    whole = []

    def progress(done, images, shard):
        whole.extend([shard] * bool(shard))
        if len(whole) == shards:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        yield progress


def _begun(folder, out, shards=3):
    with _stopped_after(shards) as progress:
        convert(str(folder), str(out), shards=6, progress=progress)


@pytest.mark.parametrize("finished", [False, True])
@pytest.mark.parametrize("damage", ["flip", "cut", "longer", "remove"])
def test_a_damaged_shard_is_noticed_and_written_again(tmp_path, damage, finished):
    folder, out = _many(tmp_path, images=12), tmp_path / "out"
    convert(str(folder), str(tmp_path / "unbroken"), shards=6)
    convert(str(folder), str(out), shards=6) if finished else _begun(folder, out)
    path = out / "train-00001-of-00006"
    data = bytearray(path.read_bytes())
    data[1000] ^= 1
    write = {"flip": data, "cut": data[:-1], "longer": data + b"x"}
    path.unlink() if damage == "remove" else path.write_bytes(write[damage])
    untouched = (out / "train-00000-of-00006").stat()
    convert(str(folder), str(out), shards=6)
    assert _hashes(out) == _hashes(tmp_path / "unbroken")
    assert (out / "train-00000-of-00006").stat().st_ino == untouched.st_ino


def test_leftovers_of_a_kill_are_taken_for_nothing(tmp_path):
    folder, out = _many(tmp_path, images=12), tmp_path / "out"
    convert(str(folder), str(tmp_path / "unbroken"), shards=6)
    _begun(folder, out)
    (out / "train-00003.partial").write_bytes(b"half a shard")
    (out / ".manifest.partial.json.1.part").write_text('{"form')
    shutil.copy(out / "train-00000-of-00006", out / "train-00004-of-00006")  # renamed, but not in the manifest yet
    convert(str(folder), str(out), shards=6)
    assert _hashes(out) == _hashes(tmp_path / "unbroken")
    first = tmp_path / "first"
    first.mkdir()
    (first / ".manifest.partial.json.1.part").write_text('{"form')
    convert(str(folder), str(first), shards=6)
    assert _hashes(first) == _hashes(tmp_path / "unbroken")


def _written(folder):
    """Which files there are and when each was written; reading one moves its st_atime."""
    return {p.name: (p.stat().st_ino, p.stat().st_size, p.stat().st_mtime_ns) for p in folder.iterdir()}


def test_a_finished_conversion_is_left_alone(tmp_path):
    folder, out = _many(tmp_path, images=12), tmp_path / "out"
    first = convert(str(folder), str(out), shards=6)
    before = _written(out)
    reports = []
    assert convert(str(folder), str(out), shards=6, progress=lambda *r: reports.append(r)) == first
    assert _written(out) == before
    assert [done for done, _, _ in reports] == [16, 32, 48, 64, 80, 96, 136]


def test_progress_counts_every_image_once(tmp_path):
    folder, reports = _many(tmp_path, images=12), []
    _begun(folder, tmp_path / "out")
    manifest = convert(str(folder), str(tmp_path / "out"), shards=6, progress=lambda *r: reports.append(r))
    assert [shard for _, _, shard in reports if shard] == [s["file"] for s in _shards(manifest)]
    counts = [done for done, _, _ in reports]
    assert counts == sorted(counts) and set(counts) == {16, 32, *range(48, 137)}
    assert {images for _, images, _ in reports} == {136}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seed": 1}, r"another conversion: seed was 0, now it is 1\."),
        ({"first_label": 1}, r"first_label was 0, now it is 1\."),
        ({"shards": 5}, r"shards was 6, now it is 5\."),
        (
            {"validation_shards": 2, "seed": 3},
            r"seed was 0, now it is 3; validation_shards was 1, now it is 2",
        ),
    ],
)
@pytest.mark.parametrize("finished", [False, True])
def test_another_conversion_is_refused(tmp_path, options, message, finished):
    folder, out = _many(tmp_path, images=12), tmp_path / "out"
    convert(str(folder), str(out), shards=6) if finished else _begun(folder, out)
    before = _hashes(out)
    with pytest.raises(MisuseError, match=message):
        convert(str(folder), str(out), **{"shards": 6, **options})
    assert _hashes(out) == before


def test_other_contents_of_the_folder_are_refused(tmp_path):
    folder, out = _many(tmp_path, images=12), tmp_path / "out"
    _begun(folder, out)
    before = _hashes(out)
    image = folder / "train" / "c3" / "004.jpg"
    data, times = image.read_bytes(), (image.stat().st_atime_ns, image.stat().st_mtime_ns)

    def expect_misuse():
        with pytest.raises(MisuseError, match=r"another conversion: the image folder's .* have changed"):
            convert(str(folder), str(out), shards=6)
        assert _hashes(out) == before

    image.write_bytes(bytes(len(data)))  # of the same size
    expect_misuse()
    image.write_bytes(data + b"x")
    os.utime(image, ns=times)
    expect_misuse()
    image.rename(image.with_name("005b.jpg"))
    expect_misuse()
    image.with_name("005b.jpg").rename(image)
    image.write_bytes(data)
    os.utime(image, ns=times)
    (folder / "classes.csv").write_text("f,n\n" + "\n".join(f"c{i},name{i}" for i in range(8)))
    expect_misuse()
    (folder / "classes.csv").unlink()
    convert(str(folder.rename(tmp_path / "moved")), str(out), shards=6)  # where it lies doesn't matter


def test_a_folder_that_holds_something_else_is_refused(image_folder, tmp_path):
    folder = image_folder(train=1, val=1)
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.tex").write_text("years of work")
    with pytest.raises(MisuseError, match=r"other contains other files \('thesis\.tex'\)\. Choose an empty folder"):
        convert(str(folder), str(other))
    assert os.listdir(other) == ["thesis.tex"]
    with pytest.raises(MisuseError, match=r"thesis\.tex is a file\. Choose a folder"):
        convert(str(folder), str(other / "thesis.tex"))
    for inside in (folder / "train" / "class0", folder / "val", folder / "train" / "new"):
        with pytest.raises(MisuseError, match=r"is inside the folders of images"):
            convert(str(folder), str(inside))
    with pytest.raises(MisuseError, match=r"contains other files \('train'\)"):
        convert(str(folder), str(folder))
    for text in ('{"format": "other"}', "[1]", '{"format', '{"format": "keras_bot tfrecord 1", "splits": [1]}'):
        (other / "manifest.json").write_text(text)
        with pytest.raises(MisuseError, match=r"manifest\.json is not a manifest of `keras-bot data convert`"):
            convert(str(folder), str(other))
    convert(str(folder), str(folder / "tfrecord"))  # next to train and val


def test_numbers_out_of_range_are_reported(image_folder, tmp_path):
    folder = image_folder(classes=2, train=3, val=1)
    for options, message in (
        ({"shards": 7}, r"shards must be from 1 to 6 for 6 train images, received 7"),
        ({"shards": -1}, r"shards must be from 1 to 6"),
        ({"validation_shards": 3}, r"validation_shards must be from 1 to 2 for 2 validation images, received 3"),
        ({"seed": -1}, r"seed must be from 0 to 4294967295, received -1"),
        ({"seed": 2**32}, r"seed must be from 0 to"),
        ({"first_label": 2}, r"first_label must be 0 or 1, received 2"),
    ):
        with pytest.raises(MisuseError, match=message):
            convert(str(folder), str(tmp_path / "out"), **options)
    with pytest.raises(MisuseError, match=r"No folder .*nowhere"):
        convert(str(tmp_path / "nowhere"), str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_files_that_hold_nothing_are_reported_before_anything_is_written(image_folder, tmp_path):
    folder = image_folder(classes=2, train=4, val=1)
    (folder / "train" / "class0" / "1.jpg").write_bytes(b"")
    (folder / "train" / "class1" / "0.jpg").unlink()
    (folder / "train" / "class1" / "0.jpg").symlink_to(tmp_path / "gone.jpg")
    (folder / "val" / "class1" / "folder.jpg").mkdir()  # no image, and no fault either
    with pytest.raises(MisuseError) as caught:
        convert(str(folder), str(tmp_path / "out"))
    message = str(caught.value)
    assert message.startswith("2 files are not images") and "more" not in message
    for name in ("class0/1.jpg (empty)", "class1/0.jpg (No such file"):
        assert name in message
    for i in range(20):
        (folder / "train" / "class0" / f"e{i}.jpg").touch()
    with pytest.raises(MisuseError, match=r"22 files are not images.* and 17 more\. Fix or remove"):
        convert(str(folder), str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_a_file_that_cannot_be_inspected_is_reported_even_without_a_reason_of_the_system(
    image_folder, tmp_path, monkeypatch
):
    folder, inspect = image_folder(classes=2, train=2, val=1), os.stat

    def fail(path, **options):
        if os.fsencode(path).endswith(b"train/class0/1.jpg"):
            raise OSError("the share is gone")  # has no strerror
        return inspect(path, **options)

    monkeypatch.setattr(os, "stat", fail)
    with pytest.raises(MisuseError, match=r"1 files are not images: \S+class0/1\.jpg \(the share is gone\)\. Fix"):
        convert(str(folder), str(tmp_path / "out"))


def test_an_image_that_goes_away_while_it_is_converted(tmp_path):
    folder, out = _many(tmp_path, images=12), tmp_path / "out"
    _begun(folder, out)
    listing = open_layout(str(folder)).listing("train")
    order = np.random.RandomState(0).permutation(96)
    victim = pathlib.Path(os.fsdecode(listing.path(order[-1])))
    data, times = victim.read_bytes(), (victim.stat().st_atime_ns, victim.stat().st_mtime_ns)

    def remove(done, images, shard):
        victim.unlink(missing_ok=True)

    with pytest.raises(RunError, match=rf"Can't read .*{victim.parent.name}/{victim.name}: No such file"):
        convert(str(folder), str(out), shards=6, progress=remove)
    assert not list(out.glob("train-*.partial"))
    victim.write_bytes(data)
    os.utime(victim, ns=times)
    convert(str(folder), str(out), shards=6)
    convert(str(folder), str(tmp_path / "unbroken"), shards=6)
    assert _hashes(out) == _hashes(tmp_path / "unbroken")


def test_too_little_space_is_reported_before_the_first_shard(tmp_path, monkeypatch):
    folder, out = _many(tmp_path, images=12), tmp_path / "out"
    size = sum(p.stat().st_size for p in folder.glob("*/*/*"))
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=size // 2))
    with pytest.raises(RunError, match=r"out has 0 MB free, but the shards take about 0 MB\. Make room"):
        convert(str(folder), str(out), shards=6)
    assert not list(out.glob("train*"))
    monkeypatch.undo()
    _begun(folder, out, shards=5)  # most of it is there: the rest needs little
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=size * 3 // 4))
    convert(str(folder), str(out), shards=6)


@pytest.mark.thorough
def test_a_disk_that_fills_up_is_one_clear_error_and_keeps_whole_shards(tmp_path):
    """A limit on the size of files stands for the full disk: the system's write fails in the same way."""
    folder, out = _many(tmp_path, images=12), tmp_path / "out"
    shutil.rmtree(folder / "val")
    (folder / "val" / "c0").mkdir(parents=True)
    (folder / "val" / "c0" / "large.jpg").write_bytes(bytes(300_000))
    with file_size_limit(200_000):
        line = run_command("data", "convert", folder, out, "--shards=6", code=1).error
    assert f"Can't write to {out}: " in line and "File too large" in line and "finished shards are kept" in line
    assert sorted(os.listdir(out)) == ["manifest.partial.json", *(f"train-{i:05}-of-00006" for i in range(6))]
    convert(str(folder), str(out), shards=6)
    convert(str(folder), str(tmp_path / "unbroken"), shards=6)
    assert _hashes(out) == _hashes(tmp_path / "unbroken")


def test_a_folder_that_cannot_be_made_is_one_clear_error(image_folder, tmp_path):
    folder = image_folder(train=1, val=1)
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match=r"Can't write to .*file/out: .*Not a directory"):
        convert(str(folder), str(tmp_path / "file" / "out"))


def test_two_at_once_are_refused(image_folder, tmp_path):
    folder = image_folder(train=3, val=1)
    attempts = []

    def second(done, images, shard):
        if not attempts:
            with pytest.raises(RunError, match=r"Another process is converting to .*out\. Wait"):
                convert(str(folder), str(tmp_path / "out"), shards=2)
            attempts.append(True)

    convert(str(folder), str(tmp_path / "out"), shards=2, progress=second)
    assert attempts


def test_images_in_memory_at_once_are_few(tmp_path):
    """A quarter of a GB of images passes through in a few MB: nothing is kept."""
    import tracemalloc

    folder = _many(tmp_path, classes=2, images=1, evaluation=1)
    large = folder / "large.bin"
    large.write_bytes(bytes(1_000_000))
    for i in range(250):
        os.link(large, folder / "train" / "c0" / f"l{i:03}.jpg")
    tracemalloc.start()
    convert(str(folder), str(tmp_path / "out"), shards=2)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 50_000_000
