"""The tricks on somebody else's model, and what they need of the rest of keras_bot: nothing."""

import os
import pathlib
import subprocess
import sys
import textwrap

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_bot.tricks import (
    NAG,
    CosineDecay,
    DistillationModel,
    LearningRateLog,
    MixUp,
    MixUpOff,
    SmoothedCrossentropy,
    StopOnNonFinite,
    Warmup,
    linear_scaling,
)

EPOCHS, BATCH = 6, 32


def run_fresh(program, *arguments, **environment):
    command = [sys.executable, "-c", textwrap.dedent(program), *map(str, arguments)]
    finished = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment})
    assert finished.returncode == 0, finished.stderr[-3000:]
    return finished.stdout


def make_data():
    """Four classes of 8x8 images: a bright quadrant in noise."""
    rng = np.random.default_rng(0)
    numbers = rng.integers(0, 4, 256)
    images = rng.normal(size=(256, 8, 8, 1)).astype("float32")
    for image, number in zip(images, numbers, strict=True):
        row, column = divmod(number, 2)
        image[4 * row : 4 * row + 4, 4 * column : 4 * column + 4] += 1.0
    return images, np.eye(4, dtype="float32")[numbers]


def build_foreign_model():
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Conv2D(8, 3, padding="same"),
            keras.layers.BatchNormalization(momentum=0.9),
            keras.layers.ReLU(),
            keras.layers.MaxPooling2D(4),
            keras.layers.Flatten(),
            keras.layers.Dense(4),
        ]
    )


def train(images, labels):
    steps = len(images) // BATCH
    mixer = MixUp(alpha=0.2, seed=0)
    dataset = tf.data.Dataset.from_tensor_slices((images, labels)).shuffle(256, seed=0).batch(BATCH)
    schedule = Warmup(CosineDecay(linear_scaling(0.4, BATCH), (EPOCHS - 1) * steps), warmup_steps=steps)
    model = build_foreign_model()
    model.compile(
        NAG(schedule, weight_decay=1e-4),
        SmoothedCrossentropy(epsilon=0.1, from_logits=True),
        metrics=["accuracy"],
    )
    callbacks = [MixUpOff(mixer, last_epochs=1), LearningRateLog(), StopOnNonFinite()]
    mixed = dataset.map(lambda x, y: mixer((x, y))).prefetch(2)
    history = model.fit(mixed, epochs=EPOCHS, callbacks=callbacks, verbose=0).history
    return model, history


RELOAD = """
import sys
import keras, keras_bot.tricks
import numpy as np
data = np.load(sys.argv[2])
model = keras.saving.load_model(sys.argv[1])
results = model.evaluate(data["x"], data["y"], verbose=0)
print(*map(repr, map(float, results)), int(model.optimizer.iterations), type(model.optimizer).__name__)
model.fit(data["x"], data["y"], verbose=0)
others = sorted(m for m in sys.modules if m.startswith("keras_bot.") and not m.startswith("keras_bot.tricks"))
print(*others)
"""


@pytest.mark.thorough
def test_a_foreign_model_trains_with_all_tricks_and_loads_in_a_fresh_process(tmp_path):
    keras.utils.set_random_seed(0)
    images, labels = make_data()
    model, history = train(images, labels)
    loss, accuracy = model.evaluate(images, labels, verbose=0)
    assert accuracy > 0.85
    assert history["learning_rate"][0] == pytest.approx(0.05)
    assert history["learning_rate"][-1] == pytest.approx(0.0, abs=1e-7)
    model.save(tmp_path / "model.keras")
    np.savez(tmp_path / "data.npz", x=images, y=labels)
    first, others = run_fresh(RELOAD, tmp_path / "model.keras", tmp_path / "data.npz").strip().split("\n")
    loaded_loss, loaded_accuracy, iterations, optimizer = first.split()
    assert float(loaded_loss) == pytest.approx(loss, rel=1e-5)
    assert float(loaded_accuracy) == pytest.approx(accuracy)
    assert (int(iterations), optimizer) == (EPOCHS * 8, "NAG")
    assert set(others.split()) <= {
        f"keras_bot.{name}" for name in ("deprecation", "errors", "moved", "surgery", "tensors")
    }


def test_two_replicas_train_as_one(two_replicas):
    draw = np.random.default_rng(0)
    x, y = draw.normal(size=(32, 6)).astype("float32"), np.eye(3, dtype="float32")[draw.integers(0, 3, 32)]

    def net(units):
        layers = [keras.layers.Dense(units, activation="relu"), keras.layers.Dense(3)]
        return keras.Sequential([keras.Input((6,)), *layers])

    weights = []
    for strategy in (tf.distribute.get_strategy(), two_replicas):
        keras.utils.set_random_seed(0)
        with strategy.scope():
            distiller = DistillationModel(net(4), net(8))
            loss = keras.losses.CategoricalCrossentropy(from_logits=True)
            distiller.compile(NAG(Warmup(CosineDecay(0.1, 8), 2), weight_decay=0.01), loss)
        distiller.fit(tf.data.Dataset.from_tensor_slices((x, y)).batch(8), epochs=2, verbose=0)
        weights.append([w.numpy() for w in distiller.student.weights])
    for one, two in zip(*weights, strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-6)


JAX = """
import sys
import keras, numpy as np
from keras_bot.tricks import *
assert keras.backend.backend() == "jax" and "tensorflow" not in sys.modules
rng = np.random.default_rng(0)
x, y = rng.normal(size=(32, 6)).astype("float32"), np.eye(3, dtype="float32")[rng.integers(0, 3, 32)]
net = lambda units: keras.Sequential([keras.Input((6,)), keras.layers.Dense(units), keras.layers.Dense(3)])
images, labels = MixUp(1.0, seed=1)((x, y))
np.testing.assert_allclose(np.sum(labels, axis=-1), 1, rtol=1e-5)
assert np.any(np.asarray(images) != x)
distiller = DistillationModel(net(4), net(8), hard_weight=0.5)
distiller.compile(NAG(Warmup(CosineDecay(0.05, 16), 4)), SmoothedCrossentropy(0.1, from_logits=True))
teacher = [w.numpy() for w in distiller.teacher.weights]
losses = distiller.fit(x, y, batch_size=8, epochs=5, verbose=0, callbacks=[LearningRateLog()]).history["loss"]
assert losses[-1] < losses[0]
assert all(np.array_equal(a, b.numpy()) for a, b in zip(teacher, distiller.teacher.weights))
"""


@pytest.mark.thorough
def test_the_tricks_work_without_tensorflow():
    pytest.importorskip("jax", reason="JAX is the other backend to try them on")
    run_fresh(JAX, KERAS_BACKEND="jax")


def test_no_trick_imports_tensorflow_or_another_part():
    folder = pathlib.Path(__file__).parents[2] / "keras_bot" / "tricks"
    for path in folder.glob("*.py"):
        source = path.read_text()
        for forbidden in ("import tensorflow", "keras_bot.models", "keras_bot.data", "keras_bot.training"):
            assert forbidden not in source, path.name
