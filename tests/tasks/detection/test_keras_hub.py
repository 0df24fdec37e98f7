"""keras-hub's detector and segmenter train on our backbones, and are saved and loaded with them."""

import keras
import numpy as np
import pytest

from keras_bot.tasks.backbone import as_image_encoder, load_backbone

keras_hub = pytest.importorskip("keras_hub", reason="keras-hub is not installed")

IMAGES = np.random.default_rng(0).standard_normal((2, 64, 64, 3), dtype="float32")


def detector_on(encoder):
    layers = {"min_level": 3, "max_level": 6}
    pyramid = keras_hub.models.RetinaNetBackbone(image_encoder=encoder, use_p5=False, **layers)
    detector = keras_hub.models.RetinaNetObjectDetector(
        pyramid, num_classes=3, bounding_box_format="yxyx", pre_logits_num_conv_layers=1
    )
    losses = {
        "box_loss": keras.losses.Huber(reduction="sum"),
        "classification_loss": keras.losses.BinaryFocalCrossentropy(from_logits=True, reduction="sum"),
    }
    detector.compile(keras.optimizers.Adam(1e-3), **losses)
    return detector


def train(model, encoder, targets):
    """Two steps; checks that the losses are finite and every weight of the encoder moved."""
    before = encoder.get_weights()
    history = model.fit(IMAGES, targets, batch_size=2, epochs=2, verbose=0).history
    assert len(history["loss"]) == 2 and np.isfinite(history["loss"]).all()
    same = [v.path for v, old in zip(encoder.weights, before, strict=True) if np.array_equal(v.numpy(), old)]
    assert len(before) == 70 and not same, same


@pytest.mark.thorough
@pytest.mark.filterwarnings("ignore")
def test_a_retinanet_trains_on_a_backbone_and_is_saved(tmp_path):
    keras.utils.set_random_seed(0)
    encoder = as_image_encoder(load_backbone("resnet10_d", width=0.1))
    detector = detector_on(encoder)
    boxes = np.float32([[[8, 8, 32, 32], [16, 24, 50, 60]], [[0, 0, 30, 40], [20, 20, 60, 44]]])
    train(detector, encoder, {"boxes": boxes, "labels": np.int32([[0, 2], [1, 1]])})
    found = detector(IMAGES)["bbox_regression"]
    detector.save(tmp_path / "detector.keras")
    loaded = keras.saving.load_model(tmp_path / "detector.keras", compile=False)
    np.testing.assert_allclose(loaded(IMAGES)["bbox_regression"], found, atol=1e-4)


@pytest.mark.thorough
@pytest.mark.filterwarnings("ignore")
def test_one_trains_on_a_frozen_backbone_as_it_is():
    encoder = load_backbone("resnet10_d", width=0.1, trainable=False)
    detector = detector_on(encoder)
    before, heads = encoder.get_weights(), detector.box_head.get_weights()
    boxes = np.float32([[[8, 8, 32, 32]], [[0, 0, 30, 40]]])
    detector.fit(IMAGES, {"boxes": boxes, "labels": np.int32([[0], [1]])}, verbose=0)
    assert all(np.array_equal(old, new) for old, new in zip(before, encoder.get_weights(), strict=True))
    assert any(not np.array_equal(old, new) for old, new in zip(heads, detector.box_head.get_weights(), strict=True))


@pytest.mark.thorough
@pytest.mark.filterwarnings("ignore")
def test_a_deeplab_trains_on_a_backbone_and_is_saved(tmp_path):
    keras.utils.set_random_seed(0)
    encoder = as_image_encoder(load_backbone("resnet10_d", width=0.1))
    levels = {"low_level_feature_key": "P2", "spatial_pyramid_pooling_key": "P5", "upsampling_size": 8}
    body = keras_hub.models.DeepLabV3Backbone(
        image_encoder=encoder, projection_filters=8, dilation_rates=[1, 2, 3], **levels
    )
    segmenter = keras_hub.models.DeepLabV3ImageSegmenter(body, num_classes=4)
    loss = keras.losses.CategoricalCrossentropy(from_logits=True)
    segmenter.compile(keras.optimizers.Adam(1e-3), loss=loss)
    train(segmenter, encoder, np.eye(4)[np.random.default_rng(1).integers(0, 4, (2, 64, 64))])
    logits = segmenter(IMAGES)
    assert logits.shape == (2, 64, 64, 4)
    segmenter.save(tmp_path / "segmenter.keras")
    loaded = keras.saving.load_model(tmp_path / "segmenter.keras", compile=False)
    np.testing.assert_allclose(loaded(IMAGES), logits, atol=1e-4)
