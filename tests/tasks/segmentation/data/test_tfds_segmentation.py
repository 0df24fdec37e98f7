"""TFDS sets with masks: the same as their files, by the classes that are known or given."""

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from box_files import prepare_tfds
from builders import write_image

from keras_bot.errors import MisuseError, RunError
from keras_bot.tasks.segmentation.data.factory import open_segmentation
from keras_bot.tasks.segmentation.data.pipeline import (
    SegmentationEvalConfig,
    SegmentationTrainConfig,
    segmentation_eval_pipeline,
    segmentation_train_pipeline,
)

IDS = np.array([0, 1, 2], np.uint8)


class LabelledScenes(tfds.core.GeneratorBasedBuilder):
    """Six scenes whose masks name their classes."""

    VERSION = tfds.core.Version("1.0.0")
    MASK = tfds.features.LabeledImage(labels=["void", "sky", "road"])

    def _info(self):
        features = {"image": tfds.features.Image(), "mask": self.MASK, "label": tfds.features.ClassLabel(num_classes=2)}
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(range(4)), "test": self._generate_examples(range(4, 6))}

    def _generate_examples(self, numbers):
        for number in numbers:
            image, mask = scene(number)
            yield number, {"image": image, "mask": self.shown(mask), "label": number % 2}

    def shown(self, mask):
        return mask[..., None]


class PlainScenes(LabelledScenes):
    """The same, whose classes nobody names."""

    MASK = tfds.features.Image(shape=(None, None, 1))


class ColouredScenes(LabelledScenes):
    """The same, with masks of three channels."""

    MASK = tfds.features.Image()

    def shown(self, mask):
        return np.repeat(mask[..., None], 3, -1)


class PressedScenes(LabelledScenes):
    """The same, with masks in JPEG."""

    MASK = tfds.features.Image(shape=(None, None, 1), encoding_format="jpeg")


def scene(number):
    draw = np.random.default_rng(number)
    shape = (6 + number, 8)
    return draw.integers(0, 256, (*shape, 3), np.uint8), draw.choice(IDS, shape)


@pytest.fixture
def prepared(tmp_path):
    """Prepares a set of this module, in two shards, and gives its data_dir."""

    def make(builder):
        config = tfds.download.DownloadConfig(num_shards=2, try_download_gcs=False)
        builder(data_dir=tmp_path / "tfds").download_and_prepare(download_config=config)
        return str(tmp_path / "tfds")

    return make


@pytest.fixture
def folder(tmp_path):
    """The scenes as a folder."""
    for number in range(6):
        for kind, pixels in zip(("images", "masks"), scene(number), strict=True):
            write_image(tmp_path / "folder" / kind / f"{number}.png", pixels)
    (tmp_path / "folder/train.txt").write_text("0\n1\n2\n3\n")
    (tmp_path / "folder/classes.csv").write_text("id,name\n0,void\n1,sky\n2,road\n")
    return tmp_path / "folder"


def _by_image(batches):
    """Images and masks, in an order of their own."""
    pairs = [pair for batch in batches for pair in zip(batch[0].numpy(), batch[1].numpy(), strict=True)]
    return sorted(pairs, key=lambda pair: float(pair[0].sum()))


def test_a_labelled_set_equals_its_folder(prepared, folder):
    data_dir = prepared(LabelledScenes)
    source = open_segmentation("labelled_scenes", data_dir=data_dir)
    files = open_segmentation(folder)
    for name in ("class_names", "class_ids", "ignored", "size", "num_classes"):
        assert getattr(source, name) == getattr(files, name)
    assert source.class_names == ("sky", "road") and source.ignored == (0, 255)
    np.testing.assert_array_equal(source.palette, files.palette)
    assert source.largest() == files.largest() == (9, 8)
    assert open_segmentation("labelled_scenes", "eval", data_dir=data_dir).largest() == (11, 8)
    options = {"batch_size": 2, "size": (12, 8)}
    found, expected = (
        _by_image(segmentation_eval_pipeline(one, SegmentationEvalConfig(**options))) for one in (source, files)
    )
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one[0], other[0])
        np.testing.assert_array_equal(one[1], other[1])


@pytest.mark.thorough
def test_a_training_pass_has_every_scene(prepared):
    source = open_segmentation("labelled_scenes", data_dir=prepared(LabelledScenes))
    still = {"scale": (1.0, 1.0), "flip": False, "crop_size": 24}  # larger than a scene: all of it, somewhere
    for batch, (_, masks) in enumerate(
        segmentation_train_pipeline(source, SegmentationTrainConfig(batch_size=4, epochs=2, **still))
    ):
        found = sorted(np.bincount(mask.ravel(), minlength=256)[:2].tolist() for mask in masks.numpy())
        truth = sorted(np.bincount(scene(number)[1].ravel(), minlength=3)[1:].tolist() for number in range(4))
        assert found == truth and batch < 2


def test_records_have_names_and_a_fingerprint(prepared):
    data_dir = prepared(LabelledScenes)
    source = open_segmentation("labelled_scenes", data_dir=data_dir)
    keys = next(iter(source.keys(None, 1).batch(4)))
    names = source.record_name(*keys[0:3]).numpy().tolist()
    assert len(set(names)) == 4 and names[0].startswith(b"labelled_scenes-train.tfrecord-00000-of-0000")
    for key in source.keys(tf.constant([1, 2], tf.int64), 9):
        record = {kind: tf.io.decode_png(data) for kind, data in source.read(*key).items()}
        assert record["image"].shape[:2] == record["mask"].shape[:2]
    again = open_segmentation("labelled_scenes", data_dir=data_dir)
    part = open_segmentation("labelled_scenes", "train[:3]", data_dir=data_dir)
    other = open_segmentation("labelled_scenes", data_dir=data_dir, ignore=[])
    assert source.fingerprint() == again.fingerprint() and part.size == 3
    assert len({one.fingerprint() for one in (source, part, other)}) == 3


