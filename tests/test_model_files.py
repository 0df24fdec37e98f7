"""A network is read from a run, a .keras file or a SavedModel with its weights; any other file has its own message."""

import json
import re
import shutil
import zipfile

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_bot.errors import MisuseError, RunError
from keras_bot.model_files import (
    check_finite,
    check_savedmodel,
    class_names_of,
    load_network,
    read_description,
    read_network,
    with_preprocessing,
    without_preprocessing,
)

METRICS = {"recipe": {"model": "tiny"}, "dataset": {"class_names": ["a", "b", "c"]}, "result": {}}
DESCRIPTION = {"class_names": ["x", "y", "z"], "worst_difference": 0.0}


def build(name="tiny", classes=3):
    inputs = keras.Input((None, None, 3))
    x = keras.layers.GlobalAveragePooling2D()(inputs)
    x = keras.layers.BatchNormalization()(x)
    return keras.Model(inputs, keras.layers.Dense(classes)(x), name=name)


@pytest.fixture(scope="module")
def network():
    keras.utils.set_random_seed(0)
    model = build()
    model.set_weights([np.random.default_rng(0).standard_normal(w.shape) for w in model.get_weights()])
    return model


@pytest.fixture(scope="module")
def files(network, tmp_path_factory):
    """A run directory, a .keras file, an exported one with a description, and a SavedModel."""
    folder = tmp_path_factory.mktemp("files")
    (folder / "run").mkdir()
    (folder / "run" / "metrics.json").write_text(json.dumps(METRICS))
    network.save(folder / "run" / "model.keras")
    shutil.copy(folder / "run" / "model.keras", folder / "plain.keras")
    with_preprocessing(network).save(folder / "exported.keras")
    with zipfile.ZipFile(folder / "exported.keras", "a") as archive:
        archive.writestr("model.json", json.dumps(DESCRIPTION))
    write_savedmodel(folder / "savedmodel", network)
    return folder


def write_savedmodel(path, network, description=DESCRIPTION):
    """Writes the files of an export that hold the network; its graph, which is not read, is empty."""
    (path / "assets.extra").mkdir(parents=True)
    (path / "saved_model.pb").touch()
    (path / "assets.extra" / "model.json").write_text(json.dumps(description))
    (path / "assets.extra" / "network.json").write_text(network.to_json())
    variables = [tf.Variable(value) for value in network.get_weights()]
    tf.train.Checkpoint(variables=variables).write(str(path / "variables" / "variables"))


def is_same(one, other):
    weights = [model.get_weights() for model in (one, other)]
    return one.name == other.name and all(np.array_equal(a, b) for a, b in zip(*weights, strict=True))


@pytest.mark.parametrize(
    ("name", "description"),
    [
        ("run", METRICS),
        ("run/model.keras", METRICS),
        ("plain.keras", {}),
        ("exported.keras", DESCRIPTION),
        ("savedmodel", DESCRIPTION),
    ],
)
@pytest.mark.parametrize("as_type", ["path", "text"])
def test_a_network_is_read_with_its_weights_and_description(name, description, as_type, files, network):
    path = files / name
    found, found_description = read_network(path if as_type == "path" else str(path))
    assert is_same(found, network) and found_description == description
    assert not getattr(found, "compiled", False)


def test_the_description_in_the_file_goes_before_that_of_its_directory(files, tmp_path):
    shutil.copy(files / "exported.keras", tmp_path)
    (tmp_path / "metrics.json").write_text(json.dumps(METRICS))
    assert read_network(tmp_path / "exported.keras")[1] == DESCRIPTION


@pytest.mark.parametrize("content", [{}, {"recipe": {}}, {"recipe": [], "dataset": {}}, {"recipe": {}, "dataset": 1}])
def test_another_programs_metrics_are_ignored(content, files, tmp_path):
    shutil.copy(files / "plain.keras", tmp_path)
    (tmp_path / "metrics.json").write_text(json.dumps(content))
    assert read_network(tmp_path / "plain.keras")[1] == {}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "Cannot read {path}: Expecting property name"),
        ("[1]", "{path} must contain a JSON object, but contains a list. Restore it."),
        ("\udcff", "Cannot read {path}: 'utf-8' codec can't decode"),
    ],
)
@pytest.mark.parametrize("name", ["", "model.keras"])
def test_damaged_metrics_are_reported(content, message, name, files, tmp_path):
    run = shutil.copytree(files / "run", tmp_path / "run")
    (run / "metrics.json").write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(RunError) as raised:
        read_network(run / name)
    assert str(raised.value).startswith(message.format(path=run / "metrics.json"))


def test_a_missing_path(tmp_path):
    with pytest.raises(MisuseError) as raised:
        read_network(tmp_path / "nothing")
    assert str(raised.value) == (
        f"{tmp_path / 'nothing'} does not exist. Pass a .keras file, a run directory or an exported SavedModel."
    )


