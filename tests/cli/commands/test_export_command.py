"""`export` passes a run's network and settings to the writer of each format, under the right path."""

import json

import pytest

from keras_bot.cli.commands import export
from keras_bot.cli.main import main
from keras_bot.recipe import Recipe
from keras_bot.training.checkpoints.run_directory import run_flags

METRICS = {"result": {"top1": 0.5, "loss": 1.0}, "dataset": {"class_names": ["a", "b"]}, "tricks": []}


@pytest.fixture
def make_run(tmp_path, monkeypatch):
    """Writes a run directory; the current directory is its parent."""
    monkeypatch.chdir(tmp_path)

    def make(result=METRICS["result"], **fields):
        (tmp_path / "run").mkdir()
        recipe = Recipe(image_size=48, eval_crop=0.5, transform="cifar", **fields)
        (tmp_path / "run" / "run.flags").write_text(run_flags(recipe))
        (tmp_path / "run" / "metrics.json").write_text(json.dumps({**METRICS, "result": result}))
        return recipe

    return make


@pytest.fixture
def calls(monkeypatch):
    """The calls of the readers and writers, in order."""
    events = []

    def replace(name, result=None):
        def call(*arguments, **options):
            events.append((name.rpartition(".")[2], *arguments, options))
            if name.endswith(("export_savedmodel", "export_trained")):
                (arguments[1] / "assets.extra").mkdir(parents=True)
                (arguments[1] / "assets.extra" / "model.json").write_text('{"worst_difference": 1e-6}')
            return result

        monkeypatch.setattr(name, call)

    replace("keras_bot.model_files.load_network", "a network")
    replace("keras_bot.tasks.serving.load_trained", "a model")
    replace("keras_bot.export.savedmodel.export_savedmodel")
    replace("keras_bot.tasks.serving.export_trained")
    replace("keras_bot.export.portable.export_file", 2e-6)
    replace("keras_bot.export.portable.write_file", 3e-6)
    replace("keras_bot.interop.save_timm", {"dropped": []})
    monkeypatch.setattr(export, "start_tensorflow", lambda: events.append("backend"))
    return events


def printed(capsys):
    return json.loads(capsys.readouterr().out)


DESCRIPTION = {"class_names": ["a", "b"], **METRICS}
SETTINGS = {"image_size": 48, "transform": "cifar", "eval_crop": 0.5, "description": DESCRIPTION, "overwrite": False}


def test_a_classifier_becomes_a_savedmodel_of_the_runs_name(make_run, calls, tmp_path, capsys):
    make_run()
    assert main(["export", "--run_dir=run"]) == 0
    loaded, written = calls[1:]
    assert calls[0] == "backend" and loaded[0] == "load_network" and str(loaded[1]) == "run/model.keras"
    assert written[:2] == ("export_savedmodel", "a network") and written[3] == SETTINGS
    assert str(written[2]) == "savedmodels/run"
    assert printed(capsys) == {"savedmodel": "savedmodels/run", "worst_difference": 1e-6, "top1": 0.5}


@pytest.mark.parametrize(
    ("flags", "path"),
    [
        (["--name=flowers"], "savedmodels/flowers"),
        (["--output_dir=out"], "out/run"),
        (["--name=flowers", "--output_dir=out", "--format=keras"], "out/flowers.keras"),
        (["--format=onnx"], "savedmodels/run.onnx"),
        (["--format=litert"], "savedmodels/run.tflite"),
        (["--format=timm"], "savedmodels/run.safetensors"),
    ],
)
def test_the_path_follows_name_directory_and_format(flags, path, make_run, calls):
    make_run()
    assert main(["export", "--run_dir=run", *flags]) == 0
    assert str(calls[-1][2]) == path


def test_a_run_in_the_current_directory_has_its_name(make_run, calls, monkeypatch, tmp_path):
    make_run()
    monkeypatch.chdir(tmp_path / "run")
    assert main(["export", "--run_dir=."]) == 0
    assert str(calls[-1][2]) == "savedmodels/run"


