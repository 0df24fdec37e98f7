"""Teachers are loaded from every supported format and take the student's images."""

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
from keras_bot.training.distillation.teacher import _download_preset, load_teacher
from keras_bot.tricks import DistillationModel, mixed_precision

SIZE = 16
NAMES = ("ant", "bee", "cat")
PIXELS = np.random.default_rng(0).uniform(0, 255, (2, SIZE, SIZE, 3)).astype("float32")
IMAGES = ((PIXELS - MEAN) / STD).astype("float32")


def network(size=None, classes=3, channels=3):
    """Builds a network from normalised images to logits that depends on positions and channels."""
    keras.utils.set_random_seed(1)
    images = keras.Input((size, size, channels))
    x = keras.layers.Conv2D(4, 3, strides=2)(images)
    x = keras.layers.ReLU()(keras.layers.BatchNormalization()(x))
    logits = keras.layers.Dense(classes)
    model = keras.Model(images, logits(keras.layers.GlobalAveragePooling2D()(x)), name="teacher")
    model.layers[2].moving_mean.assign(np.linspace(-0.2, 0.2, 4))
    model.layers[-1].bias.assign(np.arange(classes))
    return model


def teacher_logits(path, images=IMAGES, classes=3, names=NAMES, **changes):
    recipe = Recipe(teacher=str(path), image_size=images.shape[1], **changes)
    return np.asarray(load_teacher(recipe, classes, names)(images, training=False))


def save_run(model, folder, **facts):
    folder.mkdir()
    model.save(folder / "model.keras")
    (folder / "metrics.json").write_text(json.dumps({"result": {}, "dataset": {}, **facts}))
    return folder


def save(model, kind, folder):
    match kind:
        case "run":
            return save_run(model, folder / "run", dataset={"class_names": NAMES}, recipe={"image_size": str(SIZE)})
        case "file":
            model.save(folder / "teacher.keras")
            return folder / "teacher.keras"
        case "export":
            export_file(model, folder / "teacher.keras", image_size=SIZE, description={"class_names": NAMES})
            return folder / "teacher.keras"
        case "savedmodel":
            return export_savedmodel(model, folder / "teacher", image_size=SIZE, description={"class_names": NAMES})


@pytest.mark.parametrize("kind", ["run", "file", "export", "savedmodel"])
def test_networks_of_keras_bot_need_no_conversion(kind, tmp_path):
    model = network()
    np.testing.assert_array_equal(teacher_logits(save(model, kind, tmp_path)), np.asarray(model(IMAGES)))


def expected(model, scale, shift, size):
    """Returns the logits for pixels normalised as in the teacher's training, then resized, with TensorFlow alone."""
    return np.asarray(model(tf.image.resize((PIXELS * scale + shift).astype("float32"), [size, size])))


def test_the_normalisation_and_image_size_of_a_savedmodel_are_used(tmp_path):
    model = network()
    saved = export_savedmodel(model, tmp_path / "teacher", image_size=24)
    description_file = saved / "assets.extra/model.json"
    description = json.loads(description_file.read_text())
    description["preprocessing"] |= {"mean": [100, 110, 120], "std": [50, 60, 70]}
    description_file.write_text(json.dumps(description))
    scale = 1 / np.array([50, 60, 70])
    logits = expected(model, scale, -np.array([100, 110, 120]) * scale, 24)
    np.testing.assert_allclose(teacher_logits(saved), logits, rtol=1e-4, atol=1e-5)
    assert np.abs(logits - np.asarray(model(IMAGES))).max() > 0.01
    description["preprocessing"] |= {"channels": "BGR"}
    description_file.write_text(json.dumps(description))
    blue_first = (PIXELS[..., ::-1] - np.array([100, 110, 120])) * scale
    logits = np.asarray(model(tf.image.resize(blue_first.astype("float32"), [24, 24])))
    np.testing.assert_allclose(teacher_logits(saved), logits, rtol=1e-4, atol=1e-5)
    description["preprocessing"] |= {"std": [1, 2]}
    description_file.write_text(json.dumps(description))
    with pytest.raises(MisuseError, match=r"The description of .* has invalid preprocessing"):
        teacher_logits(saved)


