"""`keras_bot.detection` and `keras_bot.segmentation`: the public names, and the examples in their docstrings."""

import inspect
import textwrap

import keras
import numpy as np
import pytest

from keras_bot import detection, segmentation
from keras_bot.tasks.detection.faster_rcnn import FasterRCNNSettings

SMALL = {  # what the test changes in the examples
    "path/to/voc": "boxes",
    "path/to/scenes": "masks",
    '"resnet50_d"': '"resnet10_d", width=0.125',
    "image_size=512": "image_size=64",
    "crop_size=480": "crop_size=64",
    "batch_size=8": "batch_size=4",
    "size // 8": "size // 4",
    "epochs=12": "epochs=2",
    "epochs=30": "epochs=2",
}


def run_example(module, tmp_path, monkeypatch):
    """Runs a docstring's example in the folder of `scenes` and returns its variables."""
    monkeypatch.chdir(tmp_path)
    lines = module.__doc__.splitlines()
    code = textwrap.dedent("\n".join(line for line in lines if line.startswith("    ") or not line))
    for old, new in SMALL.items():
        code = code.replace(old, new)
    variables = {}
    exec(code, variables)
    return variables


@pytest.mark.parametrize("module", [detection, segmentation])
def test_every_public_name_exists_and_is_listed(module):
    imported = {name for name, value in vars(module).items() if not name.startswith("_")}
    assert sorted(imported) == sorted(module.__all__)


@pytest.mark.thorough
def test_the_detection_example(scenes, tmp_path, monkeypatch, capsys):
    variables = run_example(detection, tmp_path, monkeypatch)
    assert "blue" in capsys.readouterr().out and 0 <= variables["metric"].result()["map"] <= 1
    loaded = detection.load_trained("detector.keras", "detection")
    np.testing.assert_array_equal(loaded.get_weights()[0], variables["detector"].get_weights()[0])


@pytest.mark.thorough
def test_the_segmentation_example(scenes, tmp_path, monkeypatch):
    variables = run_example(segmentation, tmp_path, monkeypatch)
    assert "val_mean_iou" in variables["segmenter"].history.history
    assert variables["picture"].dtype == np.uint8
    assert type(keras.saving.load_model("segmenter.keras")) is segmentation.Segmenter


def test_a_detectors_signature_shows_its_settings():
    parameters = inspect.signature(detection.FasterRCNN).parameters
    assert list(parameters)[:2] == ["backbone", "num_classes"] and list(parameters)[-1] == "options"
    defaults = {name: parameter.default for name, parameter in parameters.items()}
    for name, value in vars(FasterRCNNSettings()).items():
        assert defaults[name] == value
    assert "octaves" in inspect.signature(detection.RetinaNet).parameters

    class Custom(detection.RetinaNet):
        def __init__(self, classes):
            super().__init__(detection.load_backbone("resnet10_d"), classes)

    assert list(inspect.signature(Custom).parameters) == ["classes"]


def test_a_misspelled_setting_is_refused():
    backbone = detection.load_backbone("resnet10_d", width=0.0625)
    with pytest.raises(ValueError, match="chanels"):
        detection.RetinaNet(backbone, 2, chanels=8)