@pytest.mark.parametrize("format", ["keras", "onnx", "litert"])
def test_a_classifier_becomes_a_file(format, make_run, calls, capsys):
    make_run()
    assert main(["export", "--run_dir=run", f"--format={format}", "--overwrite"]) == 0
    assert calls[-1] == ("export_file", "a network", calls[-1][2], {**SETTINGS, "overwrite": True})
    result = printed(capsys)
    assert result.pop("path").startswith("savedmodels/run.")
    assert result == {"format": format, "worst_difference": 2e-6, "top1": 0.5}


def test_a_network_of_another_width_is_refused_for_timm(make_run, calls, capsys):
    make_run(width=0.5)
    assert main(["export", "--run_dir=run", "--format=timm"]) == 2
    assert "timm's networks have --width=1, but run was trained with --width=0.5" in capsys.readouterr().err


def test_a_classifier_becomes_timms_file(make_run, calls, capsys):
    make_run()
    assert main(["export", "--run_dir=run", "--format=timm"]) == 0
    assert calls[-1][3] == {"image_size": 48, "eval_crop": 0.5, "overwrite": False}
    assert printed(capsys) == {"format": "timm", "path": "savedmodels/run.safetensors", "dropped": [], "top1": 0.5}


@pytest.mark.parametrize(("task", "metric"), [("detection", "map"), ("segmentation", "mean_iou")])
def test_other_tasks_have_their_own_savedmodels(task, metric, make_run, calls, capsys):
    recipe = make_run(result={metric: 0.25}, task=task)
    assert main(["export", "--run_dir=run", "--overwrite"]) == 0
    loaded, (name, model, _, given, description, options) = calls[1:]
    assert loaded[0] == "load_trained" and loaded[2] == task
    assert (name, model, given, options) == ("export_trained", "a model", recipe, {"overwrite": True})
    assert description["class_names"] == ["a", "b"] and printed(capsys)[metric] == 0.25


def test_a_segmenter_becomes_a_file_without_resizing(make_run, calls):
    make_run(task="segmentation")
    assert main(["export", "--run_dir=run", "--format=onnx"]) == 0
    name, model, _, options = calls[-1]
    description = {**DESCRIPTION, "task": "segmentation"}
    expected = {"image_size": 48, "transform": None, "description": description, "overwrite": False}
    assert (name, model, options) == ("export_file", "a model", expected)


def test_a_detector_becomes_a_keras_file_only(make_run, calls, capsys):
    make_run(task="detection")
    assert main(["export", "--run_dir=run", "--format=keras"]) == 0
    name, model, _, reference, description, options = calls[-1]
    assert (name, model, reference) == ("write_file", "a model", "a model") and description["task"] == "detection"
    assert options == {"sizes": [(1, 48, 48), (2, 48, 48)], "overwrite": False}
    capsys.readouterr()
    assert main(["export", "--run_dir=run", "--format=onnx"]) == 2
    assert "--format=onnx does not support detectors, because of their NMS." in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "--run_dir is required: the run to export."),
        (["--run_dir=run", "--name=a/b"], "--name must not contain a path, received 'a/b'."),
        (["--run_dir=run", "--name=.."], "--name must not contain a path, received '..'."),
        (["--run_dir=run", "--format=savedmode"], "Unknown format 'savedmode'. Did you mean savedmodel"),
        (["--run_dir=run", "--output_dir=run/run.flags"], "--output_dir=run/run.flags is a file. Choose a directory."),
        (["--run_dir=run", "--output_dir=.", "--overwrite"], "run is not a SavedModel, so it is not overwritten."),
        (["--run_dir=run", "--output_dir=."], "run already exists."),
        (["--run_dir=run", "--name=a[0]"], "TensorFlow could not load it"),
    ],
)
def test_mistakes_are_reported_before_the_backend_starts(flags, message, make_run, calls, capsys):
    make_run()
    assert main(["export", *flags]) == 2
    assert message in capsys.readouterr().err and calls == []
