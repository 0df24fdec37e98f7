"""Backbones: the trained features, as a layer of other models, for keras-cv's detectors too."""

import keras
import numpy as np
import pytest

from keras_bot import models
from keras_bot.errors import MisuseError
from keras_bot.export.savedmodel import export_savedmodel
from keras_bot.tasks.backbone import as_image_encoder, load_backbone

IMAGES = np.random.default_rng(0).standard_normal((2, 64, 64, 3), dtype="float32")


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    keras.utils.set_random_seed(0)
    model = models.create_model("resnet10_d", num_classes=4, width=0.1)
    path = tmp_path_factory.mktemp("backbone") / "saved"
    return model, export_savedmodel(model, path, image_size=64)


def test_it_gives_the_trained_features_by_level(exported):
    model, path = exported
    expected = models.features(model)(IMAGES)
    backbone = load_backbone(path)
    ours = backbone(IMAGES)
    assert list(ours) == ["C2", "C3", "C4", "C5"] and [end.shape[1] for end in ours.values()] == [16, 8, 4, 2]
    for level, end in ours.items():
        np.testing.assert_allclose(end, expected[level], atol=1e-6)
    assert list(load_backbone(path, levels=("C3", "C5"))(IMAGES)) == ["C3", "C5"]
    assert [end.shape[1] for end in load_backbone(path, output_stride=8)(IMAGES).values()] == [16, 8, 8, 8]


def test_what_is_frozen_stays_in_inference_mode(exported):
    _, path = exported
    for options, trainable in (({}, 42), ({"freeze_bn": True}, 14), ({"trainable": False}, 0)):
        backbone = load_backbone(path, **options)
        assert len(backbone.trainable_variables) == trainable
        before = backbone.get_weights()
        backbone(IMAGES, training=True)
        moved = [not np.array_equal(a, b) for a, b in zip(before, backbone.get_weights(), strict=True)]
        assert any(moved) == (not options)


def test_it_is_a_layer_that_trains_and_is_saved(exported, tmp_path):
    _, path = exported
    backbone = load_backbone(path)
    x = keras.layers.GlobalAveragePooling2D()(backbone(backbone.input)["C5"])
    model = keras.Model(backbone.input, keras.layers.Dense(2)(x))
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    before = [variable.numpy() for variable in model.trainable_variables]
    model.fit(IMAGES, np.array([0, 1]), epochs=2, verbose=0)
    assert all(not np.array_equal(a, b) for a, b in zip(before, model.trainable_variables, strict=True))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(loaded.predict(IMAGES, verbose=0), model.predict(IMAGES, verbose=0), atol=1e-5)


def test_keras_cv_takes_it_as_a_backbone(exported):
    keras_cv = pytest.importorskip("keras_cv")
    backbone = load_backbone(exported[1], levels=("C3", "C4", "C5"))
    detector = keras_cv.models.RetinaNet(num_classes=3, bounding_box_format="yxyx", backbone=backbone)
    outputs = detector(np.zeros((1, 128, 128, 3), "float32"))
    assert outputs["classification"].shape[-1] == 3
    assert backbone.pyramid_level_inputs == {"P3": "C3", "P4": "C4", "P5": "C5"}
    assert list(backbone.pyramid_outputs) == ["P3", "P4", "P5"]


@pytest.mark.thorough
@pytest.mark.filterwarnings("ignore")
def test_keras_cvs_detector_trains_on_it_and_is_saved(exported, tmp_path):
    keras_cv = pytest.importorskip("keras_cv")
    backbone = as_image_encoder(load_backbone(exported[1], levels=("C3", "C4", "C5")))
    detector = keras_cv.models.RetinaNet(num_classes=3, bounding_box_format="yxyx", backbone=backbone)
    detector.compile(optimizer="sgd", classification_loss="focal", box_loss="smoothl1")
    before = backbone.get_weights()
    boxes = {"boxes": np.float32([[[8, 8, 40, 40]], [[20, 16, 60, 50]]]), "classes": np.float32([[1], [2]])}
    history = detector.fit(IMAGES, boxes, batch_size=2, verbose=0).history
    assert np.isfinite(history["loss"]).all()
    assert all(not np.array_equal(old, new) for old, new in zip(before, backbone.get_weights(), strict=True))
    detector.save(tmp_path / "detector.keras")
    loaded = keras.saving.load_model(tmp_path / "detector.keras", compile=False)
    np.testing.assert_allclose(loaded(IMAGES)["box"], detector(IMAGES)["box"], atol=1e-4)


@pytest.mark.parametrize(
    ("path", "options", "message"),
    [
        ("resnet10_d", {"output_stride": 4}, "output_stride must be 8, 16 or 32, received 4"),
        ("resnet10_d", {"levels": ("C6",)}, "levels must be among C2, C3, C4 and C5, at least one, received"),
        ("resnet10_d", {"levels": ()}, "levels must be among"),
        ("cifar_resnet8_d", {}, "in cifar_resnet8_d has no features C2 … C5"),
        ("no_such_place", {}, "no_such_place is not a path or the name of a network"),
    ],
)
def test_unsupported_arguments_are_refused(path, options, message):
    with pytest.raises(MisuseError, match=message):
        load_backbone(path, **options)
