"""The network's answers by image: names and places hold where images can't be read and batches aren't full."""

import numpy as np
import pytest
from PIL import Image

from keras_bot import models
from keras_bot.errors import MisuseError, RunError
from keras_bot.recipe import Recipe
from keras_bot.report.predictions import predict

KNOBS = {"image_size": 16, "transform": "plain", "model": "cifar_resnet8_d", "width": 0.25, "batch_size": 4}
CLASSES = ("class0", "class1", "class2")


@pytest.fixture
def network(tmp_path):
    path = tmp_path / "model.keras"
    models.create("cifar_resnet8_d", num_classes=3, width=0.25).save(path)
    return path


def test_mistakes_are_called_by_their_files_also_behind_one_that_is_broken(image_folder, network):
    folder = image_folder(val=5)
    for file in folder.glob("val/*/*.jpg"):  # a grey that tells which file it is
        Image.new("RGB", (16, 16), (40 * int(file.stem) + 30,) * 3).save(file, quality=100)
    (folder / "val/class1/2.jpg").write_bytes(b"broken")
    told = predict(Recipe(dataset=str(folder), **KNOBS), network, CLASSES, shown=100)
    assert told.unreadable == ("val/class1/2.jpg",) and told.labels.tolist() == [0] * 5 + [1] * 4 + [2] * 5
    assert len(told.mistakes) == (~told.correct).sum() >= 4
    assert [m.confidence for m in told.mistakes] == sorted((m.confidence for m in told.mistakes), reverse=True)
    for mistake in told.mistakes:
        assert mistake.name == f"val/class{mistake.true}/{mistake.place % 5}.jpg" != told.unreadable[0]
        assert abs(float(mistake.image.mean()) - (40 * (mistake.place % 5) + 30)) < 3
        assert 0 < mistake.true_probability < mistake.confidence < 1
    few = predict(Recipe(dataset=str(folder), **KNOBS), network, CLASSES, shown=2).mistakes
    assert [mistake.name for mistake in few] == [mistake.name for mistake in told.mistakes[:2]]
    with pytest.raises(RunError, match="can't be decoded"):
        predict(Recipe(dataset=str(folder), max_corrupt=0, **KNOBS), network, CLASSES)


def test_other_classes_and_a_network_that_exploded_are_told(npz_file, network):
    recipe = Recipe(dataset=str(npz_file(y_train=np.arange(24) % 3, y_test=np.arange(10) % 3)), **KNOBS)
    with pytest.raises(MisuseError, match="the classes of the training, 3 classes, class0"):
        predict(recipe, network, CLASSES)
    exploded = models.create("cifar_resnet8_d", num_classes=3, width=0.25)
    exploded.weights[-1].assign(np.full(3, np.inf))
    exploded.save(network)
    with pytest.raises(RunError, match="not finite"):
        predict(recipe, network, ("0", "1", "2"))
