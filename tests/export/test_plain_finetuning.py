"""What is exported trains on in anybody's Keras and TensorFlow: in processes that can't import keras_bot."""

import hashlib
import pathlib
import re

import numpy as np
import pytest
from processes import run_python

from keras_bot import models
from keras_bot.export.savedmodel import export_savedmodel

ROOT = pathlib.Path(__file__).parents[2]
EXAMPLE = ROOT / "savedmodels/digits"
IMAGES = np.random.default_rng(0).integers(0, 256, (8, 48, 64, 3)).astype("float32")


def test_the_example_is_what_its_card_says():
    files = sorted(file for file in EXAMPLE.rglob("*") if file.is_file())
    assert sum(file.stat().st_size for file in files) < 2_000_000
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
    assert digest in (ROOT / "savedmodels/README.md").read_text()


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    model = models.create_model("resnet10_d", num_classes=5, width=0.1)
    draw = np.random.default_rng(1)
    model.set_weights([weight * draw.uniform(0.8, 1.2, weight.shape) for weight in model.get_weights()])
    path = tmp_path_factory.mktemp("plain") / "net"
    np.save(path.parent / "images.npy", IMAGES)
    ends = models.features(model)(
        (IMAGES - np.float32((123.68, 116.779, 103.939))) / np.float32((58.393, 57.12, 57.375))
    )
    np.savez(path.parent / "ends.npz", **{level: np.asarray(end) for level, end in ends.items()})
    return export_savedmodel(model, path, image_size=48)


TENSORFLOW = """
import sys
sys.modules["keras_bot"] = sys.modules["keras"] = None  # importing them would fail
import numpy as np, tensorflow as tf
loaded, images, ends = tf.saved_model.load("net"), np.load("images.npy"), np.load("ends.npz")
for level, end in loaded.features(images).items():
    np.testing.assert_allclose(end, ends[level], atol=1e-5, rtol=1e-5)
np.testing.assert_allclose(tf.nn.softmax(loaded.logits(images)), loaded.serve(images), atol=1e-6)
with tf.GradientTape() as tape:
    loss = tf.reduce_sum(loaded.features_train(images)["C5"] ** 2)
trained, others = loaded.trainable_variables, loaded.non_trainable_variables
print("tensorflow", len(trained), len(others), sum(slope is None for slope in tape.gradient(loss, trained)))
"""
KERAS = """
del sys.modules["keras"]
import keras
layer = keras.layers.TFSMLayer("net", call_endpoint="features", call_training_endpoint="features_train")
for level, end in layer(images).items():
    np.testing.assert_allclose(end, ends[level], atol=1e-5, rtol=1e-5)
image = keras.Input((48, 64, 3))
outputs = keras.layers.Dense(2)(keras.layers.GlobalAveragePooling2D()(layer(image)["C5"]))
model = keras.Model(image, outputs)
model.compile(keras.optimizers.SGD(0.05), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
before = [weight.numpy() for weight in model.weights]
model.fit(images, np.arange(8) % 2, batch_size=8, epochs=5, verbose=0)
same = [w.path for w, b in zip(model.weights, before, strict=True) if np.array_equal(w.numpy(), b)]
assert len(before) > 60 and not same, same
frozen = keras.layers.TFSMLayer("net", call_endpoint="features", trainable=False)
model = keras.Sequential([keras.Input((48, 64, 3)), keras.layers.Lambda(lambda x: frozen(x)["C5"]),
                          keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(2)])
model.compile(keras.optimizers.SGD(0.05), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
before = [weight.numpy() for weight in frozen.weights]
model.fit(images, np.arange(8) % 2, batch_size=8, epochs=2, verbose=0)
assert all(np.array_equal(w.numpy(), b) for w, b in zip(frozen.weights, before, strict=True))
print("keras", len(before))
"""
LINES = """
import os
os.chdir({root!r})
names = {{}}
exec({lines!r}, names)
print("\\nlines", names["model"].history.history["val_accuracy"][-1])
"""


@pytest.fixture(scope="module")
def printed(exported):
    """By its first word each line of one process that runs the three programs, and under "error" what they complain."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs/transfer.md").read_text(), re.DOTALL)
    lines = LINES.format(root=str(ROOT), lines=next(block for block in blocks if "TFSM" in block))
    done = run_python(TENSORFLOW + KERAS + lines, check=False, cwd=exported.parent)
    words = [line.split() for line in done.stdout.splitlines() if line.strip()]
    return {first: rest for first, *rest in words} | {"error": done.stderr[-3000:]}


@pytest.mark.thorough
def test_tensorflow_gives_the_features_and_tracks_the_weights(printed):
    assert "tensorflow" in printed, printed["error"]
    assert printed["tensorflow"] == ["44", "28", "2"]  # the head's two have no part in features


@pytest.mark.thorough
def test_five_steps_of_keras_change_every_weight_and_move_batch_norm(printed):
    assert "keras" in printed, printed["error"]
    assert printed["keras"] == ["70"]


@pytest.mark.thorough
def test_the_guides_lines_fine_tune_the_example(printed):
    assert "lines" in printed, printed["error"]
    assert float(printed["lines"][0]) > 0.9
