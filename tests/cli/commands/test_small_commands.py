"""`models`, `predict` and `inspect` print what they are asked for."""

import json
import types

import pytest

from keras_bot.cli.commands import inspect, models, predict
from keras_bot.cli.main import main
from keras_bot.errors import RunError


@pytest.fixture(autouse=True)
def no_backend(monkeypatch):
    for command in (inspect, models, predict):
        monkeypatch.setattr(command, "start_tensorflow", lambda: None)


@pytest.fixture
def built(monkeypatch):
    """The networks that are built; each has 1,234 parameters, and a thousand FLOPs per pixel of the image's side."""
    calls = []
    monkeypatch.setattr("keras_bot.models.create_model", lambda name, **options: calls.append((name, options)) or name)
    monkeypatch.setattr("keras_bot.models.count_parameters", lambda model: 1234)
    monkeypatch.setattr("keras_bot.models.count_flops", lambda model, size: size * 1000)
    return calls


@pytest.mark.parametrize(
    ("arguments", "rows"),
    [
        (["resnet50_d"], [("resnet50_d", 224, 1000, 224000)]),
        (
            ["cifar_resnet20_a", "inception_v3"],
            [("cifar_resnet20_a", 32, 10, 32000), ("inception_v3", 299, 1000, 299000)],
        ),
        (["resnet50_d", "--image_size=64", "--num_classes=5"], [("resnet50_d", 64, 5, 64000)]),
        (["inception_v3", "--image_size=74"], [("inception_v3", 74, 1000, None)]),
        (["inception_v3", "--image_size=75"], [("inception_v3", 75, 1000, 75000)]),
    ],
)
def test_models_prints_sizes(arguments, rows, built, capsys):
    assert main(["models", *arguments, "--json"]) == 0
    names = ("model", "image_size", "num_classes", "flops")
    expected = [{**dict(zip(names, row, strict=True)), "parameters": 1234} for row in rows]
    assert json.loads(capsys.readouterr().out) == expected
    assert built == [(name, {"num_classes": classes}) for name, _, classes, _ in rows]


def test_models_prints_a_table(built, capsys):
    assert main(["models", "resnet50_d", "inception_v3", "--image_size=60"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["model", "input", "classes", "parameters", "GFLOPs"]
    assert lines[1].split() == ["resnet50_d", "60x60", "1000", "1,234", "6e-05"]
    assert lines[2].split() == ["inception_v3", "60x60", "1000", "1,234", "too", "small"]


def test_all_models_are_listed_by_default(built, capsys):
    from keras_bot import models

    assert main(["models"]) == 0
    assert [name for name, _ in built] == models.names()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["resnet50"], "Unknown model 'resnet50'."),
        (["--image_size=-1"], "--image_size must be at least 0, received -1."),
        (["--num_classes=-1"], "--num_classes must be at least 0, received -1."),
    ],
)
def test_models_reports_mistakes(arguments, message, built, capsys):
    assert main(["models", *arguments]) == 2
    assert message in capsys.readouterr().err and built == []


@pytest.fixture
def savedmodel(monkeypatch):
    """A function that sets the description of the SavedModel, which `predict` then loads."""

    def set_description(description):
        loaded = types.SimpleNamespace(serve="serve")
        monkeypatch.setattr("keras_bot.export.savedmodel.load_savedmodel", lambda path: (loaded, description))

    return set_description


def test_predict_prints_the_likeliest_classes(savedmodel, capsys, monkeypatch):
    seen = []

    def predict_file(*arguments, **options):
        seen.append((arguments, options))
        return types.SimpleNamespace(top=[("c\nat", 0.875), ("dog", 0.125)])

    savedmodel({"class_names": ["a"]})
    monkeypatch.setattr("keras_bot.export.prediction.predict_file", predict_file)
    assert main(["predict", "--savedmodel=out", "x.jpg", "y.jpg", "--top=2"]) == 0
    assert seen == [(("serve", ["a"], name), {"top": 2}) for name in ("x.jpg", "y.jpg")]
    lines = " 87.50%  c\\nat\n   12.50%  dog\n"
    assert capsys.readouterr().out == f"x.jpg\n  {lines}y.jpg\n  {lines}"


def test_predict_draws_for_other_tasks(savedmodel, capsys, monkeypatch):
    seen = []
    description = {"task": "detection", "class_names": ["a"]}
    savedmodel(description)
    monkeypatch.setattr("keras_bot.tasks.prediction.draw_file", lambda *arguments: seen.append(arguments) or ["a box"])
    assert main(["predict", "--savedmodel=out", "a/x.jpg", "b/x.jpg", "--output_dir=seen", "--min_score=0.7"]) == 0
    assert [(path, str(picture)) for _, _, path, picture, _ in seen] == [
        ("a/x.jpg", "seen/x.png"),
        ("b/x.jpg", "seen/x-2.png"),
    ]
    assert {(serve, score) for serve, _, _, _, score in seen} == {("serve", 0.7)} and seen[0][1] is description
    assert capsys.readouterr().out == "a/x.jpg\n  a box\nb/x.jpg\n  a box\n"


def test_predict_continues_after_a_broken_image(savedmodel, capsys, monkeypatch):
    def predict_file(serve, names, path, top):
        if path == "bad.jpg":
            raise RunError("bad.jpg is broken")
        return types.SimpleNamespace(top=[("cat", 1.0)])

    savedmodel({})
    monkeypatch.setattr("keras_bot.export.prediction.predict_file", predict_file)
    assert main(["predict", "--savedmodel=out", "bad.jpg", "x.jpg"]) == 1
    out, err = capsys.readouterr()
    assert out == "x.jpg\n  100.00%  cat\n" and err == "keras-bot: bad.jpg is broken\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["x.jpg"], "--savedmodel and at least one image file are required."),
        (["--savedmodel=out"], "--savedmodel and at least one image file are required."),
        (["--savedmodel=out", "x.jpg", "--top=0"], "--top must be at least 1, received 0."),
        (["--savedmodel=out", "x.jpg", f"--output_dir={__file__}"], "is a file. Choose a directory."),
    ],
)
def test_predict_reports_mistakes(arguments, message, capsys):
    assert main(["predict", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_no_picture_overwrites_another_or_an_image(tmp_path):
    images = [str(tmp_path / name) for name in ("x.png", "sub/x.jpg", "x-2.png", "y.jpg")]
    found = [path.name for path in predict.picture_files(images, tmp_path)]
    assert found == ["x-3.png", "x-4.png", "x-2-2.png", "y.png"]


def test_inspect_prints_the_summary(monkeypatch, capsys):
    seen = []
    monkeypatch.setattr("keras_bot.export.inspect.inspect", lambda path: seen.append(str(path)) or "the summary")
    assert main(["inspect", "out/model.keras"]) == 0 and main(["inspect", "out"]) == 0
    assert seen == ["out/model.keras", "out"] and capsys.readouterr().out == "the summary\n" * 2
    for arguments, count in (([], 0), (["a", "b"], 2)):
        assert main(["inspect", *arguments]) == 2
        assert f"Pass one SavedModel or file, received {count}. usage:" in capsys.readouterr().err
