"""Dilated stages keep their resolution and weights, and compute what the strided ones did, at more places."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_bot import models
from keras_bot.models.dilate import dilate

pytestmark = pytest.mark.core

IMAGES = np.random.default_rng(0).standard_normal((1, 65, 97, 3), dtype="float32")


def ends(model):
    return {level: ops.convert_to_numpy(end) for level, end in models.features(model)(IMAGES).items()}


@pytest.mark.parametrize("name", ["resnet18_a", "resnet26_a", "resnet26_b", "mobilenet_v1"])
@pytest.mark.parametrize("output_stride", [8, 16, pytest.param(32, marks=pytest.mark.thorough)])
def test_the_strided_network_is_inside(name, output_stride):
    model = models.create_model(name, include_top=False, width=0.25)
    plain, dilated = ends(model), ends(dilate(model, output_stride))
    for level, stride in (("C2", 4), ("C3", 8), ("C4", 16), ("C5", 32)):
        more = max(1, stride // output_stride)
        np.testing.assert_allclose(dilated[level][:, ::more, ::more], plain[level], atol=2e-4, err_msg=level)
        assert dilated[level].shape[1] == -(-65 // min(stride, output_stride))


def test_d_has_the_shapes_and_the_first_network_is_not_touched():
    model = models.create_model("resnet18_d", num_classes=4, width=0.25)
    before = model.get_weights()
    assert [end.shape[1:3] for end in ends(dilate(model, 8)).values()] == [(17, 25), (9, 13), (9, 13), (9, 13)]
    assert [end.shape[1:3] for end in ends(model).values()] == [(17, 25), (9, 13), (5, 7), (3, 4)]
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))


@pytest.mark.parametrize("output_stride", [8, 16])
def test_of_even_sizes_tensorflows_padding_takes_the_last_places(output_stride):
    model = models.create_model("mobilenet_v1_tf", include_top=False, width=0.25)
    images = np.random.default_rng(0).standard_normal((1, 64, 96, 3), dtype="float32")
    both = [models.features(each)(images) for each in (model, dilate(model, output_stride))]
    plain, dilated = ({level: ops.convert_to_numpy(end) for level, end in each.items()} for each in both)
    for level, stride in (("C2", 4), ("C3", 8), ("C4", 16), ("C5", 32)):
        more = max(1, stride // output_stride)
        assert dilated[level].shape[1] == 64 // min(stride, output_stride)
        places = slice(more - 1, None, more)
        np.testing.assert_allclose(dilated[level][:, places, places], plain[level], atol=2e-4, err_msg=level)


def test_inception_cannot_be_dilated():
    model = models.create_model("inception_v3", width=0.0625)
    for output_stride in (8, 16):
        with pytest.raises(ValueError, match=r"stages of 'inception_v3' contain max pools.*ResNet or MobileNet"):
            dilate(model, output_stride)


def test_what_cannot_be_dilated_is_reported():
    with pytest.raises(ValueError, match="output_stride must be 8, 16 or 32, received 4"):
        dilate(models.create_model("resnet18_d", width=0.1), 4)
    for model in (models.create_model("cifar_resnet20_d", width=0.5), keras.Sequential([keras.Input((4,))])):
        with pytest.raises(ValueError, match="has no layers C2 … C5"):
            dilate(model, 8)
