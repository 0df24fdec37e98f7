"""The pyramid's shapes at odd sizes and its sum against NumPy."""

import keras
import numpy as np
import pytest

from keras_bot.errors import MisuseError
from keras_bot.models import create_model, features
from keras_bot.tasks.detection import fpn


def test_add_upsampled():
    fine, coarse = np.zeros((1, 3, 5, 1), "f"), np.arange(6, dtype="f").reshape(1, 2, 3, 1)
    expected = [[0, 0, 1, 1, 2], [0, 0, 1, 1, 2], [3, 3, 4, 4, 5]]
    np.testing.assert_array_equal(fpn.AddUpsampled()(fine, coarse)[0, :, :, 0], expected)


@pytest.mark.parametrize("coarser, last", [("conv", 7), ("pool", 6)])
def test_levels_have_the_backbones_strides(coarser, last):
    backbone = features(create_model("resnet18_d", include_top=False, width=0.0625))
    image = keras.Input((None, None, 3))
    model = keras.Model(image, fpn.pyramid(backbone(image), first=2, last=last, channels=5, coarser=coarser))
    maps = model(np.zeros((1, 70, 131, 3), "f"))
    assert list(maps) == [f"P{level}" for level in range(2, last + 1)]
    for level in range(2, last + 1):
        assert maps[f"P{level}"].shape == (1, -(-70 // 2**level), -(-131 // 2**level), 5)


def test_a_backbone_without_the_levels():
    with pytest.raises(MisuseError, match="no dictionary"):
        fpn.check_backbone(create_model("resnet18_d", include_top=False, width=0.0625), ("C3",))
    with pytest.raises(MisuseError, match="C0, C1, C2"):
        fpn.check_backbone(features(create_model("cifar_resnet20_d", include_top=False, width=0.25)), ("C3", "C4"))
