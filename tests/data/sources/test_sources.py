import re
import shutil
import textwrap

import numpy as np
import pytest
import tensorflow as tf
from processes import python_command, run_python, start_process

from keras_bot.data import TrainConfig, open_source, train_pipeline
from keras_bot.data.decode import decode
from keras_bot.data.sources.base import run_error
from keras_bot.errors import MisuseError, RunError


def _records(source):
    return list(source.records().as_numpy_iterator())


def test_npz_holds_what_was_saved(npz_file):
    x = np.random.default_rng(1).integers(0, 256, (24, 8, 8), np.uint8)
    y = (np.arange(24) % 3)[:, None].astype(np.int32)
    for images in (x, x[..., None], np.stack([x] * 3, -1)):
        source = open_source(str(npz_file(x_train=images, y_train=y)))
        records = _records(source)
        assert (source.num_classes, source.size, source.class_names) == (3, 24, ("0", "1", "2"))
        np.testing.assert_array_equal([r["label"] for r in records], y[:, 0])
        assert records[5]["name"] == b"train[5]"
        np.testing.assert_array_equal(records[5]["image"][..., 0], x[5])
    named = open_source(str(npz_file(class_names=np.array(["a", "b", "c", "d"]))), "eval")
    assert named.class_names == ("a", "b", "c", "d") and named.size == 10
    assert open_source(str(npz_file()), num_classes=7).num_classes == 7


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"y_train": None}, r"lacks y_train; it contains x_train, x_test, y_test\. Save the arrays as x_train"),
        ({"y_train": np.arange(23) % 4}, r"24 images in x_train, but 23 labels in y_train"),
        (
            {"x_train": np.zeros((24, 8, 8, 3), np.float32)},
            r"x_train must be uint8 .* received float32 \(24, 8",
        ),
        ({"x_train": np.zeros((24, 8, 8, 4), np.uint8)}, r"received uint8 \(24, 8, 8, 4\)"),
        ({"x_train": np.zeros((0, 8, 8, 3), np.uint8)}, r"received uint8 \(0, 8, 8, 3\)"),
        ({"y_train": np.zeros(24)}, r"y_train must be integers .* received float64"),
        ({"y_train": np.eye(4, dtype=np.int64)[np.arange(24) % 4]}, r"received int64 \(24, 4\)"),
        ({"y_train": np.arange(24) - 1}, r"labels in y_train must be at least 0, received -1"),
        ({"class_names": np.array(["a", "b"])}, r"labels in y_train must be from 0 to 1 for 2 classes, received 3"),
        ({"class_names": np.array([1, 2, 3, 4])}, r"class_names must be strings"),
        ({"class_names": np.array(["a", None], object)}, r"class_names can't be read"),
    ],
)
def test_npz_of_another_form_is_reported(npz_file, arrays, message):
    with pytest.raises(MisuseError, match=message):
        open_source(str(npz_file(**arrays)))


def test_npz_with_too_few_classes_or_no_npz(npz_file, tmp_path):
    with pytest.raises(MisuseError, match=r"labels in y_train must be from 0 to 2 for 3 classes, received 3"):
        open_source(str(npz_file()), num_classes=3)
    with pytest.raises(MisuseError, match=r"num_classes=3, but .* has 4"):
        open_source(str(npz_file(class_names=np.array(list("abcd")))), num_classes=3)
    with pytest.raises(MisuseError, match=r"No file .*none\.npz"):
        open_source(str(tmp_path / "none.npz"))
    (tmp_path / "text.npz").write_text("hello")
    with pytest.raises(MisuseError, match=r"text\.npz is not an \.npz file"):
        open_source(str(tmp_path / "text.npz"))
    (tmp_path / "cut.npz").write_bytes(npz_file().read_bytes()[:500])
    with pytest.raises(MisuseError, match=r"cut\.npz is not an \.npz file"):
        open_source(str(tmp_path / "cut.npz"))
    with open(tmp_path / "single.npz", "wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(MisuseError, match=r"contains a single array"):
        open_source(str(tmp_path / "single.npz"))


def test_synthetic_is_noise_and_always_the_same():
    source = open_source("synthetic", num_classes=5, synthetic_images=50, image_size=9)
    first, second = _records(source), _records(source)
    assert len(first) == source.size == 50 and source.num_classes == 5
    pixels = np.stack([r["image"] for r in first])
    assert pixels.shape == (50, 9, 9, 3) and pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels, np.stack([r["image"] for r in second]))
    assert pixels.mean() == pytest.approx(127.5, abs=3) and pixels.std() == pytest.approx(73.9, abs=2)
    assert {r["label"] for r in first} == set(range(5))
    other = np.stack([r["image"] for r in _records(open_source("synthetic", "eval", image_size=9))])
    assert len(other) == 1024 and not (other[:50] == pixels).all((1, 2, 3)).any()