def test_classes_that_nobody_names_are_counted(prepared):
    data_dir = prepared(PlainScenes)
    source = open_segmentation("plain_scenes", num_classes=3, data_dir=data_dir)
    assert source.class_names == ("class0", "class1", "class2") and source.ignored == (255,)
    part = open_segmentation("plain_scenes", num_classes=2, ignore=[0], data_dir=data_dir)
    assert part.class_ids == (1, 2) and part.ignored == (0, 255)
    same = open_segmentation("plain_scenes", class_names=source.class_names, data_dir=data_dir)
    assert same.class_ids == (0, 1, 2)
    with pytest.raises(MisuseError, match=r"TFDS has no class names for 'plain_scenes'\. Set num_classes"):
        open_segmentation("plain_scenes", data_dir=data_dir)
    few = open_segmentation("plain_scenes", num_classes=2, data_dir=data_dir)
    with pytest.raises(tf.errors.OpError, match=r"plain_scenes-train.*contains the id 2"):
        list(segmentation_eval_pipeline(few, SegmentationEvalConfig(batch_size=2)))


def test_classes_may_be_those_of_a_network(prepared):
    data_dir = prepared(LabelledScenes)
    source = open_segmentation("labelled_scenes", class_names=["road", "sky"], data_dir=data_dir)
    assert source.class_ids == (2, 1)
    with pytest.raises(
        MisuseError, match=r"TFDS set 'labelled_scenes' must .* it lacks cow and has road. Use the same names"
    ):
        open_segmentation("labelled_scenes", class_names=["cow", "sky"], data_dir=data_dir)


def test_sets_of_another_form_are_reported(prepared, tmp_path, folder):
    data_dir = prepared(ColouredScenes)
    with pytest.raises(
        MisuseError, match=r"features image, mask, label\. Segmentation needs .* an Image with one channel"
    ):
        open_segmentation("coloured_scenes", data_dir=data_dir)
    prepared(PressedScenes)
    with pytest.raises(RunError, match=r"pressed_scenes-train.tfrecord-\d+-of-\d+\[\d\] is not a PNG"):
        open_segmentation("pressed_scenes", num_classes=3, data_dir=data_dir).largest()
    prepared(LabelledScenes)
    with pytest.raises(MisuseError, match="no split 'val'"):
        open_segmentation("labelled_scenes", "val", data_dir=data_dir)
    with pytest.raises(MisuseError, match=r"not the 150 classes of ADE20K. Unpack"):
        open_segmentation("scene_parse150")
    with pytest.raises(MisuseError, match="Unknown data set 'labelled_scene'"):
        open_segmentation("labelled_scene")
    with pytest.raises(MisuseError, match="data_dir does not apply to the folder"):
        open_segmentation(folder, data_dir=data_dir)


def test_a_cut_file_is_reported(prepared):
    data_dir = prepared(LabelledScenes)
    source = open_segmentation("labelled_scenes", data_dir=data_dir)
    path = next(key[1] for key in source.keys(None, 1)).numpy().decode()
    with open(path, "r+b") as file:
        file.truncate(20)
    with pytest.raises(RunError, match="is truncated"):
        source.largest()


def test_pets(tmp_path, monkeypatch):
    for number in range(3):
        image, mask = scene(number)
        write_image(tmp_path / f"images/cat_{number}.jpg", image)
        write_image(tmp_path / f"annotations/trimaps/cat_{number}.png", mask + 1)
    (tmp_path / "list.txt").write_text("".join(f"cat_{number} {number + 1} 1 1\n" for number in range(3)))
    paths = {"images_dir_path": str(tmp_path / "images"), "annotations_dir_path": str(tmp_path / "annotations")}
    prepare_tfds("oxford_iiit_pet", tmp_path, monkeypatch, **paths, images_list_file=str(tmp_path / "list.txt"))
    source = open_segmentation("oxford_iiit_pet", data_dir=str(tmp_path), num_classes=3)
    assert source.class_names == ("pet", "background", "border") and source.class_ids == (1, 2, 3)
    assert source.largest() == (8, 8)
    masks = np.concatenate(
        [masks for _, masks, _ in segmentation_eval_pipeline(source, SegmentationEvalConfig(batch_size=1))]
    )
    assert {*np.unique(masks)} == {0, 1, 2, 255}
    assert open_segmentation("oxford_iiit_pet", data_dir=str(tmp_path), ignore=[3]).class_names == ("pet", "background")


def test_cityscapes(tmp_path, monkeypatch):
    for number in range(2):
        write_image(tmp_path / f"left/bonn/bonn_00000{number}_000019_leftImg8bit.png", scene(number)[0])
        mask = np.arange(34 * 2, dtype=np.uint8).reshape(4, 17) % 34
        write_image(tmp_path / f"labels/bonn/bonn_00000{number}_000019_gtFine_labelIds.png", mask)
    paths = {"images_left": str(tmp_path / "left"), "segmentation_labels": str(tmp_path / "labels")}
    prepare_tfds("cityscapes", tmp_path, monkeypatch, **paths)
    source = open_segmentation("cityscapes", data_dir=str(tmp_path))
    assert source.num_classes == 19 and (source.class_names[0], source.class_names[18]) == ("road", "bicycle")
    table = source.class_table()
    assert table[7] == 0 and table[33] == 18 and np.sum(table[:34] == 255) == 15 and table[34] == -1
    assert source.largest() == (4, 17)