def test_images_are_resized_to_the_teachers_size(tmp_path):
    scale, shift = 1 / np.array(STD), -np.array(MEAN) / STD
    fixed = network(size=20)
    fixed.save(tmp_path / "fixed.keras")
    np.testing.assert_allclose(
        teacher_logits(tmp_path / "fixed.keras"), expected(fixed, scale, shift, 20), rtol=1e-4, atol=1e-5
    )
    run = save_run(network(), tmp_path / "run", recipe={"image_size": "24"})
    np.testing.assert_allclose(teacher_logits(run), expected(network(), scale, shift, 24), rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def preset(tmp_path_factory):
    """A keras-hub classifier with an image converter, and the directory that contains it."""
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
    logits = np.asarray(net(net.preprocessor(pixels), training=False))  # resizes 48 -> 64, bilinear, and normalises
    loaded = teacher_logits(folder, ((pixels - MEAN) / STD).astype("float32"))
    np.testing.assert_allclose(loaded, logits, rtol=0, atol=1e-4 * np.abs(logits).max())


def test_a_preset_name_is_loaded_by_keras_hub(preset):
    net, folder = preset
    loaded, _, preprocessing = _download_preset(str(folder))
    assert preprocessing["image_size"] == 64
    images = np.zeros((1, 64, 64, 3), "float32")
    np.testing.assert_allclose(np.asarray(loaded(images)), np.asarray(net(images, training=False)), atol=1e-6)
    with pytest.raises(MisuseError, match="Cannot load the keras-hub preset --teacher=resnet_of_nobody: ValueError"):
        load_teacher(Recipe(teacher="resnet_of_nobody"), 3)


def test_a_preset_without_keras_hub_is_reported(monkeypatch):
    monkeypatch.setitem(sys.modules, "keras_hub", None)
    with pytest.raises(MisuseError, match=r"--teacher=resnet_vd_50_imagenet does not exist.*pip install keras-hub"):
        load_teacher(Recipe(teacher="resnet_vd_50_imagenet"), 1000)


def test_classes_are_reordered_for_the_student(tmp_path):
    model = network()
    run = save(model, "run", tmp_path)
    np.testing.assert_array_equal(
        teacher_logits(run, names=("cat", "ant", "bee")), np.asarray(model(IMAGES))[:, [2, 0, 1]]
    )
    numbered = teacher_logits(run, names=("0", "1", "2"))  # the data set has no names: nothing to compare
    np.testing.assert_array_equal(numbered, np.asarray(model(IMAGES)))


def test_other_classes_are_rejected(tmp_path):
    run = save(network(), "run", tmp_path)
    with pytest.raises(MisuseError, match=r"class 1 is 'dog' in the data set and 'bee' in --teacher=.*run"):
        teacher_logits(run, names=("ant", "dog", "cat"))
    with pytest.raises(MisuseError, match=r"--teacher=.*run has 3 classes, but the data set has 4"):
        teacher_logits(run, classes=4, names=(*NAMES, "dog"))
    images = keras.Input((None, None, 3))
    logits = keras.layers.Rescaling(2.0)(network()(images))
    scaled = save_run(keras.Model(images, logits), tmp_path / "scaled", dataset={"class_names": NAMES})
    with pytest.raises(MisuseError, match=r"class 0 is 'bee'.*'ant'.*logits cannot be reordered"):
        teacher_logits(scaled, names=("bee", "ant", "cat"))


def test_networks_with_other_inputs_or_with_code_are_rejected(tmp_path):
    network(channels=1).save(tmp_path / "grey.keras")
    with pytest.raises(MisuseError, match=r"takes inputs .* instead of RGB images \(B, H, W, 3\)"):
        teacher_logits(tmp_path / "grey.keras")
    images = keras.Input((None, None, 3))
    keras.Model(images, network()(keras.layers.Lambda(lambda x: x)(images))).save(tmp_path / "code.keras")
    with pytest.raises(MisuseError, match=r"Cannot load .*code.keras"):
        teacher_logits(tmp_path / "code.keras")


def test_the_teacher_has_the_students_precision_except_for_its_logits(tmp_path):
    run = save_run(network(), tmp_path / "run", recipe={"image_size": "24"})
    teacher = load_teacher(Recipe(teacher=str(run), image_size=SIZE), 3)
    with mixed_precision("mixed_float16"):
        images = keras.Input((SIZE, SIZE, 3))
        x = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3)(images))
        student = keras.Model(images, keras.layers.Dense(3, dtype="float32")(x))
    distiller = DistillationModel(student, teacher)
    resize, inner = distiller.teacher.layers[1:]
    assert resize.compute_dtype == inner.layers[1].compute_dtype == "float16"
    assert inner.layers[-1].compute_dtype == "float32" and not distiller.teacher.trainable_weights
    logits = distiller.teacher(IMAGES.astype("float16"), training=False)
    assert logits.dtype == "float32"
    np.testing.assert_allclose(np.asarray(logits), teacher_logits(run), atol=5e-3)


def test_a_missing_teacher_is_reported(tmp_path):
    with pytest.raises(MisuseError, match=r"--teacher=.*gone does not exist\. Use a run directory"):
        teacher_logits(tmp_path / "gone")


def test_a_damaged_run_is_reported(tmp_path):
    run = save(network(), "run", tmp_path)
    shutil.copy(run / "metrics.json", run / "model.keras")
    with pytest.raises(MisuseError, match=r"--teacher=.*run: .* it is damaged, or not a \.keras file"):
        teacher_logits(run)