def test_a_directory_that_is_neither_a_run_nor_an_export(tmp_path):
    with pytest.raises(MisuseError) as raised:
        read_network(tmp_path)
    assert str(raised.value) == (
        f"The directory {tmp_path} is neither a finished run nor an exported SavedModel. Pass one of these, or a "
        ".keras file."
    )


def test_an_unfinished_run(tmp_path):
    (tmp_path / "metrics.json").write_text("{}")
    with pytest.raises(MisuseError) as raised:
        read_network(tmp_path)
    assert str(raised.value) == (
        f"The .keras file {tmp_path / 'model.keras'} does not exist. A finished run contains model.keras; `keras-bot "
        "train --resume` finishes an interrupted run."
    )


def test_a_file_that_is_no_archive(tmp_path):
    path = tmp_path / "model.keras"
    path.write_text("text")
    with pytest.raises(MisuseError) as raised:
        read_network(path)
    assert str(raised.value) == f"Cannot load {path}: it is damaged, or not a .keras file."


def test_an_archive_that_is_no_keras_file(tmp_path):
    path = tmp_path / "model.keras"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a", "b")
    with pytest.raises(MisuseError, match=rf"^Cannot load {re.escape(str(path))} as a \.keras file: "):
        read_network(path)


def rewrite_config(source, path, change):
    """Copies a .keras file with a changed configuration text."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            new.writestr(name, change(content.decode()) if name == "config.json" else content)
    return path


NO_CLASSIFIER = (
    "{path} does not contain a classifier, with one output (batch, classes). Pass a run or an export of "
    "--task=classification."
)


def test_a_network_of_unknown_classes_is_no_classifier(files, tmp_path):
    path = rewrite_config(
        files / "plain.keras",
        tmp_path / "model.keras",
        lambda text: text.replace(
            '"module": "keras.layers", "class_name": "Dense"', '"module": "x", "class_name": "D"'
        ),
    )
    with pytest.raises(MisuseError) as raised:
        load_network(path)
    assert str(raised.value) == NO_CLASSIFIER.format(path=path)


@pytest.mark.parametrize("kind", ["two outputs", "maps"])
def test_a_network_with_other_outputs_is_no_classifier(kind, tmp_path):
    inputs = keras.Input((4, 4, 3))
    outputs = keras.layers.Conv2D(2, 1)(inputs)
    if kind == "two outputs":
        outputs = [keras.layers.GlobalAveragePooling2D()(outputs)] * 2
    path = tmp_path / "model.keras"
    keras.Model(inputs, outputs).save(path)
    with pytest.raises(MisuseError) as raised:
        load_network(path)
    assert str(raised.value) == NO_CLASSIFIER.format(path=path)


def test_code_in_a_file_is_not_run(tmp_path):
    inputs = keras.Input((3,))
    path = tmp_path / "model.keras"
    keras.Model(inputs, keras.layers.Lambda(lambda x: x)(inputs)).save(path)
    with pytest.raises(MisuseError, match=r"as a \.keras file: .*[Ll]ambda"):
        load_network(path)


def test_the_number_of_classes_is_compared_if_given(files):
    path = files / "plain.keras"
    assert load_network(path, num_classes=3).output_shape == (None, 3)
    with pytest.raises(MisuseError) as raised:
        load_network(path, num_classes=4)
    assert str(raised.value) == f"{path} has 3 classes, but the data set has 4."


def test_training_state_is_not_loaded(network, tmp_path):
    model = keras.models.clone_model(network)
    model.compile("adam", "mse", jit_compile=False)
    model.optimizer.build(model.trainable_variables)
    model.save(tmp_path / "model.keras")
    assert getattr(load_network(tmp_path / "model.keras"), "optimizer", None) is None


def test_weights_that_are_not_finite_are_named(network, tmp_path):
    model = build()
    weights = [np.array(weight) for weight in network.get_weights()]
    weights[-2][0, :2] = np.nan
    weights[-1][0] = np.inf
    model.set_weights(weights)
    model.save(tmp_path / "model.keras")
    write_savedmodel(tmp_path / "savedmodel", model)
    kernel, bias = (model.layers[-1].name + name for name in ("/kernel", "/bias"))
    for path in (tmp_path / "model.keras", tmp_path / "savedmodel"):
        with pytest.raises(RunError) as raised:
            read_network(path)
        assert str(raised.value) == (
            f"{path} contains weights that are not finite: {kernel} (2 of 9 values), {bias} (1 of 3 values). Use "
            "another file."
        )


def test_integers_and_finite_values_pass_the_check():
    check_finite([tf.Variable([1, 2]), tf.Variable([1.0])], "file")
    with pytest.raises(RunError, match=r"^file contains weights that are not finite: w:0 \(1 of 2 values\)\."):
        check_finite([tf.Variable([1.0, np.nan], name="w")], "file")


@pytest.mark.parametrize("kind", ["no pb", "file", "missing"])
def test_only_a_savedmodel_is_a_savedmodel(kind, files, tmp_path):
    check_savedmodel(files / "savedmodel")
    path = {"no pb": tmp_path, "file": files / "plain.keras", "missing": tmp_path / "missing"}[kind]
    with pytest.raises(MisuseError) as raised:
        check_savedmodel(path)
    assert str(raised.value) == f"{path} is not a SavedModel, as `keras-bot export` writes it without --format."


def test_a_savedmodel_of_another_program(tmp_path):
    (tmp_path / "saved_model.pb").touch()
    with pytest.raises(MisuseError) as raised:
        read_network(tmp_path)
    assert str(raised.value) == (
        f"The SavedModel {tmp_path} contains no assets.extra/network.json, so keras_bot did not export it, or an old "
        "version did. Export the network again."
    )


def test_a_savedmodel_for_another_task(network, tmp_path):
    write_savedmodel(tmp_path / "detector", network, {"task": "detection"})
    with pytest.raises(MisuseError) as raised:
        read_network(tmp_path / "detector")
    message = f"{tmp_path / 'detector'} contains a network for detection, but a classifier is needed."
    assert str(raised.value) == message


@pytest.mark.parametrize("damage", ["network.json", "variables", "another network"])
def test_a_damaged_savedmodel(damage, files, tmp_path):
    path = shutil.copytree(files / "savedmodel", tmp_path / "savedmodel")
    if damage == "network.json":
        (path / "assets.extra" / "network.json").write_text("{")
    elif damage == "variables":
        shutil.rmtree(path / "variables")
    else:
        (path / "assets.extra" / "network.json").write_text(build(classes=5).to_json())
    with pytest.raises(MisuseError, match=rf"^Cannot read the network of the SavedModel {re.escape(str(path))}: \w"):
        read_network(path)


def test_a_savedmodel_without_a_description(files, tmp_path):
    path = shutil.copytree(files / "savedmodel", tmp_path / "savedmodel")
    (path / "assets.extra" / "model.json").unlink()
    with pytest.raises(RunError, match=r"^Cannot read .*model\.json: .*No such file"):
        read_network(path)


def test_a_savedmodel_in_a_folder_that_tensorflow_reads_as_a_pattern(files, network, tmp_path):
    path = shutil.copytree(files / "savedmodel", tmp_path / "seeds[0]" / "savedmodel")
    assert is_same(read_network(path)[0], network)


def test_preprocessing_maps_pixels_to_probabilities(network):
    images = np.random.default_rng(0).integers(0, 256, (2, 5, 4, 3)).astype("float32")
    normalised = (images - [123.68, 116.779, 103.939]) / [58.393, 57.12, 57.375]
    logits = np.asarray(network(normalised.astype("float32")))
    expected = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    wrapped = with_preprocessing(network)
    np.testing.assert_allclose(wrapped(images), expected, rtol=1e-4, atol=1e-6)
    assert wrapped.name == "tiny_of_images" and [tensor.name for tensor in wrapped.inputs] == ["images"]
    assert wrapped.layers[-1].name == "probabilities"


def test_preprocessing_is_taken_off_again(network):
    assert without_preprocessing(with_preprocessing(network)) is network
    assert without_preprocessing(network) is network


def test_a_network_with_other_preprocessing_is_left_whole(network):
    images = keras.Input((None, None, 3))
    x = network(keras.layers.Rescaling(1 / 255)(images))
    other = keras.Model(images, keras.layers.Softmax()(x))
    no_model = object()
    assert without_preprocessing(other) is other and without_preprocessing(no_model) is no_model


@pytest.mark.parametrize(
    ("description", "names"),
    [
        ({"class_names": ["a"]}, ["a"]),
        ({"dataset": {"class_names": ["b"]}}, ["b"]),
        ({"class_names": [], "dataset": {"class_names": ["b"]}}, ["b"]),
        ({"class_names": ["a"], "dataset": {"class_names": ["b"]}}, ["a"]),
        ({"dataset": {}}, []),
        ({}, []),
    ],
)
def test_the_class_names_of_a_description(description, names):
    assert class_names_of(description) == names


def test_the_description_in_an_archive(files, tmp_path):
    assert read_description(files / "exported.keras") == DESCRIPTION
    assert read_description(str(files / "plain.keras")) == {}
    (tmp_path / "text").write_text("text")
    for path in (tmp_path / "text", tmp_path / "missing"):
        with pytest.raises(RunError, match=rf"^Cannot read the description in {re.escape(str(path))}: .*\.$"):
            read_description(path)


def test_a_damaged_description_in_an_archive(tmp_path):
    with zipfile.ZipFile(tmp_path / "file", "w") as archive:
        archive.writestr("model.json", "{")
    with pytest.raises(RunError, match=r"^Cannot read the description in"):
        read_description(tmp_path / "file")
