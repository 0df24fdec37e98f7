"""The teacher may be of any of our forms, or keras-hub's: it answers for the images that the student sees."""

import json
import shutil
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_bot.data.augment.color import MEAN, STD
from keras_bot.errors import MisuseError
from keras_bot.export.portable import export_file
from keras_bot.export.savedmodel import export_savedmodel
from keras_bot.recipe import Recipe
from keras_bot.training.distillation.teacher import _fetch_preset, load_teacher
from keras_bot.tricks import Distiller, mixed_precision

SIZE = 16
NAMES = ("ant", "bee", "cat")
PIXELS = np.random.default_rng(0).uniform(0, 255, (2, SIZE, SIZE, 3)).astype("float32")
IMAGES = ((PIXELS - MEAN) / STD).astype("float32")


def network(size=None, classes=3, channels=3):
    """Normalised images to logits, with weights that tell positions and channels apart."""
    keras.utils.set_random_seed(1)
    images = keras.Input((size, size, channels))
    x = keras.layers.Conv2D(4, 3, strides=2)(images)
    x = keras.layers.ReLU()(keras.layers.BatchNormalization()(x))
    logits = keras.layers.Dense(classes)
    model = keras.Model(images, logits(keras.layers.GlobalAveragePooling2D()(x)), name="sage")
    model.layers[2].moving_mean.assign(np.linspace(-0.2, 0.2, 4))
    model.layers[-1].bias.assign(np.arange(classes))
    return model


def asked(path, images=IMAGES, classes=3, names=NAMES, **changes):
    recipe = Recipe(teacher=str(path), image_size=images.shape[1], **changes)
    return np.asarray(load_teacher(recipe, classes, names)(images, training=False))


def save_run(model, folder, **facts):
    folder.mkdir()
    model.save(folder / "model.keras")
    (folder / "metrics.json").write_text(json.dumps({"result": {}, "dataset": {}, **facts}))
    return folder


def save(model, form, folder):
    match form:
        case "run":
            return save_run(model, folder / "run", dataset={"class_names": NAMES}, recipe={"image_size": str(SIZE)})
        case "file":
            model.save(folder / "sage.keras")
            return folder / "sage.keras"
        case "export":
            export_file(model, folder / "sage.keras", image_size=SIZE, description={"class_names": NAMES})
            return folder / "sage.keras"
        case "savedmodel":
            return export_savedmodel(model, folder / "sage", image_size=SIZE, description={"class_names": NAMES})


@pytest.mark.parametrize("form", ["run", "file", "export", "savedmodel"])
def test_the_students_images_need_no_change_for_our_own_networks(form, tmp_path):
    model = network()
    np.testing.assert_array_equal(asked(save(model, form, tmp_path)), np.asarray(model(IMAGES)))


def expected(model, scale, shift, size):
    """By TensorFlow alone: pixels normalised as the teacher's were, then resized."""
    return np.asarray(model(tf.image.resize((PIXELS * scale + shift).astype("float32"), [size, size])))


def test_another_mean_std_and_image_size_are_those_that_a_savedmodel_tells(tmp_path):
    model = network()
    saved = export_savedmodel(model, tmp_path / "sage", image_size=24)
    card = saved / "assets.extra/model.json"
    told = json.loads(card.read_text())
    told["preprocessing"] |= {"mean": [100, 110, 120], "std": [50, 60, 70]}
    card.write_text(json.dumps(told))
    scale = 1 / np.array([50, 60, 70])
    theirs = expected(model, scale, -np.array([100, 110, 120]) * scale, 24)
    np.testing.assert_allclose(asked(saved), theirs, rtol=1e-4, atol=1e-5)
    assert np.abs(theirs - np.asarray(model(IMAGES))).max() > 0.01
    told["preprocessing"] |= {"channels": "BGR"}
    card.write_text(json.dumps(told))
    blue_first = (PIXELS[..., ::-1] - np.array([100, 110, 120])) * scale
    theirs = np.asarray(model(tf.image.resize(blue_first.astype("float32"), [24, 24])))
    np.testing.assert_allclose(asked(saved), theirs, rtol=1e-4, atol=1e-5)
    card.write_text(json.dumps(told | {"preprocessing": told["preprocessing"] | {"std": [1, 2]}}))
    with pytest.raises(MisuseError, match="Can't read the preprocessing in the description"):
        asked(saved)