def test_cached_source_holds_the_same_records(image_folder):
    source = open_source(str(image_folder()))
    assert _records(source.cached()) == _records(source)


@pytest.mark.thorough
def test_digits_are_scikit_learns_in_a_fixed_stratified_split(digits_dir):
    from sklearn.datasets import load_digits

    train, test = (open_source("digits", split, data_dir=digits_dir) for split in ("train", "eval"))
    assert (train.size, test.size, train.num_classes) == (1442, 355, 10)
    counts = np.bincount([r["label"] for r in _records(test)])
    assert counts.min() >= 34 and counts.max() <= 37
    mine = sorted((_pixels(r), r["label"]) for s in (train, test) for r in _records(s))
    theirs = load_digits()
    expected = sorted(
        (np.rint(image * 255 / 16).astype(np.uint8).tobytes(), label)
        for image, label in zip(theirs.images, theirs.target, strict=True)
    )
    assert mine == expected


def _pixels(record):
    return decode(tf.constant(record["image"])).numpy()[..., 0].tobytes()


def test_tfds_parts_names_and_errors(digits_dir):
    part = open_source("digits", data_dir=digits_dir, tfds_split="train[:50%]")
    assert part.size == 721
    names = {r["name"] for r in _records(part)}
    assert len(names) == 721 and b"digits-train.tfrecord-00000-of-00001[0]" in names
    with pytest.raises(MisuseError, match=r"imagenet2012.*needs a manual download.*ILSVRC2012.*tfds build"):
        open_source("imagenet2012", data_dir=digits_dir)


def test_a_set_that_cannot_be_prepared_is_one_clear_error(digits_dir, monkeypatch):
    import tensorflow_datasets as tfds

    def fail(*args, **kwargs):
        raise ConnectionError("no network")

    monkeypatch.setattr(tfds.core.GeneratorBasedBuilder, "download_and_prepare", fail)
    with pytest.raises(RunError, match=r"'mnist' could not be prepared in .*no network.*tfds build mnist"):
        open_source("mnist", data_dir=digits_dir)


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_cut_tfds_file_is_named_with_the_place(digits_dir, tmp_path, split):
    open_source("digits", data_dir=digits_dir)
    shutil.copytree(digits_dir, tmp_path / "tfds")
    path = next((tmp_path / "tfds").rglob(f"*{split}.tfrecord*"))
    size = path.stat().st_size
    with open(path, "r+b") as file:
        file.truncate(size - 1)
    source = open_source("digits", "train" if split == "train" else "eval", data_dir=str(tmp_path / "tfds"))
    with pytest.raises(tf.errors.OpError) as caught:
        list(train_pipeline(source, TrainConfig(batch_size=50, image_size=8, epochs=1)))
    message = str(run_error(caught.value))
    end = int(re.search(r"ends at byte (\d+) of", message)[1])
    assert message.startswith(f"{path} is truncated") and size - 300 < end < size - 1


@pytest.mark.thorough
def test_two_processes_may_build_digits_at_once(tmp_path):
    program = textwrap.dedent(
        f"""
        from keras_bot.data import open_source
        source = open_source("digits", data_dir={str(tmp_path)!r})
        assert sum(1 for _ in source.records()) == 1442
        """
    )
    processes = [start_process(python_command(program)) for _ in range(2)]
    for process in processes:
        _, stderr = process.communicate(timeout=120)
        assert process.returncode == 0, stderr[-2000:]


