"""`keras-bot import-weights` as a user runs it, and what takes its file."""

import json
import zipfile

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from keras_bot import interop, models
from keras_bot.cli.main import main
from keras_bot.model_files import load_network, read_network
from keras_bot.recipe import Recipe
from keras_bot.training.finetune import load_weights_from, with_source_settings


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """resnet18d of timm, with five classes, for images of 192 pixels."""
    folder = tmp_path_factory.mktemp("timm")
    model = models.create_model("resnet18_d", num_classes=5)
    config = interop.save_timm(model, folder / "ours.safetensors", image_size=192)
    save_file(load_file(folder / "ours.safetensors"), folder / "net.safetensors")
    config["pretrained_cfg"] |= {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
    (folder / "config.json").write_text(json.dumps(config | {"label_names": list("abcde")}))
    return folder / "net.safetensors"


@pytest.fixture(scope="module")
def imported(file):
    path = file.parent / "models" / "net.keras"
    assert main(["import-weights", "--source=timm", f"--file={file}", f"--output={path}"]) == 0
    return path


def test_the_report_and_the_files(file, capsys):
    path = file.parent / "new" / "net.keras"
    arguments = ["import-weights", "--source=timm", f"--file={file}", f"--output={path}", "--model=resnet18_d"]
    assert main([*arguments, "--verbose"]) == 0
    shown = capsys.readouterr().out
    assert "resnet18_d" in shown and "5, head kept" in shown and str(path) in shown
    assert "layer1.0.conv1.weight" in shown and "stage1_block1_1_conv/kernel" in shown
    assert sorted(entry.name for entry in path.parent.iterdir()) == ["net.json", "net.keras"]
    description = json.loads(path.with_suffix(".json").read_text())
    assert description["class_names"] == list("abcde") and description["preprocessing"]["image_size"] == 192
    assert description["source"]["library"] == "timm" and len(description["source"]["sha256"]) == 64
    with zipfile.ZipFile(path) as archive:
        assert json.loads(archive.read("model.json")) == description
    network = load_network(path)
    expected, _ = interop.load(file, source="timm")
    for ours, theirs in zip(network.weights, expected.weights, strict=True):
        np.testing.assert_array_equal(np.asarray(ours), np.asarray(theirs))
    capsys.readouterr()
    assert main(arguments) == 2
    assert "already exists" in capsys.readouterr().err
    assert main([*arguments, "--overwrite", "--num_classes=3"]) == 0
    assert "3, head new" in capsys.readouterr().out
    assert json.loads(path.with_suffix(".json").read_text())["class_names"] == []
    capsys.readouterr()
    assert main(["import-weights", "--source=timm", f"--file={file}", f"--output={file}/net.keras"]) == 2
    assert f"{file} is a file" in capsys.readouterr().err


@pytest.mark.thorough
def test_init_from_takes_the_file_with_its_image_size_and_head(imported):
    recipe = with_source_settings(Recipe(init_from=str(imported)), explicit=set())
    assert (recipe.model, recipe.image_size, recipe.eval_crop) == ("resnet18_d", 192, 0.875)
    source, _ = read_network(imported)
    for names, same_head in ((tuple("abcde"), True), (tuple("vwxyz"), False)):
        model = models.create_model("resnet18_d", num_classes=5)
        load_weights_from(model, str(imported), names)
        for layer in model.layers:
            for ours, theirs in zip(layer.weights, source.get_layer(layer.name).weights, strict=True):
                same = np.array_equal(np.asarray(ours), np.asarray(theirs))
                assert same or (layer.name == "predictions" and not same_head)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--source=timm"], "--file is required"),
        (["--file=x", "--output=y.keras"], "--source is required"),
        (["--source=timm", "--file=x.safetensors", "--output=y.h5"], "--output must end in .keras"),
        (["--source=timm", "--file=x.safetensors", "--output=y.keras"], "does not exist"),
        (["--source=mmcls", "--file=x", "--output=y.keras"], "Unknown source 'mmcls'"),
        (["--source=timm", "--file=x", "--output=y.keras", "--num_classes=-1"], "--num_classes must be at least 0"),
    ],
)
def test_mistakes_are_one_line(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["import-weights", *arguments]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert message in line
    assert not list(tmp_path.iterdir())


def test_a_failed_import_leaves_nothing(file, tmp_path, capsys):
    path = tmp_path / "net.keras"
    assert main(["import-weights", "--source=timm", f"--file={file}", f"--output={path}", "--model=resnet50_d"]) == 2
    assert "it contains resnet18_d with 5 classes" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
