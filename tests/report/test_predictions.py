"""Predictions by image: names and places are right with unreadable images and incomplete batches."""

import numpy as np
import pytest
from PIL import Image

from keras_bot import models
from keras_bot.errors import MisuseError, RunError
from keras_bot.recipe import Recipe
from keras_bot.report.predictions import predict

FIELDS = {"image_size": 16, "transform": "plain", "model": "cifar_resnet8_d", "width": 0.25, "batch_size": 4}
CLASSES = ("class0", "class1", "class2")


@pytest.fixture
def network(tmp_path):
    path = tmp_path / "model.keras"
    models.create_model("cifar_resnet8_d", num_classes=3, width=0.25).save(path)
    return path


def test_mistakes_are_named_by_their_files_also_after_a_broken_one(image_folder, network):
    folder = image_folder(val=5)
    for file in folder.glob("val/*/*.jpg"):  # the grey identifies the file
        Image.new("RGB", (16, 16), (40 * int(file.stem) + 30,) * 3).save(file, quality=100)
    (folder / "val/class1/2.jpg").write_bytes(b"broken")
    predictions = predict(Recipe(dataset=str(folder), **FIELDS), network, CLASSES, max_mistakes=100)
    assert predictions.unreadable == ("val/class1/2.jpg",)
    assert predictions.labels.tolist() == [0] * 5 + [1] * 4 + [2] * 5
    assert len(predictions.mistakes) == (~predictions.correct).sum() >= 4
    confidences = [mistake.confidence for mistake in predictions.mistakes]
    assert confidences == sorted(confidences, reverse=True)
    for mistake in predictions.mistakes:
        assert mistake.name == f"val/class{mistake.true}/{mistake.place % 5}.jpg" != predictions.unreadable[0]
        assert abs(float(mistake.image.mean()) - (40 * (mistake.place % 5) + 30)) < 3
        assert 0 < mistake.true_probability < mistake.confidence < 1
    few = predict(Recipe(dataset=str(folder), **FIELDS), network, CLASSES, max_mistakes=2).mistakes
    assert [mistake.name for mistake in few] == [mistake.name for mistake in predictions.mistakes[:2]]
    with pytest.raises(RunError, match="can't be decoded"):
        predict(Recipe(dataset=str(folder), max_corrupt=0, **FIELDS), network, CLASSES)


def test_other_classes_and_non_finite_logits_are_errors(npz_file, network):
    recipe = Recipe(dataset=str(npz_file(y_train=np.arange(24) % 3, y_test=np.arange(10) % 3)), **FIELDS)
    with pytest.raises(MisuseError, match=r"but the training data have 3 classes \(class0"):
        predict(recipe, network, CLASSES)
    exploded = models.create_model("cifar_resnet8_d", num_classes=3, width=0.25)
    exploded.weights[-1].assign(np.full(3, np.inf))
    exploded.save(network)
    with pytest.raises(RunError, match="not finite"):
        predict(recipe, network, ("0", "1", "2"))