def test_the_loser_of_the_race_takes_the_winners_data(tmp_path, monkeypatch):
    import tensorflow_datasets as tfds

    prepare = tfds.core.GeneratorBasedBuilder.download_and_prepare

    def lose(builder, **options):
        prepare(tfds.builder("digits", data_dir=str(tmp_path)), **options)
        raise OSError("Directory not empty")

    monkeypatch.setattr(tfds.core.GeneratorBasedBuilder, "download_and_prepare", lose)
    assert open_source("digits", data_dir=str(tmp_path)).size == 1442


def _builder(name, keys):
    """A TFDS set of 6 images whose features have other names, with these supervised_keys."""
    import tensorflow_datasets as tfds

    features = {"photo": tfds.features.Image(shape=(4, 4, 3)), "kind": tfds.features.ClassLabel(names=["cat", "dog"])}

    def info(self):
        return self.dataset_info_from_configs(features=tfds.features.FeaturesDict(features), supervised_keys=keys)

    def generate(self, manager):
        return {"train": ((i, {"photo": np.full((4, 4, 3), i, np.uint8), "kind": i % 2}) for i in range(6))}

    own = {"VERSION": tfds.core.Version("1.0.0"), "_info": info, "_split_generators": generate}
    own |= {"_generate_examples": None, "pkg_dir_path": tfds.core.Path(__file__).parent, "__module__": __name__}
    return type(name, (tfds.core.GeneratorBasedBuilder,), own)


def test_features_of_other_names_are_found_by_the_sets_supervised_keys(tmp_path):
    pytest.importorskip("tensorflow_datasets")
    _builder("OtherNames", ("photo", "kind"))
    source = open_source("other_names", data_dir=str(tmp_path))
    assert source.class_names == ("cat", "dog")
    found = {(int(decode(tf.constant(r["image"]))[0, 0, 0]), int(r["label"])) for r in _records(source)}
    assert found == {(i, i % 2) for i in range(6)}
    for name, keys in (("NoNames", None), ("Reversed", ("kind", "photo"))):
        _builder(name, keys)
        with pytest.raises(MisuseError, match=r"features photo, kind\. .*or two such features in its supervised_keys"):
            open_source({"NoNames": "no_names", "Reversed": "reversed"}[name], data_dir=str(tmp_path))


@pytest.mark.thorough
def test_importing_data_takes_no_tfds():
    program = "import sys, keras_bot.data; sys.exit('tensorflow_datasets' in sys.modules)"
    run_python(program)


def test_cifar10_file_opens_and_flows(test_data):
    source = open_source(str(test_data / "cifar10" / "cifar10_10k_2k.npz"))
    assert source.size == 10_000 and source.class_names[0] == "airplane"
    images, labels = next(
        iter(train_pipeline(source, TrainConfig(batch_size=100, image_size=32, transform="cifar", epochs=1)))
    )
    assert images.shape == (100, 32, 32, 3) and labels.shape == (100, 10)


def test_a_fingerprint_is_of_labels_and_stored_images(npz_file, image_folder):
    plain, again = (open_source(str(npz_file(name))).fingerprint() for name in ("a.npz", "b.npz"))
    assert plain == again and re.fullmatch("[0-9a-f]{16}", plain)
    other_labels = open_source(str(npz_file("c.npz", y_train=np.arange(24) // 6))).fingerprint()
    other_images = open_source(str(npz_file("d.npz", x_train=np.zeros((24, 8, 8, 3), np.uint8)))).fingerprint()
    folder = image_folder()
    photos = open_source(str(folder)).fingerprint()
    (folder / "train/class0/0.jpg").write_bytes(b"no picture")
    assert len({plain, other_labels, other_images, photos, open_source(str(folder)).fingerprint()}) == 5


def test_a_fingerprint_counts_what_cannot_be_read_as_empty(image_folder):
    folder = image_folder()
    source = open_source(str(folder))
    before = source.fingerprint()
    (folder / "train/class0/0.jpg").unlink()
    assert source.fingerprint() != before


def test_classes_of_one_name_are_refused(npz_file):
    path = npz_file(class_names=np.array(["a", "b", "a", "c"]))
    with pytest.raises(
        MisuseError, match=r"has classes of the same name: 'a' \(classes 0, 2\)\. Give each class a unique name"
    ):
        open_source(str(path))