def test_a_fixed_or_a_known_image_size_is_resized_to(tmp_path):
    ours = 1 / np.array(STD), -np.array(MEAN) / STD
    fixed = network(size=20)
    fixed.save(tmp_path / "fixed.keras")
    np.testing.assert_allclose(asked(tmp_path / "fixed.keras"), expected(fixed, *ours, 20), rtol=1e-4, atol=1e-5)
    run = save_run(network(), tmp_path / "run", recipe={"image_size": "24"})
    np.testing.assert_allclose(asked(run), expected(network(), *ours, 24), rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def preset(tmp_path_factory):
    """A classifier of keras-hub's with an image converter, and the directory that it is saved to."""
    hub = pytest.importorskip("keras_hub", reason="keras-hub is not installed")
    backbone = hub.models.ResNetBackbone(
        input_conv_filters=[32, 32, 64],
        input_conv_kernel_sizes=[3, 3, 3],
        stackwise_num_filters=[64, 128, 256, 512],
        stackwise_num_blocks=[2, 2, 2, 2],
        stackwise_num_strides=[1, 2, 2, 2],
        block_type="basic_block_vd",
    )
    scale, offset = [1 / 58.0, 1 / 57.0, 1 / 56.0], [-123 / 58.0, -117 / 57.0, -104 / 56.0]
    converter = hub.layers.ResNetImageConverter(image_size=(64, 64), scale=scale, offset=offset)
    preprocessor = hub.models.ResNetImageClassifierPreprocessor(image_converter=converter)
    net = hub.models.ResNetImageClassifier(backbone=backbone, num_classes=3, preprocessor=preprocessor)
    folder = tmp_path_factory.mktemp("hub") / "preset"
    net.save_to_preset(folder)
    return net, folder


def test_a_preset_directory_of_keras_hub(preset):
    net, folder = preset
    pixels = np.random.default_rng(1).uniform(0, 255, (2, 48, 48, 3)).astype("float32")
    theirs = net(net.preprocessor(pixels), training=False)  # resizes 48 -> 64, bilinear, and normalises
    ours = asked(folder, ((pixels - MEAN) / STD).astype("float32"))
    np.testing.assert_allclose(ours, np.asarray(theirs), rtol=0, atol=1e-4 * np.abs(theirs).max())


def test_a_preset_by_name_comes_through_keras_hub(preset):
    net, folder = preset
    ours, _, preprocessing = _fetch_preset(str(folder))
    assert preprocessing["image_size"] == 64
    images = np.zeros((1, 64, 64, 3), "float32")
    np.testing.assert_allclose(np.asarray(ours(images)), np.asarray(net(images, training=False)), atol=1e-6)
    with pytest.raises(MisuseError, match="Can't get keras-hub's preset resnet_of_nobody as --teacher: ValueError"):
        load_teacher(Recipe(teacher="resnet_of_nobody"), 3)


def test_without_keras_hub_a_preset_is_told_how_to_come(monkeypatch):
    monkeypatch.setitem(sys.modules, "keras_hub", None)
    with pytest.raises(MisuseError, match=r"received resnet_vd_50_imagenet.*pip install keras-hub"):
        load_teacher(Recipe(teacher="resnet_vd_50_imagenet"), 1000)


def test_the_classes_are_put_into_the_students_order(tmp_path):
    model = network()
    run = save(model, "run", tmp_path)
    np.testing.assert_array_equal(asked(run, names=("cat", "ant", "bee")), np.asarray(model(IMAGES))[:, [2, 0, 1]])
    numbered = asked(run, names=("0", "1", "2"))  # the data set has no names: nothing to compare
    np.testing.assert_array_equal(numbered, np.asarray(model(IMAGES)))


def test_other_classes_are_refused(tmp_path):
    run = save(network(), "run", tmp_path)
    with pytest.raises(MisuseError, match=r"class 1 is 'dog' in the data set and 'bee' in --teacher=.*run"):
        asked(run, names=("ant", "dog", "cat"))
    with pytest.raises(MisuseError, match=r"Expected a teacher of the 4 classes that the data set has.*has 3"):
        asked(run, classes=4, names=(*NAMES, "dog"))
    images = keras.Input((None, None, 3))
    logits = keras.layers.Rescaling(2.0)(network()(images))
    scaled = save_run(keras.Model(images, logits), tmp_path / "scaled", dataset={"class_names": NAMES})
    with pytest.raises(MisuseError, match=r"class 0 is 'bee'.*'ant'.*can't be put into another order"):
        asked(scaled, names=("bee", "ant", "cat"))


def test_networks_of_other_inputs_or_with_code_are_refused(tmp_path):
    network(channels=1).save(tmp_path / "grey.keras")
    with pytest.raises(MisuseError, match=r"Expected a teacher of images \(B, H, W, 3\)"):
        asked(tmp_path / "grey.keras")
    images = keras.Input((None, None, 3))
    keras.Model(images, network()(keras.layers.Lambda(lambda x: x)(images))).save(tmp_path / "code.keras")
    with pytest.raises(MisuseError, match=r"Can't load .*code.keras"):
        asked(tmp_path / "code.keras")


def test_in_half_precision_the_teacher_computes_as_the_student_does_but_for_its_logits(tmp_path):
    run = save_run(network(), tmp_path / "run", recipe={"image_size": "24"})
    teacher = load_teacher(Recipe(teacher=str(run), image_size=SIZE), 3)
    with mixed_precision("mixed_float16"):
        images = keras.Input((SIZE, SIZE, 3))
        x = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3)(images))
        student = keras.Model(images, keras.layers.Dense(3, dtype="float32")(x))
    distiller = Distiller(student, teacher)
    resize, inner = distiller.teacher.layers[1:]
    assert resize.compute_dtype == inner.layers[1].compute_dtype == "float16"
    assert inner.layers[-1].compute_dtype == "float32" and not distiller.teacher.trainable_weights
    logits = distiller.teacher(IMAGES.astype("float16"), training=False)
    assert logits.dtype == "float32"
    np.testing.assert_allclose(np.asarray(logits), asked(run), atol=5e-3)


def test_what_isnt_there_is_told(tmp_path):
    with pytest.raises(
        MisuseError, match=r"Expected --teacher as a run directory.* received .*gone, which isn't there"
    ):
        asked(tmp_path / "gone")


def test_a_damaged_run_is_told(tmp_path):
    run = save(network(), "run", tmp_path)
    shutil.copy(run / "metrics.json", run / "model.keras")
    with pytest.raises(MisuseError, match=r"--teacher=.*run: .* it is damaged, or no \.keras file"):
        asked(run)
